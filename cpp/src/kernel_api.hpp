// The boundary between ordinary code and the kernels that are compiled once per instruction set:
// plain data only.
//
// Sizes are in elements, strides too. `units` are laid out in panels of one vector each: `lanes`
// units a panel, and a tail panel of half a vector where that holds the rest. Padded lanes compute
// zeros and are never written out.
#pragma once

#include <cstdint>

#include "cell_list.hpp"  // generated from kernels/cells/: TIDEGATE_FOR_EACH_CELL

namespace tidegate {

enum class Activation : int32_t {
  linear,
  relu,
  relu6,
  leaky_relu,
  elu,
  selu,
  celu,
  gelu,
  gelu_tanh,
  silu,
  sigmoid,
  hard_sigmoid,
  hard_sigmoid_keras2,
  hard_silu,
  hard_tanh,
  tanh,
  softplus,
  softsign,
  exponential,
  mish,
  log_sigmoid,
  tanh_shrink,
};

#define TIDEGATE_COUNT(cell) +1
constexpr int kCells = 0 TIDEGATE_FOR_EACH_CELL(TIDEGATE_COUNT);
#undef TIDEGATE_COUNT

constexpr int kMaxStates = 2;

// What the layers need to know of a cell to lay out its memory.
struct CellInfo {
  const char* name;
  int gates;           // columns of the kernels = gates * units
  int states;          // h first
  int bias_rows;       // 2: input bias and recurrent bias (GRU reset_after)
  int saved;           // vectors per unit, step and row that backward needs beside the states
  int saved_generic;   // likewise with activations other than tanh and sigmoid
  int gradient_slots;  // pre-activation gradients per unit, step and row
  bool two_phases;     // a second recurrent product on r * h (GRU reset_before); keeps r * h like a
                       // state
};

// Threads inside one call meet here; the team (team.hpp) owns it.
struct Barrier;
void barrier_wait(Barrier* barrier);

enum class Split : int32_t { rows, units };

// One call of a recurrent layer forward. Shapes are row-major.
template <class T>
struct ForwardArgs {
  int64_t batch, time, features, units;
  Activation activation, recurrent_activation;
  Split split;

  const T* kernel;            // packed, features rows
  const T* recurrent_kernel;  // packed, units rows
  const T* bias;              // packed: padded_units * gates
  const T* recurrent_bias;    // packed, or null

  const T* x;  // the first step processed
  int64_t x_batch_stride, x_time_stride;
  const uint8_t* mask;  // nonzero: use the step; null: all used; the first step processed
  int64_t mask_batch_stride, mask_time_stride;
  bool zero_output_for_mask;
  const T* input_dropout;      // (gates, batch, features) factors of x in each gate's product, or
                               // null
  const T* recurrent_dropout;  // (gates, batch, units) factors of h(t-1) in the recurrent product,
                               // or null

  T* outputs;  // every step, or null
  int64_t output_batch_stride, output_time_stride;
  T* last_output;  // (batch, units), or null

  const T* initial_state[kMaxStates];  // (batch, units), or null for zeros
  T* final_state[kMaxStates];          // (batch, units)

  // Memory. Slices are (batch, state_stride); `slices` is time + 1 when training, 2 otherwise.
  int64_t slices, state_stride;
  T* state[kMaxStates];
  T* reset_state;    // r * h of two-phase cells: slices of the same shape, or null
  T* dropped_x;      // per thread: (gates, chunk * batch, features), x times its factors, or null
  T* dropped_state;  // (2, gates, batch, state_stride): h times its dropout factors, or null
  T* saved;          // (time, padded units, batch * saved), or one step of it when not training
  bool training;
  T* projection;  // of `chunk` steps of time: chunk * batch * gates * padded units
  int64_t chunk;
  int32_t* projected_rows;  // per thread, when masked: 2 * chunk * batch
  int32_t* row_ids;         // per thread: batch
  bool (*poll)(void*);      // asked by thread 0 between chunks; true: stop
  void* poll_data;
  int32_t* stop;  // set by thread 0 when poll asks for it
};

// One call backward, over what a forward call with training = true left in `forward`.
template <class T>
struct BackwardArgs {
  const ForwardArgs<T>* forward;
  const T* kernel_transposed;            // packed for dX, or null when d_x is null
  const T* recurrent_kernel_transposed;  // packed for dh

  const T* d_outputs;  // the first step processed, or null
  int64_t d_output_batch_stride, d_output_time_stride;
  const T* d_last_output;              // (batch, units), or null
  const T* d_final_state[kMaxStates];  // (batch, units), or null

  T* d_x;  // the first step processed, or null
  int64_t d_x_batch_stride, d_x_time_stride;
  T* d_kernel;                     // (features, gates * units)
  T* d_recurrent_kernel;           // (units, gates * units)
  T* d_bias;                       // (bias_rows, gates * units), or null
  T* d_initial_state[kMaxStates];  // (batch, units)

  // Memory.
  T* d_state[kMaxStates];  // (batch, state_stride)
  T* d_reset;              // two-phase cells: (batch, state_stride), or null
  T* d_z[2];               // each chunk * batch + 1 rows in panels of gradient_slots vectors
  int32_t* place[2];       // (chunk * batch): the row of d_z of each step and row
  int32_t* unmasked[2];    // the other way round, and the number of rows: chunk * batch + 1
  int64_t chunk;
  T* weight_sums;        // packed sums of every weight gradient: weight_sums_size
  T* packed_rows;        // inputs and states of a chunk, packed for those sums: packed_rows_size
  int32_t* row_ids;      // per thread: batch
  int32_t* first_valid;  // (batch): first unmasked step of each row, when masked
};

// Which operands carry factors per gate: their weight gradients are then products per gate.
struct Dropouts {
  bool input, recurrent;
};

template <class T>
struct CellKernels {
  CellInfo info;
  void (*forward)(const ForwardArgs<T>&, int thread, int threads, Barrier*);
  void (*backward)(const BackwardArgs<T>&, int thread, int threads, Barrier*);
  // One step of one row, nothing but arithmetic: x (features), state in and out (may not alias),
  // output (units); units in ascending order, or backwards, as steps in turn should (the same
  // bits).
  void (*step)(const ForwardArgs<T>&, const T* x, const T* const* state, T* const* new_state,
               T* output, bool backwards);
  // Packing. Sources are row-major as the user gives them; slices [first, last) of the panels, for
  // parallel packing.
  int64_t (*packed_kernel_size)(int64_t rows, int64_t units);
  void (*pack_kernel)(const T* kernel, int64_t rows, int64_t units, bool recurrent, T* packed,
                      int part, int parts);
  void (*pack_bias)(const T* bias, int64_t units, T* packed);
  int64_t (*packed_transposed_size)(int64_t columns, int64_t units);
  void (*pack_transposed)(const T* kernel, int64_t columns, int64_t units, bool recurrent,
                          T* packed, int part, int parts);
  int64_t (*weight_sums_size)(int64_t features, int64_t units, Dropouts dropouts);
  int64_t (*packed_rows_size)(int64_t features, int64_t units, Dropouts dropouts, int64_t rows);
};

// The products of a dense layer, forward and backward: y (n, columns) = x (n, K) @ packed + bias.
template <class T>
struct DenseArgs {
  const T* x;  // element (i, k) at x[i * x_row + k * x_step]
  int64_t x_row, x_step, K, columns;
  const T* packed;
  const T* bias;  // (columns) or null
  T* y;           // (n, columns)
};
template <class T>
struct DenseKernels {
  int64_t (*packed_size)(int64_t rows, int64_t columns);
  // Packs a (rows, columns) matrix; transposed: given as (columns, rows).
  void (*pack)(const T* matrix, int64_t rows, int64_t columns, bool transposed, T* packed);
  void (*multiply)(const DenseArgs<T>&, int64_t first, int64_t last);  // rows [first, last) of y
};

// A rule of an optimizer, on n weights: their gradient and what it keeps of each, in `slots`.
constexpr int kMaxSlots = 3;
struct RuleInfo {
  const char* name;
  int slots, coefficients;
};
template <class T>
struct UpdateArgs {
  const T* coefficients;
  T decay, decay_rate;  // first w -= w * decay * decay_rate, unless decay is 0
  const T* gradient;
  T* weights;
  T* slots[kMaxSlots];
};
template <class T>
struct RuleKernel {
  RuleInfo info;
  void (*update)(const UpdateArgs<T>&, int64_t first, int64_t last);  // weights [first, last)
};
constexpr int kRules = 14;

template <class T>
struct KernelTable {
  int lanes, half_lanes;
  CellKernels<T> cells[kCells];
  DenseKernels<T> dense;
  RuleKernel<T> rules[kRules];
  void (*activate)(Activation, const T* x, int64_t n, T* y);
  void (*activate_backward)(Activation, const T* x, const T* d_y, int64_t n, T* d_x);
  // What this machine can do at most (probe.hpp): operations done, bytes read.
  int64_t (*probe_multiply_add)(int64_t iterations, T* sink);
  int64_t (*probe_read)(const T* x, int64_t n, int64_t repeats, T* sink);
};

}  // namespace tidegate

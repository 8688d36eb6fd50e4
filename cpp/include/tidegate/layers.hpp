// Recurrent and dense layers, forward and backward. All arrays are row-major and belong to the
// caller.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tidegate/error.hpp"

namespace tidegate {

constexpr int kMaxStatesPerCell = 2;

struct CellDescription {
  // "lstm", "coupled_lstm", "gru" (reset_after), "gru_reset_before", "simple_rnn", "dual_state_gru"
  std::string name;
  int gates;      // the kernels have gates * units columns
  int states;     // h first; both LSTMs and dual_state_gru: h, c
  int bias_rows;  // 2 for "gru": input bias, recurrent bias
};
TIDEGATE_API std::vector<CellDescription> cells();
TIDEGATE_API std::vector<std::string> activations();

// One call over a batch of sequences.
template <class T>
struct SequenceInput {
  int64_t batch = 0, time = 0;
  const T* x = nullptr;                            // (batch, time, features)
  const T* initial_state[kMaxStatesPerCell] = {};  // (batch, units) each; null: zeros
  const uint8_t* mask = nullptr;      // (batch, time), nonzero: use the step; null: all
  bool go_backwards = false;          // time runs from the last step to the first
  bool zero_output_for_mask = false;  // masked outputs are zeros instead of the last output again
  const T* input_dropout =
      nullptr;  // (gates, batch, features): factors of x in the product of each gate
  const T* recurrent_dropout =
      nullptr;  // (gates, batch, units): factors of h(t-1) in the recurrent product
};
template <class T>
struct SequenceOutput {
  T* outputs = nullptr;                    // (batch, time, units) in the order processed, or null
  T* last_output = nullptr;                // (batch, units), or null
  T* final_state[kMaxStatesPerCell] = {};  // (batch, units), or null
};
template <class T>
struct SequenceGradients {  // of the results, in; any may be null
  const T* outputs = nullptr;
  const T* last_output = nullptr;
  const T* final_state[kMaxStatesPerCell] = {};
};
template <class T>
struct LayerGradients {                      // of everything else, out
  T* x = nullptr;                            // (batch, time, features), or null: not wanted
  T* kernel = nullptr;                       // (features, gates * units)
  T* recurrent_kernel = nullptr;             // (units, gates * units)
  T* bias = nullptr;                         // (gates * units) or (2, gates * units), or null
  T* initial_state[kMaxStatesPerCell] = {};  // (batch, units), or null
};

// Asked now and then on the calling thread during long calls; true ends the call with Interrupted.
struct Poll {
  bool (*ask)(void* data) = nullptr;
  void* data = nullptr;
};

// What a forward call leaves for backward. Refers to x, the mask and the dropout factors of that
// call.
template <class T>
class TIDEGATE_API Context {
 public:
  Context();
  ~Context();
  Context(Context&&) noexcept;
  Context& operator=(Context&&) noexcept;
  struct Data;
  std::unique_ptr<Data> data;
};

template <class T>
class Recurrent;
// A call of Recurrent::forward or backward.
template <class T>
struct ForwardCall {
  const Recurrent<T>* layer = nullptr;
  SequenceInput<T> input;
  SequenceOutput<T> output;
  Context<T>* context = nullptr;
};
template <class T>
struct BackwardCall {
  const Recurrent<T>* layer = nullptr;
  const Context<T>* context = nullptr;
  SequenceGradients<T> d_output;
  LayerGradients<T> gradients;
};

// A recurrent layer: its weights, packed for this CPU. Immutable, so any number of threads may use
// one at a time.
//   kernel (features, gates * units), recurrent_kernel (units, gates * units), bias (bias_rows,
//   gates * units) or null, gates in Keras's order. Activations by Keras's names; (tanh, sigmoid)
//   has a fast path.
template <class T>
class TIDEGATE_API Recurrent {
 public:
  Recurrent(const std::string& cell, int64_t features, int64_t units, const T* kernel,
            const T* recurrent_kernel, const T* bias, const std::string& activation = "tanh",
            const std::string& recurrent_activation = "sigmoid");
  ~Recurrent();
  Recurrent(const Recurrent&) = delete;
  Recurrent& operator=(const Recurrent&) = delete;

  const CellDescription& cell() const;
  int64_t features() const;
  int64_t units() const;

  // Packs the weights for backward, once; the same arrays as in the constructor. Needed before a
  // forward with a context.
  void prepare_training(const T* kernel, const T* recurrent_kernel);

  // With a context, keeps there what backward needs. Throws Error on sizes that do not fit,
  // Interrupted.
  void forward(const SequenceInput<T>& input, const SequenceOutput<T>& output,
               Context<T>* context = nullptr, Poll poll = {}) const;
  // Leaves the context as it was.
  void backward(const Context<T>& context, const SequenceGradients<T>& d_output,
                const LayerGradients<T>& gradients, Poll poll = {}) const;
  // Two calls that do not depend on each other, such as the directions of a bidirectional layer:
  // side by side, each on a part of the threads, where that is faster than one after the other. The
  // results have the same bits. Throws Error before anything is written.
  static void forward_both(const ForwardCall<T>& one, const ForwardCall<T>& other, Poll poll = {});
  static void backward_both(const BackwardCall<T>& one, const BackwardCall<T>& other,
                            Poll poll = {});

  // One step of `batch` rows on the calling thread: x (batch, features) -> output (batch, units),
  // which must not overlap. No allocation, no lock, no system call. `memory` is step_memory(batch)
  // elements (best aligned to 64 bytes) that hold the states from call to call; begin it with
  // reset_step.
  int64_t step_memory(int64_t batch) const;
  void reset_step(T* memory, int64_t batch) const noexcept;
  void step(const T* x, T* memory, int64_t batch, T* output) const noexcept;
  T* step_state(T* memory, int64_t batch, int state,
                int64_t row) const noexcept;  // (units), until the next step
  void get_step_state(const T* memory, int64_t batch, int state,
                      T* value) const noexcept;  // value (batch, units)
  void set_step_state(T* memory, int64_t batch, int state, const T* value) const noexcept;

  // The same with states of the caller's, states[s] (rows, units), read and written; scratch is
  // step_scratch(rows) elements.
  int64_t step_scratch(int64_t rows) const;
  void step_rows(const T* x, int64_t rows, T* const* states, T* scratch, T* output) const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl;
};

// y (n, units) = x (n, features) @ kernel (features, units) + bias (units).
template <class T>
class TIDEGATE_API Dense {
 public:
  Dense(int64_t features, int64_t units, const T* kernel, const T* bias);
  ~Dense();
  int64_t features() const;
  int64_t units() const;
  void forward(const T* x, int64_t n, T* y) const;
  void step(const T* x, int64_t n,
            T* y) const noexcept;  // on the calling thread; no allocation, lock or system call

 private:
  struct Impl;
  std::unique_ptr<Impl> impl;
};
// Gradients of the same, any of d_x (n, features), d_kernel (features, units), d_bias (units) may
// be null.
template <class T>
TIDEGATE_API void dense_backward(const T* x, const T* kernel, const T* d_y, int64_t n,
                                 int64_t features, int64_t units, T* d_x, T* d_kernel, T* d_bias);

// Over each row of x (rows, columns); y may be x.
template <class T>
TIDEGATE_API void softmax(const T* x, int64_t rows, int64_t columns, T* y) noexcept;
template <class T>
TIDEGATE_API void log_softmax(const T* x, int64_t rows, int64_t columns, T* y) noexcept;

// Elementwise activations by Keras's names, and their gradients from x, the input of the
// activation.
template <class T>
TIDEGATE_API void activation(const std::string& name, const T* x, int64_t n, T* y);
template <class T>
TIDEGATE_API void activation_backward(const std::string& name, const T* x, const T* d_y, int64_t n,
                                      T* d_x);

}  // namespace tidegate

// The only translation unit that is compiled once per instruction set and scalar type: fills the
// table of kernels. See README.md for the rules of this folder.
#include "backward.hpp"
#include "cell_includes.hpp"  // generated: every cells/*.hpp
#include "dense.hpp"
#include "forward.hpp"
#include "optimizer.hpp"
#include "probe.hpp"
#include "step.hpp"

namespace tidegate {
namespace TIDEGATE_ISA_NS {
namespace {

using Scalar = TIDEGATE_SCALAR;

template <class Cell>
void forward(const ForwardArgs<Scalar>& a, int thread, int threads, Barrier* barrier) {
  Forward<Cell, Scalar>(a, thread, threads, barrier).run();
}

template <class Cell>
void backward(const BackwardArgs<Scalar>& g, int thread, int threads, Barrier* barrier) {
  Backward<Cell, Scalar>(g, thread, threads, barrier).run();
}

template <class Cell>
void step(const ForwardArgs<Scalar>& a, const Scalar* x, const Scalar* const* state,
          Scalar* const* new_state, Scalar* output, bool backwards) {
  if (default_activations(a))
    step_row<Cell, DefaultActivations, Scalar>(a, x, state, new_state, output, backwards);
  else
    step_row<Cell, NamedActivations, Scalar>(a, x, state, new_state, output, backwards);
}

template <class Cell>
int64_t packed_kernel_size(int64_t rows, int64_t units) {
  return rows * Cell::info.gates * Panels<Scalar>(units).padded();
}

// Panels of one vector of units, all gates of a phase side by side; the phases one after the other.
template <class Cell>
void pack_kernel(const Scalar* kernel, int64_t rows, int64_t units, bool recurrent, Scalar* packed,
                 int part, int parts) {
  const Panels<Scalar> panels(units);
  const Range mine = share(panels.count(), part, parts);
  const bool split = recurrent && Cell::info.two_phases;
  for (int phase = 0; phase < (split ? 2 : 1); ++phase) {
    const int first = split ? phase_first<Cell>(phase) : 0,
              gates = split ? phase_gates<Cell>(phase) : Cell::info.gates;
    Scalar* to = packed + rows * first * panels.padded();
    for (int64_t p = mine.first; p < mine.last; ++p)
      panels.visit(p, [&](auto tag, int64_t u0, int lanes) {
        using V = decltype(tag);
        for (int j = 0; j < gates; ++j)
          pack_block<V>(kernel + (first + j) * units + u0, Cell::info.gates * units, rows, 1, lanes,
                        to + rows * gates * u0 + j * V::width, gates * V::width);
      });
  }
}

template <class Cell>
void pack_bias(const Scalar* bias, int64_t units, Scalar* packed) {
  constexpr int gates = Cell::info.gates;
  const Panels<Scalar> panels(units);
  for (int64_t p = 0; p < panels.count(); ++p)
    panels.visit(p, [&](auto tag, int64_t u0, int lanes) {
      using V = decltype(tag);
      for (int j = 0; j < gates; ++j)
        (bias ? V::load_partial(bias + j * units + u0, lanes) : V::zero())
            .store(packed + gates * u0 + j * V::width);
    });
}

template <class Cell>
int64_t packed_transposed_size(int64_t columns, int64_t units) {
  return Cell::info.gates * Panels<Scalar>(units).padded() * Panels<Scalar>(columns).padded();
}

// kernel^T in blocks of columns, its rows in the order of d_z: panels, in each the gates of the
// window.
template <class Cell>
void pack_transposed(const Scalar* kernel, int64_t columns, int64_t units, bool recurrent,
                     Scalar* packed, int part, int parts) {
  constexpr int G = Cell::info.gates;
  const Panels<Scalar> panels(units);
  const int64_t padded = panels.padded();
  const bool split = recurrent && Cell::info.two_phases;
  for (int phase = 0; phase < (split ? 2 : 1); ++phase) {
    const int first_gate = split ? phase_first<Cell>(phase) : 0,
              gates = split ? phase_gates<Cell>(phase) : G;
    Scalar* to = packed + first_gate * padded * Panels<Scalar>(columns).padded();
    int64_t index = 0;
    for_blocks<Scalar>(columns, [&](auto tag, int nv, int64_t column, int used) {
      using V = decltype(tag);
      Scalar* block = to + gates * padded * column;
      const int64_t step = nv * V::width;
      for (int64_t p = 0; p < panels.count(); ++p) {
        if (index++ % parts != part) continue;
        panels.visit(p, [&](auto panel, int64_t u0, int lanes) {
          constexpr int W = decltype(panel)::width;
          for (int j = 0; j < gates; ++j) {
            const int gate = recurrent ? first_gate + j : Cell::input_gates[j];
            pack_block_transposed<V>(kernel + column * G * units + gate * units + u0, G * units,
                                     lanes, W, nv, used, block + (gates * u0 + j * W) * step);
          }
        });
      }
    });
  }
}

template <class Cell>
int64_t weight_sums_size(int64_t features, int64_t units, Dropouts dropouts) {
  WeightProduct product[kMaxProducts];
  const int n = weight_products<Cell, Scalar>(features, units, dropouts, product);
  const WeightProduct& last = product[n - 1];
  return last.sums + last.tiles() * last.tile() * last.gates * Panels<Scalar>(units).padded();
}

// Inputs and hidden states of `rows` rows, packed for the tiles of every weight gradient.
template <class Cell>
int64_t packed_rows_size(int64_t features, int64_t units, Dropouts dropouts, int64_t rows) {
  WeightProduct product[kMaxProducts];
  const WeightProduct& last =
      product[weight_products<Cell, Scalar>(features, units, dropouts, product) - 1];
  return rows * (last.tiles_before + last.tiles()) * kMaxRows;
}

template <class Cell>
constexpr CellKernels<Scalar> kernels_of() {
  return {Cell::info,
          forward<Cell>,
          backward<Cell>,
          step<Cell>,
          packed_kernel_size<Cell>,
          pack_kernel<Cell>,
          pack_bias<Cell>,
          packed_transposed_size<Cell>,
          pack_transposed<Cell>,
          weight_sums_size<Cell>,
          packed_rows_size<Cell>};
}

template <class F>
TIDEGATE_INLINE void for_vectors(int64_t n, F f) {
  using V = FullVec<Scalar>;
  int64_t i = 0;
  for (; i + V::width <= n; i += V::width) f(i, V::width);
  if (i < n) f(i, static_cast<int>(n - i));
}
void activate_all(Activation kind, const Scalar* x, int64_t n, Scalar* y) {
  using V = FullVec<Scalar>;
  for_vectors(n, [&](int64_t i, int lanes) {
    if (lanes == V::width)
      activate(kind, V::load(x + i)).store(y + i);
    else
      activate(kind, V::load_partial(x + i, lanes)).store_partial(y + i, lanes);
  });
}
void activate_all_backward(Activation kind, const Scalar* x, const Scalar* d_y, int64_t n,
                           Scalar* d_x) {
  using V = FullVec<Scalar>;
  for_vectors(n, [&](int64_t i, int lanes) {
    (slope(kind, V::load_partial(x + i, lanes)) * V::load_partial(d_y + i, lanes))
        .store_partial(d_x + i, lanes);
  });
}

constexpr KernelTable<Scalar> table = {
    FullVec<Scalar>::width,
    HalfVec<Scalar>::width,
    {
#define TIDEGATE_ENTRY(cell) kernels_of<cell>(),
        TIDEGATE_FOR_EACH_CELL(TIDEGATE_ENTRY)
#undef TIDEGATE_ENTRY
    },
    {dense_packed_size<Scalar>, dense_pack<Scalar>, dense_multiply<Scalar>},
    {rule<sgd, Scalar>(), rule<sgd_momentum, Scalar>(), rule<sgd_nesterov, Scalar>(),
     rule<rmsprop<false, false>, Scalar>(), rule<rmsprop<true, false>, Scalar>(),
     rule<rmsprop<false, true>, Scalar>(), rule<rmsprop<true, true>, Scalar>(),
     rule<adam<false>, Scalar>(), rule<adam<true>, Scalar>(), rule<nadam, Scalar>(),
     rule<adamax, Scalar>(), rule<adagrad, Scalar>(), rule<adadelta, Scalar>(),
     rule<lion, Scalar>()},
    activate_all,
    activate_all_backward,
    probe_multiply_add<Scalar>,
    probe_read<Scalar>,
};

}  // namespace
}  // namespace TIDEGATE_ISA_NS

#define TIDEGATE_JOIN_(a, b, c, d) a##b##c##d
#define TIDEGATE_JOIN(a, b, c, d) TIDEGATE_JOIN_(a, b, c, d)
// kernels_avx2_float() and so on: the one name each object shows.
const KernelTable<TIDEGATE_SCALAR>* TIDEGATE_JOIN(kernels_, TIDEGATE_ISA_NS, _, TIDEGATE_SCALAR)() {
  return &TIDEGATE_ISA_NS::table;
}

}  // namespace tidegate

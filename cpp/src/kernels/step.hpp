// One step of one row, for streams.
#pragma once

#include "sequence.hpp"

namespace tidegate {
namespace TIDEGATE_ISA_NS {
namespace {

// One step of one row on the calling thread; the same chains of additions as Forward. While the
// weights lie in L1, panels go in pairs, a multiply-add of each in turn: one panel's chains alone
// wait for the latency of every addition, and activations of different panels hide each other's.
// From L2 a single stream of reads comes faster than several; steps then go through the panels to
// and fro, so that a step begins with the weights that the one before read last.
template <class Cell, class Act, class T>
class StepRow {
  static constexpr int G = Cell::info.gates, S = Cell::info.states;
  static constexpr int kSaved = saved_count<Cell, Act>() > 0 ? saved_count<Cell, Act>() : 1;
  using Full = FullVec<T>;
  using Half = HalfVec<T>;
  static constexpr int64_t kL1 = 32 << 10;

 public:
  const ForwardArgs<T>& a;
  const T* x;
  const T* const* state;
  T* const* new_state;
  T* output;
  bool backwards;  // in every other step

  template <int Phase>
  void run() const {
    const Panels<T> panels(a.units);
    const bool half_tail = Half::width < Full::width && panels.tail_width == Half::width;
    int64_t wide = panels.count() - half_tail, u0 = 0;
    const int64_t tail = wide * Full::width;
    const int64_t bytes = (a.features + a.units) * G * panels.padded() * sizeof(T);
    // Not with other activations, which are calls that hide nothing, nor in float64: code size.
    if constexpr (Act::keeps_gates && sizeof(T) == 4)
      if (bytes <= kL1) {
        for (; wide > 1; wide -= 2, u0 += 2 * Full::width) group<Phase, Full, Full>(u0);
        if (wide == 1 && half_tail) return group<Phase, Full, Half>(u0);
        if (wide == 1) group<Phase, Full>(u0);
        if (half_tail) group<Phase, Half>(tail);
        return;
      }
    if (half_tail && backwards) group<Phase, Half>(tail);
    for (int64_t p = 0; p < wide; ++p)
      group<Phase, Full>((backwards ? wide - 1 - p : p) * Full::width);
    if (half_tail && !backwards) group<Phase, Half>(tail);
  }

 private:
  template <class V, int N>
  struct Sums {
    V sum[N];
    const T* panel;
    TIDEGATE_INLINE void start(const T* init, const T* weights) {
      panel = weights;
#pragma GCC unroll 4
      for (int g = 0; g < N; ++g) sum[g] = init ? V::load(init + g * V::width) : V::zero();
    }
    TIDEGATE_INLINE void add(T value, int64_t k) {
      const V r = V::set(value);
#pragma GCC unroll 4
      for (int g = 0; g < N; ++g) sum[g] = fma(r, V::load(panel + (k * N + g) * V::width), sum[g]);
    }
  };
  template <class V, int Phase>
  struct Panel {
    static constexpr int PG = phase_gates<Cell>(Phase);
    int64_t u0;
    Sums<V, G> x;
    Sums<V, PG> h;
  };

  template <int Phase, class... V>
  __attribute__((noinline)) void group(int64_t u0) const {
    group_of<Phase>(u0, Panel<V, Phase>()...);
  }
  template <int Phase, class... P>
  TIDEGATE_INLINE void group_of(int64_t u0, P... panel) const {
    constexpr int PG = phase_gates<Cell>(Phase);
    (place(u0, panel), ...);
    if constexpr (Phase == 0) {
      (panel.x.start(a.bias + G * panel.u0, a.kernel + a.features * G * panel.u0), ...);
#pragma GCC unroll 4
      for (int64_t k = 0; k < a.features; ++k) (panel.x.add(x[k], k), ...);
    }
    const T* packed = a.recurrent_kernel;
    if (Phase == 1) packed += a.units * phase_first<Cell>(1) * Panels<T>(a.units).padded();
    (panel.h.start(a.recurrent_bias ? a.recurrent_bias + PG * panel.u0 : nullptr,
                   packed + a.units * PG * panel.u0),
     ...);
    const T* h = Phase == 0 ? state[0] : a.reset_state;
#pragma GCC unroll 4
    for (int64_t k = 0; k < a.units; ++k) (panel.h.add(h[k], k), ...);
    (finish(panel), ...);
  }
  template <class V, int Phase>
  TIDEGATE_INLINE static void place(int64_t& u0, Panel<V, Phase>& panel) {
    panel.u0 = u0;
    u0 += V::width;
  }

  template <class V, int Phase>
  TIDEGATE_INLINE void finish(Panel<V, Phase>& panel) const {
    const Act act = activations<Act>(a);
    const int64_t u0 = panel.u0;
    V next[S], saved[kSaved];
#pragma GCC unroll 2
    for (int s = 0; s < S; ++s) next[s] = V::load(state[s] + u0);
    if constexpr (Cell::info.two_phases && Phase == 0) {
      V reset = next[0];
      Cell::forward_gates(act, panel.x.sum, panel.h.sum, reset, saved);
      reset.store(a.reset_state + u0);
      saved[0].store(a.saved + kSaved * u0);
      panel.x.sum[G - 1].store(a.saved + kSaved * u0 + V::width);
      return;
    } else if constexpr (Cell::info.two_phases) {
      saved[0] = V::load(a.saved + kSaved * u0);
      Cell::forward_candidate(act, V::load(a.saved + kSaved * u0 + V::width), panel.h.sum[0], next,
                              saved);
    } else {
      Cell::forward(act, panel.x.sum, panel.h.sum, next, saved);
    }
#pragma GCC unroll 2
    for (int s = 0; s < S; ++s) next[s].store(new_state[s] + u0);
    if (a.units - u0 >= V::width)
      next[0].store(output + u0);
    else
      next[0].store_partial(output + u0, static_cast<int>(a.units - u0));
  }
};

template <class Cell, class Act, class T>
void step_row(const ForwardArgs<T>& a, const T* x, const T* const* state, T* const* new_state,
              T* output, bool backwards) {
  const StepRow<Cell, Act, T> row{a, x, state, new_state, output, backwards};
  row.template run<0>();
  if constexpr (Cell::info.two_phases) row.template run<1>();
}

}  // namespace
}  // namespace TIDEGATE_ISA_NS
}  // namespace tidegate

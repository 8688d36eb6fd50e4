// The time loop, forward and backward, shared by every cell: it owns time, threads and memory; the
// cell owns the equations (cell.hpp) and the tile the registers (gemm.hpp).
//
// Every thread of the team runs these functions (SPMD). With Split::rows it owns rows of the batch
// for all of time and meets nobody in forward; with Split::units it owns panels of units and meets
// the others once a step (twice for two-phase cells). In backward all meet once a chunk, whose
// weight gradients are then split over output tiles, never over the reduction.
#pragma once

#include <cstring>

#include "cell.hpp"
#include "gemm.hpp"

namespace tidegate {
namespace TIDEGATE_ISA_NS {
namespace {

struct Range {
  int64_t first, last;
  int64_t size() const { return last - first; }
};
struct Rows {  // rows of the batch by number
  const int32_t* ids;
  int count;
};
inline Range share(int64_t count, int part, int parts) {
  return {count * part / parts, count * (part + 1) / parts};
}

// tanh and sigmoid have a path of their own in the pointwise functions, and only there.
template <class T>
bool default_activations(const ForwardArgs<T>& a) {
  return a.activation == Activation::tanh && a.recurrent_activation == Activation::sigmoid;
}
template <class Act, class T>
TIDEGATE_INLINE Act activations(const ForwardArgs<T>& a) {
  if constexpr (Act::keeps_gates) {
    (void)a;
    return Act{};
  } else {
    return Act{a.activation, a.recurrent_activation};
  }
}

// -------------------------------------------------------------------------------------------------
// forward
template <class Cell, class T>
class Forward {
  static constexpr int G = Cell::info.gates, S = Cell::info.states;
  static constexpr bool two_phases = Cell::info.two_phases;

 public:
  Forward(const ForwardArgs<T>& args, int thread, int threads, Barrier* barrier)
      : a(args),
        plain(default_activations(args)),
        kept_vectors(plain ? Cell::info.saved : Cell::info.saved_generic),
        thread(thread),
        barrier(threads > 1 ? barrier : nullptr),
        panels(args.units),
        rows(args.split == Split::rows ? share(args.batch, thread, threads) : Range{0, args.batch}),
        own(args.split == Split::units ? share(panels.count(), thread, threads)
                                       : Range{0, panels.count()}),
        projection(args.projection + (args.split == Split::rows ? rows.first * panels.padded()
                                                                : own_column() * args.batch) *
                                         G * args.chunk),
        row_ids(args.row_ids + thread * args.batch),
        place(args.mask ? args.projected_rows + thread * 2 * args.chunk * args.batch : nullptr),
        unmasked(args.mask ? place + args.chunk * args.batch : nullptr) {}

  void run() {
    start();
    for (int64_t b = rows.first; b < rows.last; ++b)
      row_ids[b - rows.first] = static_cast<int32_t>(b);
    active = static_cast<int>(rows.size());
    for (int64_t t0 = 0; t0 < a.time; t0 += a.chunk) {
      const int64_t steps = a.time - t0 < a.chunk ? a.time - t0 : a.chunk;
      if (thread == 0 && a.poll && a.poll(a.poll_data))
        __atomic_store_n(a.stop, 1, __ATOMIC_RELAXED);
      if (a.split == Split::units)
        wait();  // everybody reads the same answer (and, at first, the initial states)
      if (__atomic_load_n(a.stop, __ATOMIC_RELAXED)) return;
      project(t0, steps);
      for (int64_t t = t0; t < t0 + steps; ++t) step(t, t - t0);
    }
    finish();
  }

 private:
  void wait() {
    if (barrier) barrier_wait(barrier);
  }
  T* slice(int s, int64_t t) const {
    return a.state[s] + (t % a.slices) * a.batch * a.state_stride;
  }
  T* reset_slice(int64_t t) const {
    return a.reset_state + (a.training ? t : 0) * a.batch * a.state_stride;
  }
  bool used(int64_t b, int64_t t) const {
    return !a.mask || a.mask[b * a.mask_batch_stride + t * a.mask_time_stride];
  }
  // What is kept of panel u0 at step t: for each row kept_vectors vectors.
  T* saved_panel(int64_t t, int64_t u0) const {
    return a.saved + ((a.training ? t : 0) * panels.padded() + u0) * a.batch * kept_vectors;
  }

  // The initial states, own rows and units, padded lanes zero.
  void start() {
    for (int64_t p = own.first; p < own.last; ++p)
      panels.visit(p, [&](auto tag, int64_t u0, int lanes) {
        using V = decltype(tag);
        for (int s = 0; s < S; ++s)
          for (int64_t b = rows.first; b < rows.last; ++b) {
            const T* from = a.initial_state[s];
            const V v = from ? V::load_partial(from + b * a.units + u0, lanes) : V::zero();
            v.store(slice(s, 0) + b * a.state_stride + u0);
            if (s == 0 && a.recurrent_dropout) drop(v, b, 0, u0, lanes);
          }
      });
  }

  // h before step t times the dropout factors of gate g, row b.
  T* dropped(int g, int64_t b, int64_t t) const {
    return a.dropped_state + (((t & 1) * G + g) * a.batch + b) * a.state_stride;
  }
  template <class V>
  void drop(V h, int64_t b, int64_t t, int64_t u0, int lanes) const {
    for (int g = 0; g < G; ++g) {
      const V factor =
          V::load_partial(a.recurrent_dropout + (g * a.batch + b) * a.units + u0, lanes);
      (h * factor).store(dropped(g, b, t) + u0);
    }
  }

  // x W + b for `steps` steps of the own rows and panels: projection[panel][step, row][gate][V],
  // without the masked ones.
  void project(int64_t t0, int64_t steps) {
    if (a.mask) {
      chunk_rows = 0;
      for (int64_t i = 0; i < steps * rows.size(); ++i)
        if (used(rows.first + i % rows.size(), t0 + i / rows.size())) {
          unmasked[chunk_rows] = static_cast<int32_t>(i);
          place[i] = static_cast<int32_t>(chunk_rows++);
        }
    } else {
      chunk_rows = steps * rows.size();
    }
    const int64_t M = chunk_rows;
    if (a.input_dropout) drop_inputs(t0);
    for (int64_t p = own.first; p < own.last; ++p)
      panels.visit(p, [&](auto tag, int64_t u0, int) {
        using V = decltype(tag);
        constexpr int W = G * V::width;
        Tile<T> tile;
        tile.panel = a.kernel + a.features * G * u0;
        tile.panel_step = W;
        tile.K = a.features;
        tile.init = a.bias + G * u0;
        tile.sums_step = W;
        int64_t t = 0;  // of the row, within the chunk
        for_tiles(M, tile_rows(G), [&](int64_t first, int count) {
          tile.sums = projection + M * G * (u0 - own_column()) + first * W;
          if (a.input_dropout) {
            per_gate<V>(tile, count, G, [&](int g, int r) { return dropped_row(g, first + r); });
          } else {
            for (int r = 0; r < count; ++r) {
              const int64_t i = unmasked ? unmasked[first + r] : first + r;
              while (i >= (t + 1) * rows.size()) ++t;
              tile.row[r] = a.x + (rows.first + i - t * rows.size()) * a.x_batch_stride +
                            (t0 + t) * a.x_time_stride;
            }
            run_tile<V>(tile, count, G);
          }
        });
      });
  }

  // Every gate has left-hand rows of its own, row_of(gate, r): one vector of columns at a time.
  template <class V, class F>
  void per_gate(const Tile<T>& all, int count, int gates, F row_of) const {
    Tile<T> tile = all;
    for (int g = 0; g < gates; ++g) {
      for (int r = 0; r < count; ++r) tile.row[r] = row_of(g, r);
      tile.panel = all.panel + g * V::width;
      tile.init = all.init ? all.init + g * V::width : nullptr;
      tile.sums = all.sums + g * V::width;
      run_tile<V>(tile, count, 1);
    }
  }

  T* dropped_row(int g, int64_t i) const {
    return a.dropped_x + ((thread * G + g) * a.chunk * a.batch + i) * a.features;
  }
  void drop_inputs(int64_t t0) const {
    for (int g = 0; g < G; ++g)
      for (int64_t m = 0; m < chunk_rows; ++m) {
        const int64_t i = unmasked ? unmasked[m] : m;
        const int64_t t = t0 + i / rows.size(), b = rows.first + i % rows.size();
        const T* from = a.x + b * a.x_batch_stride + t * a.x_time_stride;
        const T* factor = a.input_dropout + (g * a.batch + b) * a.features;
        T* to = dropped_row(g, m);
        for (int64_t f = 0; f < a.features; ++f) to[f] = from[f] * factor[f];
      }
  }
  int64_t own_column() const { return own.first * Panels<T>::width; }

  void step(int64_t t, int64_t t_local) {
    if (a.mask) {
      active = 0;
      for (int64_t b = rows.first; b < rows.last; ++b)
        if (used(b, t)) row_ids[active++] = static_cast<int32_t>(b);
    }
    if constexpr (two_phases) {
      phase<0>(t, t_local);
      if (a.split == Split::units) wait();
      phase<1>(t, t_local);
    } else {
      phase<0>(t, t_local);
    }
    if (a.mask && active < rows.size())
      for (int64_t b = rows.first; b < rows.last; ++b)
        if (!used(b, t)) carry(b, t);
    if (a.split == Split::units) wait();
  }

  // A masked step: states stay, the last output is repeated (zeros before the first) or zeros are
  // written.
  void carry(int64_t b, int64_t t) {
    for (int64_t p = own.first; p < own.last; ++p)
      panels.visit(p, [&](auto tag, int64_t u0, int lanes) {
        using V = decltype(tag);
        for (int s = 0; s < S; ++s)
          V::load(slice(s, t) + b * a.state_stride + u0)
              .store(slice(s, t + 1) + b * a.state_stride + u0);
        if (a.recurrent_dropout)
          drop(V::load(slice(0, t) + b * a.state_stride + u0), b, t + 1, u0, lanes);
        if (!a.outputs) return;
        T* output = a.outputs + b * a.output_batch_stride + t * a.output_time_stride + u0;
        const bool repeat = t > 0 && !a.zero_output_for_mask;
        (repeat ? V::load_partial(output - a.output_time_stride, lanes) : V::zero())
            .store_partial(output, lanes);
      });
  }

  // Steps go through the weights to and fro: what the step before read last is still in the nearest
  // cache, where always starting over would find nothing of weights that are larger than it.
  template <int Phase>
  void phase(int64_t t, int64_t t_local) {
    constexpr int PG = phase_gates<Cell>(Phase);
    // One row: neighbouring whole panels together.
    constexpr int NP = wide_panels(PG);
    const int64_t whole = (own.last < panels.full ? own.last : panels.full) - own.first;
    const int64_t groups = active == 1 && !a.recurrent_dropout && whole > 0 ? whole / NP : 0;
    const int64_t count = groups + own.size() - groups * NP;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t j = t & 1 ? count - 1 - i : i;
      if (j < groups)
        wide_panels_step<Phase>(t, t_local, own.first + j * NP);
      else
        panel_step<Phase>(t, t_local, own.first + groups * NP + j - groups);
    }
  }

  template <int Phase>
  const T* hidden(int64_t t) const {
    return Phase == 0 ? slice(0, t) : reset_slice(t);
  }
  template <int Phase>
  const T* packed_panel(int64_t u0) const {
    return a.recurrent_kernel +
           a.units * (phase_first<Cell>(Phase) * panels.padded() + phase_gates<Cell>(Phase) * u0);
  }

  template <int Phase>
  void wide_panels_step(int64_t t, int64_t t_local, int64_t p) {
    using V = FullVec<T>;
    constexpr int PG = phase_gates<Cell>(Phase), NP = wide_panels(PG), W = PG * V::width;
    alignas(64) T sums[NP * W];
    Tile<T> tile;
    tile.row[0] = hidden<Phase>(t) + row_ids[0] * a.state_stride;
    tile.panel = packed_panel<Phase>(p * V::width);
    tile.panel_step = W;
    tile.panel_segment = a.units * W;
    tile.K = a.units;
    if (a.recurrent_bias) tile.init = a.recurrent_bias + PG * p * V::width, tile.init_step = W;
    tile.sums = sums;
    tile.sums_step = W;
    wide_kernel<V, NP, PG>(tile);
    for (int i = 0; i < NP; ++i)
      pointwise<V, Phase>(t, t_local, Rows{row_ids, 1}, (p + i) * V::width, sums + i * W);
  }

  template <int Phase>
  void panel_step(int64_t t, int64_t t_local, int64_t p) {
    constexpr int PG = phase_gates<Cell>(Phase);
    alignas(64) T sums[kMaxRows * kMaxVectors * FullVec<T>::width];
    panels.visit(p, [&](auto tag, int64_t u0, int) {
      using V = decltype(tag);
      constexpr int W = PG * V::width;
      Tile<T> tile;
      tile.panel = packed_panel<Phase>(u0);
      tile.panel_step = W;
      tile.K = a.units;
      tile.init = a.recurrent_bias ? a.recurrent_bias + PG * u0 : nullptr;
      tile.sums = sums;
      tile.sums_step = W;
      for_tiles(active, tile_rows(PG), [&](int64_t first, int count) {
        const int32_t* ids = row_ids + first;
        if (!a.recurrent_dropout || Phase == 1) {
          for (int r = 0; r < count; ++r) tile.row[r] = hidden<Phase>(t) + ids[r] * a.state_stride;
          run_tile<V>(tile, count, PG);
        } else {
          per_gate<V>(tile, count, PG, [&](int g, int r) { return dropped(g, ids[r], t); });
        }
        pointwise<V, Phase>(t, t_local, Rows{ids, count}, u0, sums);
      });
    });
  }

  template <class V, int Phase>
  void pointwise(int64_t t, int64_t t_local, Rows at, int64_t u0, const T* sums) {
    if (plain)
      pointwise_with<V, Phase, DefaultActivations>(t, t_local, at, u0, sums);
    else
      pointwise_with<V, Phase, NamedActivations>(t, t_local, at, u0, sums);
    if constexpr (two_phases && Phase == 0) return;
    const int lanes = static_cast<int>(a.units - u0 < V::width ? a.units - u0 : V::width);
    if (lanes == V::width && !a.recurrent_dropout) return;
    for (int r = 0; r < at.count; ++r) {
      const int64_t b = at.ids[r];
      const V h = V::load(slice(0, t + 1) + b * a.state_stride + u0);
      if (a.outputs && lanes < V::width) h.store_partial(output(b, t) + u0, lanes);
      if (a.recurrent_dropout) drop(h, b, t + 1, u0, lanes);
    }
  }
  T* output(int64_t b, int64_t t) const {
    return a.outputs + b * a.output_batch_stride + t * a.output_time_stride;
  }

  // The loop over the rows holds nothing but vectors: what does not change from row to row stands
  // in locals (a store might alias anything behind a pointer), and nothing is called, so that the
  // activations' constants may stay in registers.
  template <class V, int Phase, class Act>
  __attribute__((noinline)) void pointwise_with(int64_t t, int64_t t_local, Rows rows_at,
                                                int64_t u0, const T* sums) {
    constexpr int PG = phase_gates<Cell>(Phase), W = V::width, K = saved_count<Cell, Act>(),
                  kSaved = K > 0 ? K : 1;
    const Act act = activations<Act>(a);
    const int32_t *const ids = rows_at.ids, *const row_of = place;
    const int count = rows_at.count;
    const int64_t stride = a.state_stride, out_stride = a.output_batch_stride,
                  first_row = t_local * rows.size() - rows.first;
    const T* const zx_panel = projection + chunk_rows * G * (u0 - own_column());
    T* const kept = K > 0 && (a.training || two_phases) ? saved_panel(t, u0) : nullptr;
    const T *from[S], *dropped_h = nullptr;
    T *to[S], *reset_h = nullptr;
#pragma GCC unroll 2
    for (int s = 0; s < S; ++s) from[s] = slice(s, t) + u0, to[s] = slice(s, t + 1) + u0;
    if constexpr (two_phases && Phase == 0) {
      reset_h = reset_slice(t) + u0;
      if (a.recurrent_dropout) dropped_h = dropped(G - 1, 0, t) + u0;
    }
    T* const out = a.outputs && a.units - u0 >= W ? output(0, t) + u0 : nullptr;
    for (int r = 0; r < count; ++r, sums += PG * W) {
      const int64_t b = ids[r], at = b * stride, i = first_row + b;
      const T* zx = zx_panel + (row_of ? row_of[i] : i) * G * W;
      V x[G], h[PG], state[S], saved[kSaved];
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) x[g] = V::load(zx + g * W);
#pragma GCC unroll 4
      for (int g = 0; g < PG; ++g) h[g] = V::load(sums + g * W);
#pragma GCC unroll 2
      for (int s = 0; s < S; ++s) state[s] = V::load(from[s] + at);
      if constexpr (two_phases && Phase == 0) {
        V reset = dropped_h ? V::load(dropped_h + at) : state[0];
        Cell::forward_gates(act, x, h, reset, saved);
        reset.store(reset_h + at);
#pragma GCC unroll 4
        for (int k = 0; k < K - 1; ++k) saved[k].store(kept + (b * K + k) * W);
        continue;
      } else if constexpr (two_phases) {
        saved[0] = V::load(kept + b * K * W);
        Cell::forward_candidate(act, x[G - 1], h[0], state, saved);
        saved[K - 1].store(kept + (b * K + K - 1) * W);
      } else {
        Cell::forward(act, x, h, state, saved);
        if (kept)
#pragma GCC unroll 4
          for (int k = 0; k < K; ++k) saved[k].store(kept + (b * K + k) * W);
      }
#pragma GCC unroll 2
      for (int s = 0; s < S; ++s) state[s].store(to[s] + at);
      if (out) state[0].store(out + b * out_stride);
    }
  }

  void finish() {
    for (int64_t b = rows.first; b < rows.last; ++b) {
      bool any = true;  // an unmasked step at all; only rows masked at the end ask
      if (a.mask && a.last_output && !used(b, a.time - 1)) {
        any = false;
        for (int64_t t = 0; t < a.time && !any && !a.zero_output_for_mask; ++t) any = used(b, t);
      }
      for (int64_t p = own.first; p < own.last; ++p)
        panels.visit(p, [&](auto tag, int64_t u0, int lanes) {
          using V = decltype(tag);
          for (int s = 0; s < S; ++s) {
            const V v = V::load(slice(s, a.time) + b * a.state_stride + u0);
            if (a.final_state[s]) v.store_partial(a.final_state[s] + b * a.units + u0, lanes);
            if (s == 0 && a.last_output)
              (any ? v : V::zero()).store_partial(a.last_output + b * a.units + u0, lanes);
          }
        });
    }
  }

  const ForwardArgs<T>& a;
  const bool plain;  // tanh and sigmoid
  const int
      kept_vectors;  // of a unit vector: what backward needs, or the second phase of the first
  const int thread;
  Barrier* const barrier;
  const Panels<T> panels;
  const Range rows, own;
  T* const projection;
  int32_t* const row_ids;
  // With a mask: where (step, row) of the chunk lies in the projection, and the other way round.
  int32_t *const place, *const unmasked;
  int active = 0;
  int64_t chunk_rows = 0;  // of the projection
};

// One step of one row on the calling thread; the same chains of additions as Forward. While the
// weights lie in L1, panels go in groups, a multiply-add of each in turn: one panel's chains alone
// wait for the latency of every addition, and activations of different panels hide each other's.
// From L2 a single stream of reads comes faster than several.
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

  template <int Phase>
  void run() const {
    const Panels<T> panels(a.units);
    const bool half_tail = Half::width < Full::width && panels.tail_width == Half::width;
    int64_t wide = panels.count() - half_tail, u0 = 0;
    const int64_t bytes = (a.features + a.units) * G * panels.padded() * sizeof(T);
    if constexpr (Act::keeps_gates)  // other activations are calls that hide nothing
      if (bytes <= kL1) {
        for (; wide > 3 || (wide == 3 && half_tail); wide -= 2, u0 += 2 * Full::width)
          group<Phase, Full, Full>(u0);
        if (wide == 3) return group<Phase, Full, Full, Full>(u0);
        if (wide == 2 && half_tail) return group<Phase, Full, Full, Half>(u0);
        if (wide == 2) return group<Phase, Full, Full>(u0);
        if (wide == 1 && half_tail) return group<Phase, Full, Half>(u0);
      }
    for (; wide > 0; --wide, u0 += Full::width) group<Phase, Full>(u0);
    if (half_tail) group<Phase, Half>(u0);
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
              T* output) {
  const StepRow<Cell, Act, T> row{a, x, state, new_state, output};
  row.template run<0>();
  if constexpr (Cell::info.two_phases) row.template run<1>();
}

// ------------------------------------------------------------------------------------------------
// backward One of the products that give the weights' gradients: rows^T d_z[window].
struct WeightProduct {
  enum Source { inputs, hidden, reset } source;
  int64_t rows;       // of the gradient: features or units, and one of ones where a bias goes along
  int64_t real_rows;  // without that one
  int first, gates;   // the window of d_z
  int dropout_gate;   // whose factors the hidden state carries, or -1
  int64_t sums;       // where its packed sums start
  int64_t tiles_before;  // of the products before this one
  int tile() const { return tile_rows(gates); }
  int64_t tiles() const { return (rows + tile() - 1) / tile(); }
};
constexpr int kMaxProducts = 9;

template <class Cell, class T>
int weight_products(int64_t features, int64_t units, Dropouts dropouts,
                    WeightProduct (&out)[kMaxProducts]) {
  constexpr int G = Cell::info.gates;
  int n = 0;
  if (dropouts.input) {
    for (int j = 0; j < G; ++j)
      out[n++] = {WeightProduct::inputs,
                  features + 1,
                  features,
                  Cell::input_slot + j,
                  1,
                  Cell::input_gates[j],
                  0,
                  0};
  } else {
    out[n++] = {WeightProduct::inputs, features + 1, features, Cell::input_slot, G, -1, 0, 0};
  }
  const int hidden_gates = phase_gates<Cell>(0);
  const int bias_row = Cell::info.bias_rows == 2;
  if (dropouts.recurrent) {
    for (int g = 0; g < hidden_gates; ++g)
      out[n++] = {
          WeightProduct::hidden, units + bias_row, units, Cell::recurrent_slot + g, 1, g, 0, 0};
  } else {
    out[n++] = {WeightProduct::hidden,
                units + bias_row,
                units,
                Cell::recurrent_slot,
                hidden_gates,
                -1,
                0,
                0};
  }
  if (Cell::info.two_phases) out[n++] = {WeightProduct::reset, units, units, G - 1, 1, -1, 0, 0};
  int64_t sums = 0, tiles = 0;
  for (int i = 0; i < n; ++i) {
    out[i].sums = sums;
    out[i].tiles_before = tiles;
    tiles += out[i].tiles();
    sums += out[i].tiles() * out[i].tile() * out[i].gates * Panels<T>(units).padded();
  }
  return n;
}

// The row tiles of all products in a row; a tile weighs its gates. f(product, its tiles) for those
// that begin in a range of that.
inline int64_t weight_of_tiles(const WeightProduct* product, int products) {
  int64_t total = 0;
  for (int i = 0; i < products; ++i) total += product[i].tiles() * product[i].gates;
  return total;
}
template <class F>
void for_weighed_tiles(const WeightProduct* product, int products, Range range, F f) {
  int64_t at = 0;
  for (int i = 0; i < products; ++i) {
    const int64_t gates = product[i].gates, tiles = product[i].tiles();
    const auto begin = [&](int64_t weight) {
      const int64_t tile = (weight - at + gates - 1) / gates;
      return weight < at ? 0 : tile < tiles ? tile : tiles;
    };
    if (begin(range.first) < begin(range.last))
      f(product[i], Range{begin(range.first), begin(range.last)});
    at += tiles * gates;
  }
}

template <class Cell, class T>
class Backward {
  static constexpr int G = Cell::info.gates, S = Cell::info.states, D = Cell::info.gradient_slots;
  static constexpr bool two_phases = Cell::info.two_phases;

 public:
  Backward(const BackwardArgs<T>& args, int thread, int threads, Barrier* barrier)
      : g(args),
        a(*args.forward),
        plain(default_activations(a)),
        thread(thread),
        threads(threads),
        barrier(threads > 1 ? barrier : nullptr),
        panels(a.units),
        rows(a.split == Split::rows ? share(a.batch, thread, threads) : Range{0, a.batch}),
        own(a.split == Split::units ? share(panels.count(), thread, threads)
                                    : Range{0, panels.count()}),
        row_ids(args.row_ids + thread * a.batch) {
    const Dropouts dropouts{a.input_dropout != nullptr, a.recurrent_dropout != nullptr};
    products = weight_products<Cell, T>(a.features, a.units, dropouts, product);
  }

  void run() {
    start();
    int which = 0;
    const int64_t chunks = (a.time + g.chunk - 1) / g.chunk;
    for (int64_t c = chunks - 1; c >= 0; --c, which ^= 1) {
      const int64_t t0 = c * g.chunk, steps = a.time - t0 < g.chunk ? a.time - t0 : g.chunk;
      if (thread == 0) {
        if (a.poll && a.poll(a.poll_data)) __atomic_store_n(a.stop, 1, __ATOMIC_RELAXED);
        number_rows(t0, steps, which);
      }
      wait();
      if (__atomic_load_n(a.stop, __ATOMIC_RELAXED)) return;
      unmasked = g.unmasked[which];
      here = {g.d_z[which], unmasked[g.chunk * a.batch] + 1, nullptr};
      for (int64_t t = t0 + steps - 1; t >= t0; --t) {
        // d_z of step t + 1: in this chunk, or the first of the one before (if any)
        if (t + 1 < t0 + steps) next = here;
        here.place = g.place[which] + (t - t0) * a.batch;
        step(t, t + 1 < a.time);
        if (a.split == Split::units) wait();
      }
      next = here;
      wait();
      inputs(t0, steps);
      weights(t0, c == chunks - 1, c == 0);
    }
    initial_states();
  }

 private:
  // d_z of a chunk: [panel][row][slot][V]. Masked steps have no row of their own: they share the
  // last one, which is zeros. place[b] is the row of row b of the batch at one step; null: b.
  struct Gradients {
    T* data;
    int64_t rows;
    const int32_t* place;
    T* row(int64_t b, int64_t u0, int width) const {
      return data + rows * D * u0 + (place ? place[b] : b) * D * width;
    }
  };

  // Rows of d_z for the steps and rows of a chunk; their number stands behind `unmasked`.
  void number_rows(int64_t t0, int64_t steps, int which) {
    int32_t *place = g.place[which], *numbered = g.unmasked[which], n = 0;
    const int64_t all = steps * a.batch;
    for (int64_t i = 0; i < all; ++i) {
      place[i] = -1;
      if (used(i % a.batch, t0 + i / a.batch)) numbered[place[i] = n++] = static_cast<int32_t>(i);
    }
    numbered[g.chunk * a.batch] = n;
    for (int64_t i = 0; i < all && n < all; ++i)
      if (place[i] < 0) place[i] = n;
    const Gradients chunk{g.d_z[which], n + 1, nullptr};
    for (int64_t p = 0; p < panels.count(); ++p)
      panels.visit(p, [&](auto tag, int64_t u0, int) {
        constexpr int W = decltype(tag)::width;
        std::memset(chunk.row(n, u0, W), 0, sizeof(T) * D * W);
      });
  }

  // Rows that go through a part of a packed kernel while it is in L2, and what they sum up to.
  static constexpr int kGroupRows = 96;
  static constexpr int64_t kBlockBytes = 128 << 10;
  struct alignas(64) GroupSums {
    T data[kGroupRows * kMaxVectors * FullVec<T>::width];
    operator T*() { return data; }
  };

  void wait() {
    if (barrier) barrier_wait(barrier);
  }
  const T* slice(int s, int64_t t) const { return a.state[s] + t * a.batch * a.state_stride; }
  bool used(int64_t b, int64_t t) const {
    return !a.mask || a.mask[b * a.mask_batch_stride + t * a.mask_time_stride];
  }

  void start() {
    for (int64_t p = own.first; p < own.last; ++p)
      panels.visit(p, [&](auto tag, int64_t u0, int lanes) {
        using V = decltype(tag);
        for (int s = 0; s < S; ++s)
          for (int64_t b = rows.first; b < rows.last; ++b) {
            const T* from = g.d_final_state[s];
            (from ? V::load_partial(from + b * a.units + u0, lanes) : V::zero())
                .store(g.d_state[s] + b * a.state_stride + u0);
          }
      });
    if (a.mask)
      for (int64_t b = rows.first; b < rows.last; ++b) {
        int64_t t = 0;
        while (t < a.time && !used(b, t)) ++t;
        if (a.split == Split::rows || thread == 0) g.first_valid[b] = static_cast<int32_t>(t);
      }
  }

  // Columns of a packed transposed kernel: `step` from one k to the next, k = every panel's `gates`
  // vectors of units; a product takes `count` of them from gate `first` on and meets them with the
  // slots of d_z from `slot` on.
  struct Block {
    const T* data;
    int64_t step;
    int gates;
  };
  struct Window {
    int slot, first, count;
  };
  // sums (rows, nv vectors) = d_z[window] times the block, for up to kGroupRows rows: a part of the
  // block that stays in L2 at a time, for all tiles of rows.
  template <class V>
  void transposed_product(const Gradients& from, Window window, const Block& block, Rows at, int nv,
                          T* sums) const {
    constexpr int F = FullVec<T>::width;
    const int64_t panel_bytes = window.count * F * block.step * static_cast<int64_t>(sizeof(T));
    const int64_t part = kBlockBytes > panel_bytes ? kBlockBytes / panel_bytes : 1;
    for (int64_t first = 0; first < panels.full; first += part)
      transposed_part<V, F>(from, window, block, at, nv, sums, first,
                            panels.full - first < part ? panels.full - first : part);
    if (panels.tail_width == F)
      transposed_part<V, F>(from, window, block, at, nv, sums, panels.full, 1);
    else if (panels.lanes)
      transposed_part<V, HalfVec<T>::width>(from, window, block, at, nv, sums, panels.full, 1);
  }
  // The same over `count` panels of W units from panel `first` on, added to what the ones before
  // gave.
  template <class V, int W>
  void transposed_part(const Gradients& from, Window window, const Block& block, Rows at, int nv,
                       T* sums, int64_t first, int64_t count) const {
    const int64_t column = first * FullVec<T>::width;
    Tile<T> tile;
    tile.row_segment = from.rows * D * W;
    tile.panel = block.data + (block.gates * column + window.first * W) * block.step;
    tile.panel_step = block.step;
    tile.panel_segment = block.gates * W * block.step;
    tile.K = window.count * W;
    tile.segments = count;
    tile.sums_step = nv * V::width;
    tile.init_step = tile.sums_step;
    for_tiles(at.count, tile_rows(nv), [&](int64_t r0, int rows_here) {
      for (int r = 0; r < rows_here; ++r)
        tile.row[r] = from.row(at.ids[r0 + r], column, W) + window.slot * W;
      tile.sums = sums + r0 * tile.sums_step;
      tile.init = first > 0 ? tile.sums : nullptr;
      run_tile<V>(tile, rows_here, nv);
    });
  }

  // The gradient that reaches h(t) through the recurrent product of step t + 1 (phase 0) or r h'
  // through the candidate's (phase 1), for the nv panels from p on, which begin at unit u0.
  template <class V, int Phase>
  void recurrent_product(const Gradients& from, Rows at, int64_t p, int64_t u0, int nv,
                         T* sums) const {
    constexpr int PG = phase_gates<Cell>(Phase), W = V::width;
    constexpr int slot = Phase == 0 ? Cell::recurrent_slot : G - 1;
    const int64_t padded = panels.padded();
    // The packed block (for_blocks) that holds panel p, and p's place in it.
    const bool tail = p >= panels.full;
    const int64_t first = tail ? p : p / kMaxVectors * kMaxVectors;
    const int64_t vectors = tail                                ? 1
                            : panels.full - first < kMaxVectors ? panels.full - first
                                                                : kMaxVectors;
    const T* packed =
        g.recurrent_kernel_transposed + (Phase == 0 ? 0 : phase_first<Cell>(1) * padded * padded);
    const Block block{packed + PG * padded * first * Panels<T>::width + (p - first) * W,
                      vectors * W, PG};
    if (!a.recurrent_dropout || Phase == 1)
      return transposed_product<V>(from, {slot, 0, PG}, block, at, nv, sums);
    // Every gate saw its own dropped h: its share of the gradient takes the same factors.
    product_per_gate<V>(from, slot, PG, block, at, nv, sums, [&](int gate, int r, int v) {
      return dropout_factor<V>(a.recurrent_dropout, a.units, gate, at.ids[r], u0 + v * W);
    });
  }

  // sums = over the gates of factor(gate, row, vector) * (d_z[gate] times the block).
  template <class V, class F>
  void product_per_gate(const Gradients& from, int slot, int gates, const Block& block, Rows at,
                        int nv, T* sums, F factor) const {
    GroupSums part;
    for (int j = 0; j < gates; ++j) {
      transposed_product<V>(from, {slot + j, j, 1}, block, at, nv, part);
      for (int r = 0; r < at.count; ++r)
        for (int v = 0; v < nv; ++v) {
          const int64_t i = (r * nv + v) * V::width;
          const V d = V::load(part + i) * factor(j, r, v);
          (j == 0 ? d : V::load(sums + i) + d).store(sums + i);
        }
    }
  }

  template <class V>
  int lanes_at(int64_t u0) const {
    return static_cast<int>(a.units - u0 < V::width ? a.units - u0 : V::width);
  }
  // Factors (gates, batch, size) of a gate and row from a column on.
  template <class V>
  V dropout_factor(const T* factors, int64_t size, int gate, int64_t b, int64_t column) const {
    const int lanes = static_cast<int>(size - column < V::width ? size - column : V::width);
    return V::load_partial(factors + (gate * a.batch + b) * size + column, lanes);
  }

  // f(V(), Rows, panel, u0, nv) over the own panels in runs that share a packed block, forwards or
  // backwards, and for each over the active rows in groups.
  template <class F>
  void for_groups(bool backwards, F f) {
    const auto run = [&](int64_t p, int64_t end) {
      if (p < panels.full) {
        const int nv = static_cast<int>(end - p);
        for_tiles(active, kGroupRows, [&](int64_t first, int count) {
          f(FullVec<T>::zero(), Rows{row_ids + first, count}, p, p * Panels<T>::width, nv);
        });
      } else {
        panels.visit(p, [&](auto tag, int64_t u0, int) {
          for_tiles(active, kGroupRows, [&](int64_t first, int count) {
            f(tag, Rows{row_ids + first, count}, p, u0, 1);
          });
        });
      }
    };
    const int64_t whole = own.last < panels.full ? own.last : panels.full;
    const auto end_of = [&](int64_t p) {
      const int64_t end = (p / kMaxVectors + 1) * kMaxVectors;
      return p >= panels.full ? p + 1 : end < whole ? end : whole;
    };
    if (!backwards) {
      for (int64_t p = own.first; p < own.last; p = end_of(p)) run(p, end_of(p));
    } else {
      for (int64_t end = own.last; end > own.first;) {
        int64_t p = end - 1;
        if (p < panels.full) p = p / kMaxVectors * kMaxVectors;
        if (p < own.first) p = own.first;
        run(p, end);
        end = p;
      }
    }
  }

  void step(int64_t t, bool has_next) {
    active = 0;
    for (int64_t b = rows.first; b < rows.last; ++b)
      if (used(b, t) || (has_next && used(b, t + 1))) row_ids[active++] = static_cast<int32_t>(b);
    GroupSums sums;
    for_groups(t & 1, [&](auto tag, Rows at, int64_t p, int64_t u0, int nv) {
      using V = decltype(tag);
      if (has_next)
        recurrent_product<V, 0>(next, at, p, u0, nv, sums);
      else
        std::memset(sums, 0, sizeof(T) * at.count * nv * V::width);
      for (int v = 0; v < nv; ++v)
        pointwise<V>(t, at, u0 + v * V::width, sums + v * V::width, nv * V::width);
    });
    if (a.mask &&
        active < rows.size())  // masked here and at t + 1: nothing but the output's gradient moves
      for (int64_t b = rows.first; b < rows.last; ++b)
        if (!used(b, t) && !(has_next && used(b, t + 1)))
          for (int64_t p = own.first; p < own.last; ++p)
            panels.visit(p, [&](auto tag, int64_t u0, int) {
              using V = decltype(tag);
              masked<V>(t, b, u0, V::zero());
            });
    if constexpr (two_phases) {
      if (a.split == Split::units) wait();
      active = 0;
      for (int64_t b = rows.first; b < rows.last; ++b)
        if (used(b, t)) row_ids[active++] = static_cast<int32_t>(b);
      for_groups(t & 1, [&](auto tag, Rows at, int64_t p, int64_t u0, int nv) {
        using V = decltype(tag);
        recurrent_product<V, 1>(here, at, p, u0, nv, sums);
        for (int v = 0; v < nv; ++v)
          pointwise_reset<V>(t, at, u0 + v * V::width, sums + v * V::width, nv * V::width);
      });
    }
  }

  // The gradient of output t of row b, where it reaches h: not of masked outputs that are zeros.
  template <class V>
  TIDEGATE_INLINE V d_output(int64_t t, int64_t b, int64_t u0) const {
    const int lanes = lanes_at<V>(u0);
    V d = V::zero();
    if (a.mask && !used(b, t) && (a.zero_output_for_mask || t < g.first_valid[b])) return d;
    if (g.d_outputs) {
      const T* from = g.d_outputs + b * g.d_output_batch_stride + t * g.d_output_time_stride + u0;
      d = lanes == V::width ? V::load(from) : V::load_partial(from, lanes);
    }
    if (g.d_last_output && t == a.time - 1)
      d = d + V::load_partial(g.d_last_output + b * a.units + u0, lanes);
    return d;
  }

  template <class V>
  void masked(int64_t t, int64_t b, int64_t u0, V recurrent) {
    T* dh = g.d_state[0] + b * a.state_stride + u0;
    ((recurrent + V::load(dh)) + d_output<V>(t, b, u0)).store(dh);
  }

  template <class V>
  void pointwise(int64_t t, Rows at, int64_t u0, const T* sums, int64_t sums_step) {
    if (plain)
      pointwise_with<V, DefaultActivations>(t, at, u0, sums, sums_step);
    else
      pointwise_with<V, NamedActivations>(t, at, u0, sums, sums_step);
  }

  template <class V, class Act>
  __attribute__((noinline)) void pointwise_with(int64_t t, Rows rows_at, int64_t u0, const T* sums,
                                                int64_t sums_step) {
    constexpr int W = V::width, K = saved_count<Cell, Act>(), kSaved = K > 0 ? K : 1;
    const Act act = activations<Act>(a);
    const T* kept = a.saved + (t * panels.padded() + u0) * a.batch * K;
    for (int r = 0; r < rows_at.count; ++r, sums += sums_step) {
      const int64_t b = rows_at.ids[r], at = b * a.state_stride + u0;
      if (a.mask && !used(b, t)) {
        masked<V>(t, b, u0, V::load(sums));
        continue;
      }
      V saved[kSaved], state[S], prev[S], d_state[S], d_z[D];
#pragma GCC unroll 4
      for (int k = 0; k < K; ++k) saved[k] = V::load(kept + (b * K + k) * W);
#pragma GCC unroll 2
      for (int s = 0; s < S; ++s) {
        prev[s] = V::load(slice(s, t) + at);
        state[s] = V::load(slice(s, t + 1) + at);
        d_state[s] = V::load(g.d_state[s] + at);
      }
      d_state[0] = (V::load(sums) + d_state[0]) + d_output<V>(t, b, u0);
      if constexpr (two_phases)
        Cell::backward_candidate(act, saved, prev, d_state, d_z);
      else
        Cell::backward(act, saved, state, prev, d_state, d_z);
      T* dz = here.row(b, u0, W);
#pragma GCC unroll 4
      for (int d = 0; d < D; ++d)
        if (!two_phases || d != 1) d_z[d].store(dz + d * W);
#pragma GCC unroll 2
      for (int s = 0; s < S; ++s) d_state[s].store(g.d_state[s] + at);
    }
  }

  template <class V>
  void pointwise_reset(int64_t t, Rows at, int64_t u0, const T* sums, int64_t sums_step) {
    if (plain)
      pointwise_reset_with<V, DefaultActivations>(t, at, u0, sums, sums_step);
    else
      pointwise_reset_with<V, NamedActivations>(t, at, u0, sums, sums_step);
  }

  template <class V, class Act>
  __attribute__((noinline)) void pointwise_reset_with(int64_t t, Rows rows_at, int64_t u0,
                                                      const T* sums, int64_t sums_step) {
    if constexpr (two_phases) {
      constexpr int W = V::width, K = saved_count<Cell, Act>();
      const Act act = activations<Act>(a);
      const T* kept = a.saved + (t * panels.padded() + u0) * a.batch * K;
      for (int r = 0; r < rows_at.count; ++r, sums += sums_step) {
        const int64_t b = rows_at.ids[r], at = b * a.state_stride + u0;
        V saved[K], d_z[D];
        for (int k = 0; k < K; ++k) saved[k] = V::load(kept + (b * K + k) * W);
        V d_state[1] = {V::load(g.d_state[0] + at)};
        V d_reset = V::load(sums);
        // With dropout the reset state is r * (dropped h): the gradient of r sees the dropped h,
        // that of h the factor.
        V prev[1] = {V::load(slice(0, t) + at)};
        if (a.recurrent_dropout)
          d_reset = d_reset * dropout_factor<V>(a.recurrent_dropout, a.units, G - 1, b, u0);
        Cell::backward_gates(act, saved, prev, d_reset, d_state, d_z);
        d_z[1].store(here.row(b, u0, W) + W);
        d_state[0].store(g.d_state[0] + at);
      }
    }
  }

  // dX of the chunk: d_z[input window] W^T, rows split over the threads; zeros where masked.
  void inputs(int64_t t0, int64_t steps) {
    if (!g.d_x) return;
    const Range part = share(here.rows - 1, thread, threads);
    GroupSums sums;
    const Gradients all{here.data, here.rows, nullptr};
    for_blocks<T>(a.features, [&](auto tag, int nv, int64_t column, int columns) {
      using V = decltype(tag);
      const int64_t step = nv * V::width;
      const T* block = g.kernel_transposed + G * panels.padded() * column;
      for_tiles(part.size(), kGroupRows, [&](int64_t first, int count) {
        int32_t ids[kGroupRows];
        for (int r = 0; r < count; ++r) ids[r] = static_cast<int32_t>(part.first + first + r);
        const Rows at{ids, count};
        if (a.input_dropout)
          product_per_gate<V>(
              all, Cell::input_slot, G, {block, step, G}, at, nv, sums, [&](int j, int r, int v) {
                return dropout_factor<V>(a.input_dropout, a.features, Cell::input_gates[j],
                                         unmasked[ids[r]] % a.batch, column + v * V::width);
              });
        else
          transposed_product<V>(all, {Cell::input_slot, 0, G}, {block, step, G}, at, nv, sums);
        for (int r = 0; r < count; ++r) {
          T* to = d_x_row(t0, unmasked[ids[r]]) + column;
          for (int v = 0; v < nv; ++v) {
            const int lanes = columns - v * V::width;
            const V d = V::load(sums + r * step + v * V::width);
            if (lanes >= V::width)
              d.store(to + v * V::width);
            else
              d.store_partial(to + v * V::width, lanes);
          }
        }
      });
    });
    if (here.rows - 1 == steps * a.batch) return;
    const Range every = share(steps * a.batch, thread, threads);
    for (int64_t i = every.first; i < every.last; ++i)
      if (!used(i % a.batch, t0 + i / a.batch))
        std::memset(d_x_row(t0, i), 0, sizeof(T) * static_cast<size_t>(a.features));
  }
  // f(m, step, row of the batch) for the rows [first, last) of d_z of the chunk that begins at t0.
  template <class F>
  TIDEGATE_INLINE void for_chunk_rows(int64_t t0, int64_t first, int64_t last, F f) const {
    int64_t t = first < last ? unmasked[first] / a.batch : 0;
    for (int64_t m = first; m < last; ++m) {
      while (unmasked[m] >= (t + 1) * a.batch) ++t;
      f(m, t0 + t, unmasked[m] - t * a.batch);
    }
  }
  T* d_x_row(int64_t t0, int64_t i) const {  // of (step, row) i of the chunk
    return g.d_x + i % a.batch * g.d_x_batch_stride + (t0 + i / a.batch) * g.d_x_time_stride;
  }

  // Some tiles side by side: packed[tile][m][0..R) = rows [tile * R, tile * R + R) of the source at
  // the step and row of d_z's row m; ones for the bias, zeros behind.
  void pack_rows(const WeightProduct& w, Range tiles, int64_t t0, T* packed) const {
    switch (w.tile()) {  // copies of a known length
      case kMaxRows:
        return pack_rows_of<kMaxRows>(w, tiles, t0, packed);
      case 6:
        return pack_rows_of<6>(w, tiles, t0, packed);
      case 4:
        return pack_rows_of<4>(w, tiles, t0, packed);
      default:
        return pack_rows_of<3>(w, tiles, t0, packed);
    }
  }
  template <int R>
  void pack_rows_of(const WeightProduct& w, Range tiles, int64_t t0, T* packed) const {
    const int64_t M = here.rows - 1, first = tiles.first * R;
    const int64_t real = (w.real_rows < tiles.last * R ? w.real_rows : tiles.last * R) - first;
    const int64_t whole = real > 0 ? real / R : 0;
    for_chunk_rows(t0, 0, M, [&](int64_t m, int64_t t, int64_t b) {
      const T* from = first + (w.source == WeightProduct::inputs
                                   ? a.x + b * a.x_batch_stride + t * a.x_time_stride
                               : w.source == WeightProduct::hidden
                                   ? slice(0, t) + b * a.state_stride
                                   : a.reset_state + (t * a.batch + b) * a.state_stride);
      T* to = packed + m * R;
      for (int64_t i = 0; i < whole; ++i) std::memcpy(to + i * M * R, from + i * R, sizeof(T) * R);
      if (tiles.size() > whole) {
        for (int64_t r = whole * R; r < tiles.size() * R; ++r)
          to[whole * M * R + r - whole * R] = r < real ? from[r] : first + r == w.real_rows ? 1 : 0;
      }
      if (w.dropout_gate >= 0) {
        const int64_t row = w.dropout_gate * a.batch + b;
        const T* factor =
            first + (w.source == WeightProduct::inputs ? a.input_dropout + row * a.features
                                                       : a.recurrent_dropout + row * a.units);
        for (int64_t r = 0; r < real; ++r) to[r / R * M * R + r % R] *= factor[r];
      }
    });
  }

  // The sums of all chunks but the last are carried along packed; the last one's go to the user's
  // matrices.
  void weights(int64_t t0, bool first_chunk, bool last_chunk) {
    const int64_t M = here.rows - 1;
    const Range own_tiles = share(weight_of_tiles(product, products), thread, threads);
    for_weighed_tiles(product, products, own_tiles, [&](const WeightProduct& w, Range tiles) {
      // A few at a time read whole cache lines of the source.
      for_tiles(tiles.size(), kMaxRows, [&](int64_t first, int count) {
        const Range some{tiles.first + first, tiles.first + first + count};
        pack_rows(w, some, t0,
                  g.packed_rows + M * (w.tiles_before * kMaxRows + some.first * w.tile()));
      });
    });
    alignas(64) T finished[kMaxRows * kMaxVectors * FullVec<T>::width];
    for (int64_t p = 0; p < panels.count(); ++p)
      panels.visit(p, [&](auto tag, int64_t u0, int lanes) {
        using V = decltype(tag);
        constexpr int W = V::width;
        for_weighed_tiles(product, products, own_tiles, [&](const WeightProduct& w, Range tiles) {
          for (int64_t index = tiles.first; index < tiles.last; ++index) {
            const int R = w.tile();
            const int64_t size = R * w.gates * W, left = w.rows - index * R;
            const int rows_here = left < R ? static_cast<int>(left) : R;
            Tile<T> tile;
            for (int r = 0; r < rows_here; ++r)
              tile.row[r] = g.packed_rows + M * (w.tiles_before * kMaxRows + index * R) + r;
            tile.row_step = R;
            tile.panel = here.data + here.rows * D * u0 + w.first * W;
            tile.panel_step = D * W;
            tile.K = M;
            T* const carried = g.weight_sums + w.sums + w.tiles() * R * w.gates * u0 + index * size;
            tile.sums = last_chunk ? finished : carried;
            tile.sums_step = w.gates * W;
            if (!first_chunk) {
              tile.init = carried, tile.init_step = tile.sums_step;
              prefetch(carried + size, size);  // where the next tile's begin
            }
            run_tile<V>(tile, rows_here, w.gates);
            if (last_chunk) write_gradients<V>(w, index * R, rows_here, u0, lanes, finished);
          }
        });
      });
  }

  // Rows [first, first + count) of a product's sums, one panel of units, to the user's matrices.
  template <class V>
  void write_gradients(const WeightProduct& w, int64_t first, int count, int64_t u0, int lanes,
                       const T* sums) const {
    const int64_t columns = G * a.units;
    for (int r = 0; r < count; ++r)
      for (int j = 0; j < w.gates; ++j, sums += V::width) {
        const int64_t row = first + r;
        const bool bias = row == w.real_rows;
        T* to;
        int gate;
        if (w.source == WeightProduct::inputs) {
          gate = Cell::input_gates[w.first - Cell::input_slot + j];
          to = bias ? g.d_bias : g.d_kernel + row * columns;
        } else {
          gate = w.source == WeightProduct::reset ? G - 1 : w.first - Cell::recurrent_slot + j;
          to = bias ? (g.d_bias ? g.d_bias + columns : nullptr)
                    : g.d_recurrent_kernel + row * columns;
        }
        if (!to) continue;
        const V sum = V::load(sums);
        if (lanes == V::width)
          sum.store(to + gate * a.units + u0);
        else
          sum.store_partial(to + gate * a.units + u0, lanes);
      }
  }

  // The gradient of the initial states: through step 0's product, and what carried past it.
  void initial_states() {
    active = 0;
    for (int64_t b = rows.first; b < rows.last; ++b) row_ids[active++] = static_cast<int32_t>(b);
    GroupSums sums;
    for_groups(false, [&](auto tag, Rows at, int64_t p, int64_t u0, int nv) {
      using V = decltype(tag);
      recurrent_product<V, 0>(next, at, p, u0, nv, sums);
      for (int r = 0; r < at.count; ++r)
        for (int v = 0; v < nv; ++v) {
          const int64_t unit = u0 + v * V::width, b = at.ids[r];
          const int lanes = lanes_at<V>(unit);
          for (int s = 0; s < S; ++s) {
            V d = V::load(g.d_state[s] + b * a.state_stride + unit);
            if (s == 0) d = V::load(sums + (r * nv + v) * V::width) + d;
            if (g.d_initial_state[s])
              d.store_partial(g.d_initial_state[s] + b * a.units + unit, lanes);
          }
        }
    });
  }

  const BackwardArgs<T>& g;
  const ForwardArgs<T>& a;
  const bool plain;  // tanh and sigmoid
  const int thread, threads;
  Barrier* const barrier;
  const Panels<T> panels;
  const Range rows, own;
  int32_t* const row_ids;
  WeightProduct product[kMaxProducts];
  int products = 0, active = 0;
  Gradients here{nullptr, 0, nullptr}, next{nullptr, 0, nullptr};
  const int32_t* unmasked = nullptr;  // of the chunk: the (step, row) of each row of d_z
};

}  // namespace
}  // namespace TIDEGATE_ISA_NS
}  // namespace tidegate

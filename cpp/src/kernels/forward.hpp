// A sequence forward: the projection of a chunk of time, then its steps.
#pragma once

#include "sequence.hpp"

namespace tidegate {
namespace TIDEGATE_ISA_NS {
namespace {

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

}  // namespace
}  // namespace TIDEGATE_ISA_NS
}  // namespace tidegate

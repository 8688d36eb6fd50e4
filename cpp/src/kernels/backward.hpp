// A sequence backward: chunks of time from the end, the steps of each, then the products over it.
#pragma once

#include <cstring>

#include "sequence.hpp"

namespace tidegate {
namespace TIDEGATE_ISA_NS {
namespace {

// One of the products that give the weights' gradients: rows^T d_z[window].
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

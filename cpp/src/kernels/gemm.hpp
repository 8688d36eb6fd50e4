// Packed matrix products: the register tile that every product of the library runs through.
//
// A right-hand matrix (K x N) is packed in panels of NV vectors: for each k the NV * V values of
// the panel side by side,
//
//     panel:   k=0: [ v0 .. v(V-1) | .. | NV vectors ]
//              k=1: [ ...                            ]          K rows of NV * V values, contiguous
//
// A tile holds R rows x NV vectors of sums in registers and walks down k: NV loads and R broadcasts
// feed R * NV multiply-adds. Every sum is ONE chain of multiply-adds in ascending k, whatever R,
// NV, V or the number of threads: this is what makes results bit-identical across batch sizes and
// thread counts.
#pragma once

#include "simd.hpp"

namespace tidegate {
namespace TIDEGATE_ISA_NS {
namespace {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif

constexpr int kMaxRows = 8;  // of a tile: so many row pointers fit the integer registers
constexpr int kMaxVectors = 4;

// Rows of a tile of NV vectors: as many sums as leave registers for min(R, NV) kept operands and
// one on the fly. A packed panel is read once per tile, 4 * NV * V bytes for R * NV multiply-adds a
// k: L2 feeds that.
constexpr int tile_rows(int nv) {
  return kRegisters == 32 ? (nv >= 4 ? 6 : 8) : (nv >= 4 ? 3 : nv == 3 ? 4 : nv == 2 ? 6 : 8);
}

// sums[r][v] (+)= sum over k of row[r][k * row_step] * panel[k][v], the k in `segments` runs of K.
template <class T>
struct Tile {
  const T* row[kMaxRows];
  int64_t row_step = 1, row_segment = 0;  // from one k to the next; from one segment to the next
  const T* panel;
  int64_t panel_step, panel_segment = 0;
  int64_t K, segments = 1;
  const T* init = nullptr;  // what the sums start from (null: zeros): row r at init + r * init_step
  int64_t init_step = 0;
  T* sums;  // row r at sums + r * sums_step
  int64_t sums_step;
};

// Asks for `count` values that will be needed soon.
template <class T>
TIDEGATE_INLINE void prefetch(const T* from, int64_t count) {
  constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));
  for (int64_t i = 0; i < count; i += line) __builtin_prefetch(from + i);
}

template <class V, int R, int NV>
__attribute__((noinline)) void tile_kernel(const Tile<typename V::scalar>& tile) {
  using T = typename V::scalar;
  V sum[R][NV];
  const T* row[R];
  T* const sums = tile.sums;  // locals: the stores below might alias the tile
  const int64_t sums_step = tile.sums_step;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    row[r] = tile.row[r];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v)
      sum[r][v] = tile.init ? V::load(tile.init + r * tile.init_step + v * V::width) : V::zero();
  }
  const int64_t row_step = tile.row_step, panel_step = tile.panel_step;
  for (int64_t s = 0; s < tile.segments; ++s) {
    const T* panel = tile.panel + s * tile.panel_segment;
    int64_t k = s * tile.row_segment;
    // The rows' next segment lies elsewhere, where no hardware looks ahead.
    if (s + 1 < tile.segments)
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) prefetch(row[r] + k + tile.row_segment, tile.K);
#pragma GCC unroll 1
    for (const T* end = panel + tile.K * panel_step; panel != end;
         panel += panel_step, k += row_step) {
      if constexpr (R <= NV) {
        V a[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) a[r] = V::set(row[r][k]);
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) {
          const V b = V::load(panel + v * V::width);
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) sum[r][v] = fma(a[r], b, sum[r][v]);
        }
      } else {
        V b[NV];
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) b[v] = V::load(panel + v * V::width);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const V a = V::set(row[r][k]);
#pragma GCC unroll 4
          for (int v = 0; v < NV; ++v) sum[r][v] = fma(a, b[v], sum[r][v]);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) sum[r][v].store(sums + r * sums_step + v * V::width);
}

// One row against NP neighbouring panels at once: enough independent chains to hide the latency of
// a multiply-add. The sums of panel p go to sums + p * sums_step, its init is at init + p *
// init_step; panels lie panel_segment apart.
template <class V, int NP, int NV>
__attribute__((noinline)) void wide_kernel(const Tile<typename V::scalar>& tile) {
  using T = typename V::scalar;
  V sum[NP][NV];
  const T* panel[NP];
#pragma GCC unroll 4
  for (int p = 0; p < NP; ++p) {
    panel[p] = tile.panel + p * tile.panel_segment;
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v)
      sum[p][v] = tile.init ? V::load(tile.init + p * tile.init_step + v * V::width) : V::zero();
  }
  const T* row = tile.row[0];
  T* const sums = tile.sums;
  const int64_t sums_step = tile.sums_step;
  int64_t j = 0;
#pragma GCC unroll 1
  for (int64_t k = 0; k < tile.K; ++k, j += tile.panel_step) {
    const V a = V::set(row[k]);
#pragma GCC unroll 4
    for (int p = 0; p < NP; ++p)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v)
        sum[p][v] = fma(a, V::load(panel[p] + j + v * V::width), sum[p][v]);
  }
#pragma GCC unroll 4
  for (int p = 0; p < NP; ++p)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) sum[p][v].store(sums + p * sums_step + v * V::width);
}
constexpr int wide_panels(int nv) { return nv >= 3 ? 2 : 4; }

template <class V, int NV>
void run_tile_rows(const Tile<typename V::scalar>& tile, int rows) {
  switch (rows) {
    case 1:
      return tile_kernel<V, 1, NV>(tile);
    case 2:
      return tile_kernel<V, 2, NV>(tile);
    case 3:
      return tile_kernel<V, 3, NV>(tile);
    default:
      break;
  }
  if constexpr (tile_rows(NV) >= 4)
    if (rows == 4) return tile_kernel<V, 4, NV>(tile);
  if constexpr (tile_rows(NV) >= 6) {
    if (rows == 5) return tile_kernel<V, 5, NV>(tile);
    if (rows == 6) return tile_kernel<V, 6, NV>(tile);
  }
  if constexpr (tile_rows(NV) >= 8) {
    if (rows == 7) return tile_kernel<V, 7, NV>(tile);
    if (rows == 8) return tile_kernel<V, 8, NV>(tile);
  }
}

// rows <= tile_rows(nv), nv <= kMaxVectors
template <class V>
void run_tile(const Tile<typename V::scalar>& tile, int rows, int nv) {
  switch (nv) {
    case 1:
      return run_tile_rows<V, 1>(tile, rows);
    case 2:
      return run_tile_rows<V, 2>(tile, rows);
    case 3:
      return run_tile_rows<V, 3>(tile, rows);
    default:
      return run_tile_rows<V, 4>(tile, rows);
  }
}

// Tiles of nearly equal height instead of a thin last one: f(first, rows) for `count` rows.
template <class F>
TIDEGATE_INLINE void for_tiles(int64_t count, int max_rows, F f) {
  const int64_t tiles = (count + max_rows - 1) / max_rows;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t first = count * i / tiles;
    f(first, static_cast<int>(count * (i + 1) / tiles - first));
  }
}

// How `units` columns fall into panels of one vector: `full` whole ones, then a tail of `lanes`
// columns in a panel of tail_width (half a vector where that holds them).
template <class T>
struct Panels {
  static constexpr int width = FullVec<T>::width, half = HalfVec<T>::width;
  int64_t full;
  int lanes, tail_width;
  explicit Panels(int64_t units)
      : full(units / width),
        lanes(static_cast<int>(units % width)),
        tail_width(lanes == 0      ? 0
                   : lanes <= half ? half
                                   : width) {}
  int64_t count() const { return full + (lanes > 0); }
  int64_t padded() const { return full * width + tail_width; }
  // f(V(), first column, columns in use)
  template <class F>
  TIDEGATE_INLINE void visit(int64_t panel, F f) const {
    if (panel < full) return f(FullVec<T>::zero(), panel * width, width);
    if (half < width && tail_width == half) return f(HalfVec<T>::zero(), full * width, lanes);
    return f(FullVec<T>::zero(), full * width, lanes);
  }
};

// A matrix of any number of columns as the right-hand side: blocks of four vectors, one of the
// vectors left over, one for the tail. Block at packed + rows * first column. f(V(), nv, first
// column, columns in use)
template <class T, class F>
TIDEGATE_INLINE void for_blocks(int64_t columns, F f) {
  const Panels<T> panels(columns);
  constexpr int width = FullVec<T>::width;
  int64_t p = 0;
  for (; p + kMaxVectors <= panels.full; p += kMaxVectors)
    f(FullVec<T>::zero(), kMaxVectors, p * width, kMaxVectors * width);
  if (const int rest = static_cast<int>(panels.full - p))
    f(FullVec<T>::zero(), rest, p * width, rest * width);
  if (panels.lanes)
    panels.visit(panels.full, [&](auto v, int64_t first, int lanes) { f(v, 1, first, lanes); });
}

// dst[k][0..nv*V) = src[k][0..columns) for k < rows, zeros behind.
template <class V>
TIDEGATE_INLINE void pack_block(const typename V::scalar* src, int64_t src_step, int64_t rows,
                                int nv, int columns, typename V::scalar* dst, int64_t dst_step) {
  for (int64_t k = 0; k < rows; ++k, src += src_step, dst += dst_step)
    for (int v = 0; v < nv; ++v) {
      const int n = columns - v * V::width;
      (n >= V::width ? V::load(src + v * V::width)
                     : V::load_partial(src + v * V::width, n < 0 ? 0 : n))
          .store(dst + v * V::width);
    }
}

template <class V>
__attribute__((noinline)) V partial_row(const typename V::scalar* from, int n) {
  return V::load_partial(from, n);
}

// dst[k][c] = src[c][k] for k < rows, c < columns; zeros for the other c < nv * V and for k in
// [rows, padded_rows). Out of line: one copy a vector type, not one a cell.
template <class V>
__attribute__((noinline)) void pack_block_transposed(const typename V::scalar* src,
                                                     int64_t src_step, int64_t rows,
                                                     int64_t padded_rows, int nv, int columns,
                                                     typename V::scalar* dst) {
  constexpr int W = V::width;
  for (int v = 0; v < nv; ++v)
    for (int64_t k = 0; k < padded_rows; k += W) {
      V block[W];
      const int n = static_cast<int>(rows - k < W ? (rows - k < 0 ? 0 : rows - k) : W);
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) {
        const int c = v * W + i;
        block[i] = c >= columns ? V::zero()
                   : n == W     ? V::load(src + c * src_step + k)
                                : partial_row<V>(src + c * src_step + k, n);
      }
      transpose(block);
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i)
        if (k + i < padded_rows) block[i].store(dst + (k + i) * nv * W + v * W);
    }
}

}  // namespace
}  // namespace TIDEGATE_ISA_NS
}  // namespace tidegate

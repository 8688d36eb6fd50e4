// The products of a dense layer: the same register tile over blocks of any number of columns.
#pragma once

#include "../kernel_api.hpp"
#include "gemm.hpp"

namespace tidegate {
namespace TIDEGATE_ISA_NS {
namespace {

template <class T>
int64_t dense_packed_size(int64_t rows, int64_t columns) {
  return rows * Panels<T>(columns).padded();
}

template <class T>
void dense_pack(const T* matrix, int64_t rows, int64_t columns, bool transposed, T* packed) {
  for_blocks<T>(columns, [&](auto tag, int nv, int64_t first, int used) {
    using V = decltype(tag);
    T* block = packed + rows * first;
    if (transposed)
      pack_block_transposed<V>(matrix + first * rows, rows, rows, rows, nv, used, block);
    else
      pack_block<V>(matrix + first, columns, rows, nv, used, block, nv * V::width);
  });
}

template <class T>
void dense_multiply(const DenseArgs<T>& d, int64_t first_row, int64_t last_row) {
  alignas(64) T sums[kMaxRows * kMaxVectors * FullVec<T>::width];
  for_blocks<T>(d.columns, [&](auto tag, int nv, int64_t column, int used) {
    using V = decltype(tag);
    Tile<T> tile;
    tile.row_step = d.x_step;
    tile.panel = d.packed + d.K * column;
    tile.panel_step = tile.sums_step = nv * V::width;
    tile.K = d.K;
    tile.sums = sums;
    for_tiles(last_row - first_row, tile_rows(nv), [&](int64_t first, int count) {
      for (int r = 0; r < count; ++r) tile.row[r] = d.x + (first_row + first + r) * d.x_row;
      run_tile<V>(tile, count, nv);
      for (int r = 0; r < count; ++r) {
        T* to = d.y + (first_row + first + r) * d.columns + column;
        for (int v = 0; v < nv; ++v) {
          const int lanes = used - v * V::width < V::width ? used - v * V::width : V::width;
          V y = V::load(sums + r * tile.sums_step + v * V::width);
          if (d.bias) y = y + V::load_partial(d.bias + column + v * V::width, lanes);
          if (lanes == V::width)
            y.store(to + v * V::width);
          else
            y.store_partial(to + v * V::width, lanes);
        }
      }
    });
  });
}

}  // namespace
}  // namespace TIDEGATE_ISA_NS
}  // namespace tidegate

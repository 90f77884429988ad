// The moments of a tile's columns, for the batch norm behind a convolution (epilogue.h). For .cu files.
//
// Sums and then sums of squared differences from the mean, both from the registers that hold the tile: a thread's in
// the order of its rows, its warp's by a tree, the warps' in their order. Always the same order, so the same bits.
#pragma once

#include "simt/simt.h"

#include <cstdint>

namespace gpucnn::mma {

// The sum of a column's values in a warp, of which lane t + 4 * n has one for each n: in all of these lanes.
__device__ __forceinline__ float sum_of_column(float value) {
#pragma unroll
  for (int step = 4; step < 32; step *= 2) value += __shfl_xor_sync(~0u, value, step);
  return value;
}

// The moments of the tile's sums, which are as they were stored, in its rows [first_row, rows) and columns
// [first_column, columns), in lines of `pitch`. All threads of the block call it; sums_of_warps: Shape::kRows /
// Shape::kWarpRows lines of Shape::kColumns in shared memory, which nobody uses any more after a barrier.
template <typename Tile>
__device__ __forceinline__ void store_moments(const Tile& tile, float* sums_of_warps, float* moments,
                                              std::int64_t first_row, std::int64_t rows, std::int64_t first_column,
                                              std::int64_t columns, std::int64_t pitch) {
  using A = typename Tile::A;
  using B = typename Tile::B;
  using Shape = typename Tile::Shape;
  constexpr int kWarpsDown = Shape::kRows / Shape::kWarpRows;
  const int lane = static_cast<int>(threadIdx.x) % 32, t = lane % 4;
  const int me = static_cast<int>(threadIdx.x), down = Tile::first_row() / Shape::kWarpRows;
  const int valid = static_cast<int>(min(rows - first_row, std::int64_t{Shape::kRows}));
  const float part = 1.0f / static_cast<float>(valid);
  float middle[Tile::kAcross][2] = {};

#pragma unroll
  for (int pass = 0; pass < 2; ++pass) {  // means, then squares
    __syncthreads();
#pragma unroll
    for (int j = 0; j < Tile::kAcross; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < Tile::kDown; ++i) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const bool exists = Tile::first_row() + A::line(2 * i + half, lane / 4) < valid;
            const float value = exists ? tile.sums[i][j][2 * half + e] - middle[j][e] : 0.0f;
            sum += pass == 0 ? value : value * value;
          }
        }
        sum = sum_of_column(sum);
        if (lane < 4) sums_of_warps[down * Shape::kColumns + Tile::first_column() + B::line(j, 2 * t + e)] = sum;
      }
    }
    __syncthreads();
    if (pass == 0) {
#pragma unroll
      for (int j = 0; j < Tile::kAcross; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const float* const of_column = sums_of_warps + Tile::first_column() + B::line(j, 2 * t + e);
          float sum = 0.0f;
#pragma unroll
          for (int warp = 0; warp < kWarpsDown; ++warp) sum += of_column[warp * Shape::kColumns];
          middle[j][e] = sum * part;
        }
      }
    }
    if (me < Shape::kColumns && first_column + me < columns) {
      float sum = 0.0f;
#pragma unroll
      for (int warp = 0; warp < kWarpsDown; ++warp) sum += sums_of_warps[warp * Shape::kColumns + me];
      float* const line = moments + 2 * (first_row / Shape::kRows) * pitch + first_column + me;
      line[pass * pitch] = pass == 0 ? sum * part : sum;
      if (first_row == 0) moments[2 * ((rows + Shape::kRows - 1) / Shape::kRows) * pitch + first_column + me] = 0.0f;
    }
  }
}

}  // namespace gpucnn::mma

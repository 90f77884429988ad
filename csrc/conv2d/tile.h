// The product that the wide kernels share: a block's tile of sums from strips of two matrices in shared memory.
//
//     sums[i][j] += a[d][row + i] * b[d][column + j]   for d in [0, kDepth), in order
//
// Layout   a (kDepth, kRows) and b (kDepth, kColumns), so that a thread's neighbours in a sum are neighbours in memory;
//          lines are padded by 4, which keeps them aligned to 16 bytes and spreads 8 lines' elements over the banks. In
//          the other 8 lines neighbours change places by twos (place()): 16 lines by 2 elements are in 32 banks.
// Block    kThreads threads and kRows x kColumns sums.
// Thread   4 x 4 sums: 2 loads of 16 bytes from shared memory feed 16 multiplications.
// Bound    FFMA: 128 multiplications a cycle and multiprocessor, where the fills' index arithmetic is not slower.
#pragma once

#include "common/index.h"
#include "common/pack.h"
#include "simt/ptx.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {

template <int kRows_, int kColumns_>
struct Tile {
  static constexpr int kRows = kRows_, kColumns = kColumns_;
  static constexpr int kDepth = 16;
  static constexpr int kOwn = 4;  // sums of a thread in either direction
  static constexpr int kPad = 4;
  static constexpr int kAcross = kColumns / kOwn;  // threads along a row of the tile
  static constexpr int kThreads = (kRows / kOwn) * kAcross;
  static_assert(kRows % kOwn == 0 && kColumns % kOwn == 0 && kThreads % 32 == 0 && kThreads <= 1024);
  static_assert(kOwn * sizeof(float) == sizeof(float4) && kPad * sizeof(float) % sizeof(float4) == 0);

  using StripOfRows = float[kDepth][kRows + kPad];
  using StripOfColumns = float[kDepth][kColumns + kPad];

  float sums[kOwn][kOwn] = {};

  // The first row and column of the thread's sums within the tile.
  static __device__ __forceinline__ int row() { return static_cast<int>(threadIdx.x) / kAcross * kOwn; }
  static __device__ __forceinline__ int column() { return static_cast<int>(threadIdx.x) % kAcross * kOwn; }

  // Where element `i` of line `d` of a strip lies.
  static __device__ __forceinline__ int place(int d, int i) { return d < kDepth / 2 ? i : i ^ 2; }

  // All threads of a block call it; nobody may write the strips meanwhile.
  __device__ __forceinline__ void add(const StripOfRows& a, const StripOfColumns& b) {
#pragma unroll
    for (int d = 0; d < kDepth; ++d) {
      const float4 left = simt::vload<float4>(&a[d][row()]);
      const float4 right = simt::vload<float4>(&b[d][column()]);
      const float of_left[kOwn] = {left.x, left.y, left.z, left.w};
      const float of_right[kOwn] = {right.x, right.y, right.z, right.w};
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
#pragma unroll
        for (int j = 0; j < kOwn; ++j) sums[i][j] += of_left[place(d, i)] * of_right[place(d, j)];
      }
    }
  }
};

// p[0] ... p[3], of which those from `count` on do not exist; in one access where it is `wide`: then they are aligned,
// and all exist or none.
template <typename T>
__device__ __forceinline__ void store_quad(T* p, const Floats<4>& values, int count, bool wide) {
  if (wide) {
    detail::Access<T, 4> access;
#pragma unroll
    for (int i = 0; i < 4; ++i) access.elements[i] = simt::from_float<T>(values[i]);
    if (count > 0) simt::store_global(p, access.word);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i < count) p[i] = simt::from_float<T>(values[i]);
    }
  }
}

// Which tile of which group's matrix a block owns: columns before groups before rows, so that blocks that run side by
// side share the rows, which are what is large.
struct TilePlace {
  std::int64_t row;
  int group, column;
};

template <typename Tile>
__device__ __forceinline__ TilePlace tile_place(int index, int groups, int columns_of_group) {
  const int across = (columns_of_group - 1) / Tile::kColumns + 1, line = index / across;
  return {std::int64_t{line / groups} * Tile::kRows, line % groups, index % across * Tile::kColumns};
}

// Blocks of a grid of tiles.
template <typename Tile>
std::int64_t tile_count(std::int64_t rows, int groups, int columns_of_group) {
  return blocks_of(Tile::kRows, rows) * groups * blocks_of(Tile::kColumns, columns_of_group);
}

}  // namespace gpucnn

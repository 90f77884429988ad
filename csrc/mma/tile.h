// The core of every product on tensor cores: a block's tile of sums from strips of two operands in shared memory.
//
//     sums[i][j] += a[row i][depth d] * b[column j][depth d]   float32 sums
//
// Layout   strips.h. Ring: kStages strips of both operands, of which kStages - 1 are on their way (cp.async) while one
//          is multiplied; one barrier a strip.
// Warp     64 x 64 sums (or 64 x 32, 32 x 32): fragments of 16 rows and of 8 columns, each read once for a matrix
//          instruction's depth (32 bytes), two depths a strip: those of the second are read before the first are
//          multiplied.
// Thread   of each fragment 2 rows by 2 columns of sums. Which ones is the strips' to say: store.h.
// Bound    an H100's mma.sync: about 1,200 products of 16 bits a cycle and multiprocessor, half of it of TF32; shared
//          memory: 128 bytes a cycle, of which a warp of 64 x 64 needs 32 cycles for 32 instructions.
#pragma once

#include "mma/strips.h"
#include "simt/ptx.h"
#include "simt/simt.h"

#include <cstdint>
#include <type_traits>

namespace gpucnn::mma {

// Arithmetic: of arithmetic.h. A, B: the strips of the rows and of the columns.
template <typename Arithmetic_, typename Shape_, typename A_, typename B_>
class Tile {
 public:
  using Arithmetic = Arithmetic_;
  using Shape = Shape_;
  using A = A_;
  using B = B_;
  static constexpr int kDown = Shape::kWarpRows / 16, kAcross = Shape::kWarpColumns / 8;  // fragments of a warp
  static constexpr int kUnits = A::kUnits + B::kUnits;                                    // of both strips

  // Of the 16 x 8 sums of a fragment: [0], [1] of row index lane / 4 and columns 2t, 2t + 1; [2], [3] of the next
  // group.
  float sums[kDown][kAcross][4] = {};

  __device__ __forceinline__ Tile() : a_(first_row()), b_(first_column()) {}

  // Within the block's tile, the first row and column of the warp's.
  static __device__ __forceinline__ int first_row() { return warp() / Shape::kWarpsAcross * Shape::kWarpRows; }
  static __device__ __forceinline__ int first_column() { return warp() % Shape::kWarpsAcross * Shape::kWarpColumns; }

  // All threads of a block call it; nobody may write the strips meanwhile. Carefully: see Split.
  template <bool kCarefully>
  __device__ __forceinline__ void add(const uint4* strips) {
    if constexpr (std::is_same_v<Arithmetic, Split>) {
      add_split<kCarefully>(strips);
    } else {
      static_assert(kSteps == 2);
      LeftWords a[2][kDown];
      RightWords b[2][kAcross];
      read(a[0], b[0], strips, 0);
      read(a[1], b[1], strips, 1);
      Arithmetic::multiply(sums, a[0], b[0]);
      Arithmetic::multiply(sums, a[1], b[1]);
    }
  }

  // Whether all sums of this thread are, of an arithmetic that asks.
  __device__ __forceinline__ bool is_finite() const {
    bool all = true;
#pragma unroll
    for (int i = 0; i < kDown; ++i) {
#pragma unroll
      for (int j = 0; j < kAcross; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) all &= Arithmetic::is_finite(sums[i][j][e]);
      }
    }
    return all;
  }

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kDown; ++i) {
#pragma unroll
      for (int j = 0; j < kAcross; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) sums[i][j][e] = 0.0f;
      }
    }
  }

 private:
  static constexpr int kSteps = kStrip<typename Arithmetic::Element> / Arithmetic::kDepth;

  static __device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / 32; }

  // Fragments of one step.
  __device__ __forceinline__ void read(LeftWords (&a)[kDown], RightWords (&b)[kAcross], const uint4* strips,
                                       int step) const {
#pragma unroll
    for (int i = 0; i < kDown; ++i) a_.read(a[i].word, strips, i, step);
    read(b, strips, step);
  }
  __device__ __forceinline__ void read(RightWords (&b)[kAcross], const uint4* strips, int step) const {
#pragma unroll
    for (int j = 0; j < kAcross; j += 2) {
      std::uint32_t words[4];
      b_.read(words, strips + A::kUnits, j / 2, step);
      b[j] = {{words[0], words[1]}};
      b[j + 1] = {{words[2], words[3]}};
    }
  }

  // Both steps at once: the columns' parts are kept, and one fragment of rows after the other is read.
  template <bool kCarefully>
  __device__ __forceinline__ void add_split(const uint4* strips) {
    static_assert(kSteps == 2);
    RightWords b[2][kAcross];
    read(b[0], strips, 0);
    read(b[1], strips, 1);
    Split::Parts<RightWords> parts[kAcross];
#pragma unroll
    for (int j = 0; j < kAcross; ++j) parts[j] = Split::parts_of<kCarefully>(b[0][j], b[1][j]);
#pragma unroll
    for (int i = 0; i < kDown; ++i) {
      LeftWords a[2];
      a_.read(a[0].word, strips, i, 0);
      a_.read(a[1].word, strips, i, 1);
      Split::multiply<kCarefully>(sums[i], a, parts);
      if constexpr (kCarefully) {
#pragma unroll
        for (int j = 0; j < kAcross; ++j) Split::add_unbounded(sums[i][j], a, {b[0][j], b[1][j]});
      }
    }
  }

  typename A::template Reader<Side::left> a_;
  typename B::template Reader<Side::right> b_;
};

// tile += a * b over `depth`, in [0, 2^33]. All threads of a block call it, once; ring: Shape::kSharedBytes of shared
// memory. The operands give zeros beyond their depth.
template <bool kCarefully, typename Tile, typename A, typename B>
__device__ __forceinline__ void multiply(Tile& tile, uint4* ring, A a, B b, std::int64_t depth) {
  constexpr int kDepth = kStrip<typename Tile::Arithmetic::Element>;
  const int strips = static_cast<int>((depth + kDepth - 1) / kDepth);
#pragma unroll
  for (int n = 0; n < kStages - 1; ++n) {
    if (n < strips) {
      a.copy(ring + n * Tile::kUnits);
      b.copy(ring + n * Tile::kUnits + Tile::A::kUnits);
    }
    simt::cp_async_commit();
  }
  int current = 0, next = kStages - 1;  // of the ring: to be multiplied, and free
  for (int n = 0; n < strips; ++n) {
    simt::cp_async_wait_group<kStages - 2>();
    __syncthreads();  // the current strips are there, and all are done with those before
    if (n + kStages - 1 < strips) {
      a.copy(ring + next * Tile::kUnits);
      b.copy(ring + next * Tile::kUnits + Tile::A::kUnits);
    }
    simt::cp_async_commit();
    tile.template add<kCarefully>(ring + current * Tile::kUnits);
    current = current + 1 < kStages ? current + 1 : 0;
    next = next + 1 < kStages ? next + 1 : 0;
  }
}

// Whether it is true in any thread of the block, by way of shared memory that all are done with.
__device__ __forceinline__ bool in_any_warp(bool value, uint4* shared) {
  auto* const of_warps = reinterpret_cast<unsigned*>(shared);
  const bool mine = __any_sync(~0u, value) != 0;
  __syncthreads();
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = mine;
  __syncthreads();
  bool any = false;
  for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) any |= of_warps[warp] != 0;
  __syncthreads();
  return any;
}

// As multiply(), of operands that rows() and columns() make: once more, carefully, where the arithmetic has to.
template <typename Tile, typename Rows, typename Columns>
__device__ __forceinline__ void multiply(Tile& tile, uint4* ring, const Rows& rows, const Columns& columns,
                                         std::int64_t depth) {
  multiply<false>(tile, ring, rows(), columns(), depth);
  if constexpr (std::is_same_v<typename Tile::Arithmetic, Split>) {
    if (in_any_warp(!tile.is_finite(), ring)) {
      tile.clear();
      multiply<true>(tile, ring, rows(), columns(), depth);
    }
  }
}

}  // namespace gpucnn::mma

// The core of every dense product: a block's tile of sums from strips of two operands in shared memory.
//
//     sums[i][j] += a[row i][depth d] * b[column j][depth d]   for d in order, float32
//
// An operand is a matrix of kSize lines of the tile (its rows, or its columns) by depth, in global memory as it likes:
// operands.h brings kDepth of its depth at a time into shared memory, converted to float32. multiply() below is the
// loop; store.h stores what came out. To add a product: a kernel that makes two operands, calls multiply() and
// stores (matmul.cu is the shortest).
//
// Layout   strips are (kDepth, kSize), so that a thread's neighbours in a sum are neighbours in memory. Two of each
//          operand: while one is multiplied, the next is on its way in registers, then stored into the other.
// Order    depth d lies in line line_of<T>(d) of a strip, element e in place Place<T, kSize>::of(e) of a line. Both are
//          such that neither the stores of any operand nor the loads below meet in a bank: for float32 e itself.
//          16-byte packs of 16-bit elements are cut into halves that lie apart. The order in which a sum is added up
//          follows the lines: it is the same in every configuration and on every path.
// Warp     32 rows x 64 columns (or 32): 4 lanes down, 8 across. Thread: 8 x 8 sums (or 8 x 4), in groups of 4: 4 loads
//          of 16 bytes from shared memory feed 64 multiplications.
// Bound    FFMA: 128 multiplications a cycle and multiprocessor; 60 TFLOP/s in practice on an H100.
#pragma once

#include "common/pack.h"
#include "gemm/configurations.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn::gemm {

inline constexpr int kPad = 4;  // between the lines of a strip: depths 4 lines apart are 16 banks apart

// Where depth d of a strip lies, and which depth lies in a line. The halves of two packs of 8 alternate.
template <typename T>
__host__ __device__ constexpr int line_of(int d) {
  if constexpr (kPack<T> == 4) return d;
  return (d & 3) | (d & 4) << 1 | (d & 8) >> 1;
}

// Where the elements of a strip's line lie. Packs of 8 are cut: in 64 places, first the first halves of 8 packs, then
// the second halves, those turned by half a line of banks.
template <typename T, int kSize>
struct Place {
  static constexpr int kPitch = kSize + kPad;
  static constexpr int kHalf = kSize >= 64 ? 32 : 16, kTurn = kSize >= 64 ? 4 : 0;
  static_assert(kSize % (2 * kHalf) == 0);

  static __host__ __device__ constexpr int of(int element) {
    if constexpr (kPack<T> == 4) return element;
    const int half = element / 4 % 2, pack = element % (2 * kHalf) / 8;
    return element / (2 * kHalf) * (2 * kHalf) + half * kHalf + 4 * (pack ^ half * kTurn) + element % 4;
  }

  // The element in a place.
  static __host__ __device__ constexpr int element(int place) {
    if constexpr (kPack<T> == 4) return place;
    const int half = place / kHalf % 2, pack = place % kHalf / 4 ^ half * kTurn;
    return place / (2 * kHalf) * (2 * kHalf) + 8 * pack + 4 * half + place % 4;
  }
};

template <typename T, int kSize>
using Strip = float[kDepth][Place<T, kSize>::kPitch];

// A block's shared memory.
template <typename T, typename Shape>
struct Strips {
  Strip<T, Shape::kRows> a[2];
  Strip<T, Shape::kColumns> b[2];
};

template <typename T, typename Shape>
struct Tile {
  static constexpr int kOwnRows = 8, kOwnColumns = Shape::kOwnColumns;
  // Of a thread's sums, neighbours in a row and in a column of the tile: a pack of 16-bit elements where there are 8.
  static constexpr int kRowsTogether = kPack<T>, kColumnsTogether = kOwnColumns == 8 ? kPack<T> : 4;

  float sums[kOwnRows][kOwnColumns] = {};

  // The row and the column within the tile of sums[i][j], for i and j that are multiples of 4; the next 3 follow.
  static __device__ __forceinline__ int row(int i) {
    const int down = lane() / 8, first = warp() / Shape::kWarpsAcross * Shape::kWarpRows;
    return first + (kRowsTogether == 8 ? 8 * down + i : 4 * down + 4 * i);
  }
  static __device__ __forceinline__ int column(int j) {
    const int across = lane() % 8, first = warp() % Shape::kWarpsAcross * Shape::kWarpColumns;
    return first + (kColumnsTogether == 8 ? 8 * across + j : 4 * across + 8 * j);
  }

  // All threads of a block call it; nobody may write the strips meanwhile.
  __device__ __forceinline__ void add(const Strip<T, Shape::kRows>& a, const Strip<T, Shape::kColumns>& b) {
    using Rows = Place<T, Shape::kRows>;
    using Columns = Place<T, Shape::kColumns>;
    const int row_places[2] = {Rows::of(row(0)), Rows::of(row(4))};
    const int column_places[2] = {Columns::of(column(0)), Columns::of(column(kOwnColumns - 4))};
#pragma unroll
    for (int line = 0; line < kDepth; ++line) {
      const Floats<4> left[2] = {load<4>(&a[line][row_places[0]]), load<4>(&a[line][row_places[1]])};
      Floats<4> right[2];
#pragma unroll
      for (int j = 0; j < kOwnColumns / 4; ++j) right[j] = load<4>(&b[line][column_places[j]]);
#pragma unroll
      for (int i = 0; i < kOwnRows; ++i) {
#pragma unroll
        for (int j = 0; j < kOwnColumns; ++j) sums[i][j] += left[i / 4][i % 4] * right[j / 4][j % 4];
      }
    }
  }

 private:
  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % 32; }
  static __device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / 32; }
};

// tile += a * b over `depth`, kDepth at a time. All threads of a block call it, once for each `strips`.
//
// An operand has fetch(), which starts the loads of a strip; put(strip), which stores what was fetched; and advance().
// They give zeros beyond their depth.
template <typename T, typename Shape, typename A, typename B>
__device__ __forceinline__ void multiply(Tile<T, Shape>& tile, Strips<T, Shape>& strips, A& a, B& b,
                                         std::int64_t depth) {
  if (depth <= 0) return;  // of the whole block
  a.fetch();
  b.fetch();
  a.put(strips.a[0]);
  b.put(strips.b[0]);
  __syncthreads();
  int current = 0;
  for (std::int64_t left = depth - kDepth;; left -= kDepth, current ^= 1) {
    if (left > 0) {
      a.advance();
      b.advance();
      a.fetch();
      b.fetch();
    }
    tile.add(strips.a[current], strips.b[current]);
    if (left <= 0) return;
    a.put(strips.a[current ^ 1]);  // which all have used, as of the barrier before
    b.put(strips.b[current ^ 1]);
    __syncthreads();
  }
}

}  // namespace gpucnn::gemm

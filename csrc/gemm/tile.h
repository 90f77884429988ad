// The core of every dense product: a block's tile of sums from strips of two operands in shared memory.
//
//     sums[i][j] += a[row i][depth d] * b[column j][depth d]   for d in order, float32
//
// An operand is a matrix of kSize lines of the tile (its rows, or its columns) by depth, in global memory as it likes:
// operands.h brings kDepth<T> of its depth at a time into shared memory, converted to float32. multiply() below is the
// loop; store.h stores what came out. To add a product: a kernel that makes two operands, calls multiply() and
// stores (matmul.cu is the shortest).
//
// Layout   strips are (kDepth<T>, kSize), so that a thread's neighbours in a sum are neighbours in memory. Two of each
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

// Of a strip: 2 packs, 32 bytes of what lies in memory along the depth.
template <typename T>
inline constexpr int kDepth = 2 * kPack<T>;

inline constexpr int kPad = 4;  // between the lines of a strip: depths 4 lines apart are 16 banks apart

// Where depth d of a strip lies, and which depth lies in a line. The halves of two packs of 8 alternate.
template <typename T>
__host__ __device__ constexpr int line_of(int d) {
  if constexpr (kPack<T> == 4) return d;
  return (d & 3) | (d & 4) << 1 | (d & 8) >> 1;
}

// Where the elements of a strip's line lie. Packs of 8 are cut: in 64 places, first the first halves of 8 packs, then
// the second halves: for a warp that reads both at once (kOwn of 4) turned by half a line of banks.
template <typename T, int kSize, int kOwn = 8>
struct Place {
  static constexpr int kHalf = kSize >= 64 ? 32 : 16, kTurn = kSize >= 64 && kOwn == 4 ? 4 : 0;
  static_assert(kSize % (2 * kHalf) == 0);

  static __host__ __device__ constexpr int of(int element) {
    if constexpr (kPack<T> == 4) return element;
    const int half = element / 4 % 2, pack = element % (2 * kHalf) / 8;
    return element / (2 * kHalf) * (2 * kHalf) + half * kHalf + 4 * (pack ^ half * kTurn) + element % 4;
  }

  // Of a pack of 8, the place of its second half, where its first half's is known.
  static __host__ __device__ constexpr int second(int first) { return (first ^ 4 * kTurn) + kHalf; }

  // The element in a place.
  static __host__ __device__ constexpr int element(int place) {
    if constexpr (kPack<T> == 4) return place;
    const int half = place / kHalf % 2, pack = place % kHalf / 4 ^ half * kTurn;
    return place / (2 * kHalf) * (2 * kHalf) + 8 * pack + 4 * half + place % 4;
  }
};

template <typename T, int kSize>
using Strip = float[kDepth<T>][kSize + kPad];

// A block's shared memory.
template <typename T, typename Shape>
struct Strips {
  Strip<T, Shape::kRows> a[2];
  Strip<T, Shape::kColumns> b[2];
};

template <typename T, typename Shape>
struct Tile {
  static constexpr int kOwnRows = 8, kOwnColumns = Shape::kOwnColumns;
  // Of a thread's sums, neighbours in a column and in a row of the tile: a pack of 16-bit elements where a row has 8.
  // In columns 4 lanes have 16 neighbours, whole sectors of float32 as of 16 bits, which parts of sums are not.
  static constexpr int kRowsTogether = 4, kColumnsTogether = kOwnColumns == 8 ? kPack<T> : 4;

  float sums[kOwnRows][kOwnColumns] = {};

  // The row and the column within the tile of sums[i][j], for i and j that are multiples of 4; the next 3 follow.
  static __device__ __forceinline__ int row(int i, unsigned thread = threadIdx.x) {
    const int down = lane(thread) / 8, first = warp(thread) / Shape::kWarpsAcross * Shape::kWarpRows;
    return first + 4 * down + 4 * i;
  }
  static __device__ __forceinline__ int column(int j, unsigned thread = threadIdx.x) {
    const int across = lane(thread) % 8, first = warp(thread) % Shape::kWarpsAcross * Shape::kWarpColumns;
    return first + (kColumnsTogether == 8 ? 8 * across + j : 4 * across + 8 * j);
  }

  // All threads of a block call it; nobody may write the strips meanwhile.
  __device__ __forceinline__ void add(const Strip<T, Shape::kRows>& a, const Strip<T, Shape::kColumns>& b) {
    using Rows = Place<T, Shape::kRows>;
    using Columns = Place<T, Shape::kColumns, kOwnColumns>;
    // 16 rows on; said so, as the compiler would keep both places.
    constexpr int kFurther = Rows::of(16) - Rows::of(0);
    static_assert(Rows::of(28) - Rows::of(12) == kFurther);
    const int top = Rows::of(row(0)), bottom = top + kFurther, left = Columns::of(column(0));
    const int right = kColumnsTogether == 8 ? Columns::second(left) : left + 32;
#pragma unroll
    for (int line = 0; line < kDepth<T>; ++line) {
      const Floats<4> down[2] = {load<4>(&a[line][top]), load<4>(&a[line][bottom])};
      Floats<4> across[kOwnColumns / 4];
      across[0] = load<4>(&b[line][left]);
      if constexpr (kOwnColumns == 8) across[1] = load<4>(&b[line][right]);
#pragma unroll
      for (int i = 0; i < kOwnRows; ++i) {
#pragma unroll
        for (int j = 0; j < kOwnColumns; ++j) sums[i][j] += down[i / 4][i % 4] * across[j / 4][j % 4];
      }
    }
  }

 private:
  static __device__ __forceinline__ int lane(unsigned thread) { return static_cast<int>(thread) % 32; }
  static __device__ __forceinline__ int warp(unsigned thread) { return static_cast<int>(thread) / 32; }
};

// tile += a * b over `depth`, in [0, 2^33]. All threads of a block call it, once for each `strips`.
//
// An operand has fetch(wanted), which starts the loads of a strip, or takes zeros where it is not wanted; put(strip),
// which stores what was fetched; and advance(). They give zeros beyond their depth.
template <typename T, typename Shape, typename A, typename B>
__device__ __forceinline__ void multiply(Tile<T, Shape>& tile, Strips<T, Shape>& strips, A& a, B& b,
                                         std::int64_t depth) {
  int left = static_cast<int>((depth + kDepth<T> - 1) / kDepth<T>);
  if (left <= 0) return;  // of the whole block
  a.fetch(true);
  b.fetch(true);
  a.put(strips.a[0]);
  b.put(strips.b[0]);
  __syncthreads();
  for (int current = 0;; current ^= 1) {
    const bool more = --left > 0;
    a.advance();
    b.advance();
    a.fetch(more);
    b.fetch(more);
    tile.add(strips.a[current], strips.b[current]);
    if (!more) return;
    a.put(strips.a[current ^ 1]);  // which all have used, as of the barrier before
    b.put(strips.b[current ^ 1]);
    __syncthreads();
  }
}

}  // namespace gpucnn::gemm

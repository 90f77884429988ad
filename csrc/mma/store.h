// What becomes of a tile's sums on tensor cores: stored as rows, whose columns are neighbours in memory, with a bias
// and ReLU. A thread has runs of neighbouring columns (strips.h), and stores each in one access of 16 bytes; columns
// that ldmatrix left in pairs are exchanged among the 4 lanes that have them first, or go 8 bytes at a time where they
// are float32 parts of a sum.
#pragma once

#include "common/epilogue.h"
#include "common/pack.h"
#include "gemm/store.h"
#include "mma/tile.h"
#include "simt/simt.h"

#include <cstdint>
#include <type_traits>

namespace gpucnn::mma {

// Lane t of four has word[u]; afterwards it has lane u's word[t].
__device__ __forceinline__ void exchange(unsigned (&word)[4]) {
  const unsigned lane = threadIdx.x;
#pragma unroll
  for (unsigned step = 1; step <= 2; step *= 2) {
    const bool upper = (lane & step) != 0;
#pragma unroll
    for (unsigned u = 0; u < 4; ++u) {
      if ((u & step) != 0) continue;
      const unsigned sent = upper ? word[u] : word[u | step];
      const unsigned received = __shfl_xor_sync(~0u, sent, static_cast<int>(step));
      word[u] = upper ? received : word[u];
      word[u | step] = upper ? word[u | step] : received;
    }
  }
}

// How many neighbours a thread stores together, and whether they have to be exchanged.
template <typename B, typename Out>
struct Runs {
  static constexpr bool kExchanged = B::kRun == 2 && sizeof(Out) == 2;
  static constexpr int kTogether = kExchanged ? 8 : B::kRun;
};

// An epilogue that changes nothing.
struct AsItIs {
  static __device__ __forceinline__ float offset(std::int64_t) { return 0.0f; }
  static __device__ __forceinline__ float clip(float value) { return value; }
};

// The sums of rows [first_row, rows) and columns [first_column, columns) of the block's tile: row r begins at
// out + offset(r), and is not stored where that is negative. Out is the type of the operands, or float for a part.
// wide: runs are stored at once, as addresses and columns allow it.
template <typename Out, typename Tile, typename Epilogue, typename Offset>
__device__ __forceinline__ void store_rows(const Tile& tile, Out* out, std::int64_t first_row, std::int64_t rows,
                                           std::int64_t first_column, std::int64_t columns, bool wide,
                                           const Epilogue& epilogue, const Offset& offset) {
  using A = typename Tile::A;
  using B = typename Tile::B;
  using Run = Runs<B, Out>;
  constexpr int kTogether = Run::kTogether, kGroups = kTogether / 2;  // fragments that a run is of
  const int lane = static_cast<int>(threadIdx.x) % 32, index = lane / 4, t = lane % 4;
#pragma unroll
  for (int first = 0; first < Tile::kAcross; first += kGroups) {
    const int stored = Run::kExchanged ? B::line(first + t, 0) : B::line(first, 2 * t);
    Floats<kTogether> added;
#pragma unroll
    for (int x = 0; x < kTogether; ++x) {
      const int group = Run::kExchanged ? x / 2 : B::group_of(x), e = Run::kExchanged ? x % 2 : B::index_of(x);
      const std::int64_t column = first_column + Tile::first_column() + B::line(first + group, 2 * t + e);
      added[x] = column < columns ? epilogue.offset(column) : 0.0f;
    }
    const std::int64_t column = first_column + Tile::first_column() + stored;
#pragma unroll
    for (int i = 0; i < Tile::kDown; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        Floats<kTogether> values;
#pragma unroll
        for (int x = 0; x < kTogether; ++x) {
          const int group = Run::kExchanged ? x / 2 : B::group_of(x), e = Run::kExchanged ? x % 2 : B::index_of(x);
          values[x] = epilogue.clip(tile.sums[i][first + group][2 * half + e] + added[x]);
        }
        gpucnn::detail::Access<Out, kTogether> access;
#pragma unroll
        for (int x = 0; x < kTogether; ++x) access.elements[x] = simt::from_float<Out>(values[x]);
        if constexpr (Run::kExchanged) {
          unsigned words[4] = {access.word.x, access.word.y, access.word.z, access.word.w};
          exchange(words);
          access.word = {words[0], words[1], words[2], words[3]};
        }
        const std::int64_t row = first_row + Tile::first_row() + A::line(2 * i + half, index);
        if (row >= rows) continue;
        const std::int64_t begin = offset(row);
        if (begin < 0) continue;
        Out* const at = out + (begin + column);
        if (wide) {
          if (column < columns) simt::store_global(at, access.word);
        } else {
#pragma unroll
          for (int x = 0; x < kTogether; ++x) {
            if (column + x < columns) at[x] = access.elements[x];
          }
        }
      }
    }
  }
}

}  // namespace gpucnn::mma

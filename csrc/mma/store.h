// What becomes of a tile's sums on tensor cores: stored as rows, whose columns are neighbours in memory, by way of an
// epilogue. A thread has runs of neighbouring columns (strips.h), and stores each in one access of 16 bytes; columns
// that ldmatrix left in pairs are exchanged among the 4 lanes that have them first, or go 8 bytes at a time where they
// are float32 parts of a sum.
#pragma once

#include "common/pack.h"
#include "gemm/store.h"
#include "mma/epilogue.h"
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

// A thread has two runs in a row, low and high. Afterwards, of two threads side by side, the even one has both low runs
// and the odd one both high ones, that of the even thread first: a store of both is of neighbours.
template <typename Access>
__device__ __forceinline__ void pair_up(Access (&run)[2]) {
  const bool odd = threadIdx.x % 2 != 0;
  const auto swapped = [odd](unsigned& low, unsigned& high) {
    const unsigned received = __shfl_xor_sync(~0u, odd ? low : high, 1);
    low = odd ? received : low;
    high = odd ? high : received;
  };
  swapped(run[0].word.x, run[1].word.x);
  swapped(run[0].word.y, run[1].word.y);
  swapped(run[0].word.z, run[1].word.z);
  swapped(run[0].word.w, run[1].word.w);
}

// How many neighbours a thread stores together, and whether they have to be exchanged; or whether two such runs of a
// thread are neighbours, which are stored with those of the thread beside it.
template <typename B, typename Out>
struct Runs {
  static constexpr bool kExchanged = B::kRun == 2 && sizeof(Out) == 2;
  static constexpr int kTogether = kExchanged || B::kRun > kPack<Out> ? kPack<Out> : B::kRun;
  static constexpr bool kPaired = !kExchanged && B::kRun == 2 * kTogether;
};

// A column's sums become sums * factor + offset.
struct Linear {
  float factor, offset;
};

template <typename T>
__device__ __forceinline__ Linear of_column(const Epilogue<T>& epilogue, std::int64_t column) {
  const float added = epilogue.bias == nullptr ? 0.0f : simt::to_float(epilogue.bias[column]);
  if (epilogue.scale == nullptr) return {1.0f, added};
  const float factor = epilogue.scale[column];
  return {factor, fmaf(added, factor, epilogue.shift[column])};
}

// What is stored of a sum; the residual counts where the epilogue has one.
template <typename T>
__device__ __forceinline__ float finished(const Epilogue<T>& epilogue, float sum, const Linear& linear,
                                          float residual) {
  float value = fmaf(sum, linear.factor, linear.offset);
  if (epilogue.residual != nullptr) value += residual;
  return epilogue.relu && value < 0.0f ? 0.0f : value;  // a NaN stays one
}

// An epilogue that changes nothing: of gradients, and of parts of a sum.
struct AsItIs {};

// A run of which the elements from `count` on do not exist: all or none where it is wide.
template <typename Out, int kCount>
__device__ __forceinline__ void fetch(gpucnn::detail::Access<Out, kCount>& run, const Out* at, std::int64_t count,
                                      bool wide) {
  using Word = decltype(run.word);
  if (wide) {
    run.word = simt::load_if<Word>(count > 0, reinterpret_cast<const Word*>(at), Word{});
  } else {
#pragma unroll
    for (int x = 0; x < kCount; ++x) run.elements[x] = simt::load_if(x < count, at + x, simt::from_float<Out>(0.0f));
  }
}

// As store_rows(), of float32 as it is, two runs of a thread at a time.
template <typename Tile, typename Offset>
__device__ __forceinline__ void store_paired_rows(const Tile& tile, float* out, std::int64_t first_row,
                                                  std::int64_t rows, std::int64_t first_column, std::int64_t columns,
                                                  bool wide, const Offset& offset) {
  using A = typename Tile::A;
  using B = typename Tile::B;
  using Access = gpucnn::detail::Access<float, 4>;
  const int lane = static_cast<int>(threadIdx.x) % 32, index = lane / 4, even = lane % 4 / 2 * 2, odd = lane % 2;
#pragma unroll
  for (int first = 0; first < Tile::kAcross; first += 4) {
    const std::int64_t column = first_column + Tile::first_column() + B::line(first, 2 * even) + 4 * odd;
#pragma unroll
    for (int i = 0; i < Tile::kDown; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        Access runs[2];
#pragma unroll
        for (int x = 0; x < 8; ++x) {
          runs[x / 4].elements[x % 4] = tile.sums[i][first + B::group_of(x)][2 * half + B::index_of(x)];
        }
        pair_up(runs);
        const std::int64_t row = first_row + Tile::first_row() + A::line(2 * i + half, index);
        const std::int64_t begin = row < rows ? offset(row) : -1;
        if (begin < 0) continue;
#pragma unroll
        for (int of = 0; of < 2; ++of) {  // what the even one of the two had, and the odd one
          const std::int64_t at = column + 8 * of;
          if (wide) {
            if (at < columns) simt::store_global(out + (begin + at), runs[of].word);
          } else {
#pragma unroll
            for (int x = 0; x < 4; ++x) {
              if (at + x < columns) out[begin + at + x] = runs[of].elements[x];
            }
          }
        }
      }
    }
  }
}

// The sums of rows [first_row, rows) and columns [first_column, columns) of the block's tile: row r begins at
// out + offset(r), and is not stored where that is negative. Out is the type of the operands, or float for a part.
// wide: runs are stored at once, and residuals read so, as addresses and columns allow it. What was stored is in the
// tile's sums then, if the epilogue takes moments.
template <typename Out, typename Tile, typename Epilogue, typename Offset>
__device__ __forceinline__ void store_rows(Tile& tile, Out* out, std::int64_t first_row, std::int64_t rows,
                                           std::int64_t first_column, std::int64_t columns, bool wide,
                                           const Epilogue& epilogue, const Offset& offset) {
  using A = typename Tile::A;
  using B = typename Tile::B;
  using Run = Runs<B, Out>;
  using Access = gpucnn::detail::Access<Out, Run::kTogether>;
  constexpr bool kPlain = std::is_same_v<Epilogue, AsItIs>;
  constexpr int kTogether = Run::kTogether, kGroups = kTogether / 2;  // fragments that a run is of
  constexpr int kInFlight = 2;
  static_assert(kPlain || (!Run::kExchanged && !Run::kPaired), "residuals lie as a thread stores them");
  if constexpr (Run::kPaired) {
    store_paired_rows(tile, out, first_row, rows, first_column, columns, wide, offset);
    return;
  }
  const int lane = static_cast<int>(threadIdx.x) % 32, index = lane / 4, t = lane % 4;
#pragma unroll
  for (int first = 0; first < Tile::kAcross; first += kGroups) {
    const int stored = Run::kExchanged ? B::line(first + t, 0) : B::line(first, 2 * t);
    Linear linear[kPlain ? 1 : kTogether];
    const std::int64_t column = first_column + Tile::first_column() + stored;
    if constexpr (!kPlain) {
#pragma unroll
      for (int x = 0; x < kTogether; ++x) {
        linear[x] = column + x < columns ? of_column(epilogue, column + x) : Linear{};
      }
    }
    const auto begin_of = [&](int i, int half) {
      const std::int64_t row = first_row + Tile::first_row() + A::line(2 * i + half, index);
      return row < rows ? offset(row) : std::int64_t{-1};
    };
    // The residuals of kInFlight fragments' rows are on their way before the first is waited for.
#pragma unroll
    for (int i0 = 0; i0 < Tile::kDown; i0 += kInFlight) {
      Access residuals[kPlain ? 1 : kInFlight][2];
      if constexpr (!kPlain) {
        if (epilogue.residual != nullptr) {
#pragma unroll
          for (int i = 0; i < kInFlight; ++i) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
              const std::int64_t begin = begin_of(i0 + i, half);
              fetch(residuals[i][half], epilogue.residual + (begin + column), begin < 0 ? 0 : columns - column, wide);
            }
          }
        }
      }
#pragma unroll
      for (int i = i0; i < i0 + kInFlight; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          Access access;
#pragma unroll
          for (int x = 0; x < kTogether; ++x) {
            const int group = Run::kExchanged ? x / 2 : B::group_of(x), e = Run::kExchanged ? x % 2 : B::index_of(x);
            float& sum = tile.sums[i][first + group][2 * half + e];
            if constexpr (kPlain) {
              access.elements[x] = simt::from_float<Out>(sum);
            } else {
              const float residual = simt::to_float(residuals[i - i0][half].elements[x]);
              access.elements[x] = simt::from_float<Out>(finished(epilogue, sum, linear[x], residual));
              if (epilogue.moments != nullptr) sum = simt::to_float(access.elements[x]);
            }
          }
          if constexpr (Run::kExchanged) {
            unsigned words[4] = {access.word.x, access.word.y, access.word.z, access.word.w};
            exchange(words);
            access.word = {words[0], words[1], words[2], words[3]};
          }
          const std::int64_t begin = begin_of(i, half);
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
}

}  // namespace gpucnn::mma

// y[o,i] = finish(combine over r of term(x[o,r,i])): the two kernels of all reductions. For .cu files that list them;
// menus and bindings include reduction.h.
//
// Layout   x (outer, reduced, inner), y (outer, inner), partial (outer, splits, inner).
// Rows     inner = 1: terms of a result lie together. A group of 1 to 32 lanes has a row, or a block of 256 threads one
//          split of it; lanes read neighbouring packs of 16 bytes. Combined by shuffles, then over the block's warps.
// Columns  inner > 1: a block has up to 32 neighbouring packs of columns and 8 or more rows of threads, each of which
//          goes down every so-many-th row: a warp reads up to 512 contiguous bytes. Combined over the rows of threads
//          by a tree in shared memory, whose accesses are to neighbouring words. What belongs to columns is read and
//          written by as many threads as there are columns, so that a warp's accesses have no gaps.
// Order    fixed by `reduced`, `inner` and the type.
// Limits   sizes: outer * splits and the tiles of columns below 2^62, reduced below 2^61; where a row, or a row of
//          columns, is no multiple of 16 bytes or begins elsewhere, elements are read one by one.
// Bound    memory: x once, y once, partial twice and 1/100 of x or less. Sum of N32 C256 56x56 float32 over N, H and W,
//          103 MB, takes 34 us at the 3.0 TB/s that an H100 copies at, and a second launch.
// Measured not run on hardware yet.
#pragma once

#include "common/index.h"
#include "common/pack.h"
#include "common/reduce.h"
#include "reduction/reduction.h"
#include "simt/simt.h"

#include <algorithm>
#include <cstdint>

namespace gpucnn {
namespace detail {

inline constexpr int kReduceThreads = 256;
inline constexpr std::int64_t kMostBlocks = 132 * 8 * 4;  // more go over the grid in passes

inline constexpr std::int64_t kRowSplit = 8192;  // terms of a split, unless there would be too many
inline constexpr std::int64_t kMostRowSplits = 4096;
inline constexpr std::int64_t kRowsOfABlock = 2048;  // longer rows have a block each
inline constexpr std::int64_t kColumnSplit = 128;
inline constexpr std::int64_t kMostColumnSplits = 512;

// What a result is relative to, and where it goes.
struct Results {
  const void* centre;
  Storage centre_storage;
  Finish finish;
  float finish_by;
  float* partial;  // if not null, unfinished results go here
  void* y;
  Storage storage;

  __device__ __forceinline__ float finished(float value, float centre_value) const {
    if (finish == Finish::divide) value = value / finish_by;
    if (finish == Finish::root) value = sqrtf(value / finish_by);
    if (finish == Finish::log) value = logf(value) + centre_value;
    if (finish == Finish::power) value = powf(value, finish_by);
    return value;
  }

  // Result i.
  __device__ __forceinline__ void write(std::int64_t i, float value, float centre_value) const {
    if (partial != nullptr) {
      partial[i] = value;
      return;
    }
    value = finished(value, centre_value);
    if (storage == Storage::float32) static_cast<float*>(y)[i] = value;
    if (storage == Storage::float16) static_cast<simt::half*>(y)[i] = simt::from_float<simt::half>(value);
    if (storage == Storage::bfloat16) static_cast<simt::bfloat16*>(y)[i] = simt::from_float<simt::bfloat16>(value);
  }

  __device__ __forceinline__ float centre_at(std::int64_t i) const {
    if (centre == nullptr) return 0.0f;
    if (centre_storage == Storage::float32) return static_cast<const float*>(centre)[i];
    if (centre_storage == Storage::float16) return simt::to_float(static_cast<const simt::half*>(centre)[i]);
    return simt::to_float(static_cast<const simt::bfloat16*>(centre)[i]);
  }
};

struct Rows {
  std::int64_t reduced, split;  // terms in all and of each split but the last
  Divisor splits;
  std::int64_t items;  // rows * splits
  int lanes, shift;    // of a group: 2^shift
  bool in_packs;
};

template <typename F, typename T>
__global__ void __launch_bounds__(kReduceThreads, 4)
    reduce_rows_kernel(const T* __restrict__ x, const Rows p, float exponent, const Results results) {
  const int lane = static_cast<int>(threadIdx.x) & (p.lanes - 1);
  const int groups = kReduceThreads >> p.shift;  // of the block
  const auto combine = [](float a, float b) { return F::combine(a, b); };
  for (std::int64_t base = std::int64_t{blockIdx.x} * groups; base < p.items;
       base += std::int64_t{gridDim.x} * groups) {
    const std::int64_t item = base + (threadIdx.x >> p.shift);  // [0, items), or beyond in the last pass
    const bool active = item < p.items;
    float result = F::kStart, centre = 0.0f;
    if (active) {
      const Quotient at = p.splits.divide(item);
      const T* row = x + at.whole * p.reduced;
      const std::int64_t begin = at.rest * p.split, end = min(begin + p.split, p.reduced);
      centre = F::centre(results.centre_at(at.whole));
      Floats<kPack<T>> sums;
#pragma unroll
      for (int j = 0; j < kPack<T>; ++j) sums[j] = F::kStart;
      if (p.in_packs) {
#pragma unroll 4
        for (std::int64_t r = begin + lane * kPack<T>; r < end; r += p.lanes * kPack<T>) {
          const Floats<kPack<T>> values = load<kPack<T>>(row + r);
#pragma unroll
          for (int j = 0; j < kPack<T>; ++j) sums[j] = F::combine(sums[j], F::term(values[j], centre, exponent));
        }
      } else {
#pragma unroll 4
        for (std::int64_t r = begin + lane; r < end; r += p.lanes) {
          sums[0] = F::combine(sums[0], F::term(simt::to_float(row[r]), centre, exponent));
        }
      }
#pragma unroll
      for (int width = kPack<T> / 2; width > 0; width /= 2) {
#pragma unroll
        for (int j = 0; j < width; ++j) sums[j] = F::combine(sums[j], sums[j + width]);
      }
      result = sums[0];
    }
    if (p.lanes == kReduceThreads) {
      result = block_reduce<kReduceThreads>(result, combine);
    } else {
      for (int distance = p.lanes / 2; distance > 0; distance /= 2) {
        result = F::combine(result, __shfl_xor_sync(0xffffffffu, result, distance));
      }
    }
    if (active && lane == 0) results.write(item, result, centre);
  }
}

struct Columns {
  std::int64_t reduced, inner, split;
  Divisor splits, tiles;  // a tile: as many columns as a block has at a time
  std::int64_t items;     // outer * splits * tiles
  int lanes, shift;       // packs of columns in a tile: 2^shift
  bool in_packs;
};

// From the column number i of all threads in shared memory to the next: so much more than a multiple of the banks that
// neither packs side by side nor columns side by side share one.
template <typename T>
inline constexpr int kColumnPitch = kReduceThreads + 32 / kPack<T>;

template <typename F, typename T>
__global__ void __launch_bounds__(kReduceThreads, 4)
    reduce_columns_kernel(const T* __restrict__ x, const Columns p, float exponent, const Results results) {
  constexpr int kWidth = kPack<T>, kAhead = kWidth > 4 ? 2 : 4;  // loads under way: more of 16 bits would spill
  SIMT_SHARED(float, shared, [kWidth][kColumnPitch<T>]);
  const int thread = static_cast<int>(threadIdx.x), lane = thread & (p.lanes - 1), row = thread >> p.shift;
  const int rows = kReduceThreads >> p.shift;
  // Where a column of the tile lies in shared memory: a thread's are side by side in packs, else those of its
  // neighbours.
  const auto place = [&](int column) {
    const int number = p.in_packs ? column % kWidth : column >> p.shift;
    const int owner = p.in_packs ? column / kWidth : column & (p.lanes - 1);
    return &shared[number][owner];
  };
  for (std::int64_t item = blockIdx.x; item < p.items; item += gridDim.x) {
    const Quotient tile = p.tiles.divide(item);
    const Quotient part = p.splits.divide(tile.whole);  // whole: [0, outer); rest: [0, splits)
    const std::int64_t first = std::int64_t{tile.rest} * p.lanes * kWidth;
    const int columns = static_cast<int>(min(std::int64_t{p.lanes} * kWidth, p.inner - first));  // of the tile
    const std::int64_t begin = part.rest * p.split, end = min(begin + p.split, p.reduced);
    const T* const top = x + part.whole * p.reduced * p.inner + first;
    const auto centre_at = [&](int column) {
      return F::centre(results.centre_at(part.whole * p.inner + first + column));
    };
    Floats<kWidth> sums, centres{};
    if (results.centre != nullptr) {  // read along the columns, without gaps, and then taken in packs
      __syncthreads();                // what was read for the item before may be overwritten
      for (int i = thread; i < columns; i += kReduceThreads) *place(i) = centre_at(i);
      __syncthreads();
    }
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const int column = p.in_packs ? lane * kWidth + j : j * p.lanes + lane;
      if (results.centre != nullptr && column < columns) centres[j] = shared[j][lane];
      sums[j] = F::kStart;
    }
    if (p.in_packs) {
      if (lane * kWidth < columns) {
#pragma unroll kAhead
        for (std::int64_t r = begin + row; r < end; r += rows) {
          const Floats<kWidth> values = load<kWidth>(top + r * p.inner + lane * kWidth);
#pragma unroll
          for (int j = 0; j < kWidth; ++j) sums[j] = F::combine(sums[j], F::term(values[j], centres[j], exponent));
        }
      }
    } else {
      for (std::int64_t r = begin + row; r < end; r += rows) {
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
          const int column = j * p.lanes + lane;
          if (column < columns) {
            sums[j] = F::combine(sums[j], F::term(simt::to_float(top[r * p.inner + column]), centres[j], exponent));
          }
        }
      }
    }
    for (int half = rows / 2; half > 0; half /= 2) {
      __syncthreads();  // what was read in the step before may be overwritten
      if (row >= half && row < 2 * half) {
#pragma unroll
        for (int j = 0; j < kWidth; ++j) shared[j][thread] = sums[j];
      }
      __syncthreads();
      if (row < half) {
#pragma unroll
        for (int j = 0; j < kWidth; ++j) sums[j] = F::combine(sums[j], shared[j][thread + half * p.lanes]);
      }
    }
    __syncthreads();
    if (row == 0) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) shared[j][lane] = sums[j];
    }
    __syncthreads();
    for (int i = thread; i < columns; i += kReduceThreads) {
      results.write(tile.whole * p.inner + first + i, *place(i), centre_at(i));
    }
  }
}

// The smallest power of two, at most 2^most, that is `count` or more.
inline int shift_of(std::int64_t count, int most) {
  int shift = 0;
  while (shift < most && std::int64_t{1} << shift < count) ++shift;
  return shift;
}

inline unsigned grid_of(std::int64_t blocks) {
  return static_cast<unsigned>(std::min(blocks, kMostBlocks));
}

// One launch over x, into `results` of as many splits.
template <typename F, typename T>
simt::Status reduce_once(const T* x, const ReduceArguments& a, std::int64_t splits, const Results& results,
                         simt::Stream stream) {
  constexpr int kWidth = kPack<T>;
  const std::int64_t even = (a.reduced + splits - 1) / splits;
  const std::int64_t split = std::max<std::int64_t>(1, (even + kWidth - 1) / kWidth * kWidth);  // whole packs
  if (a.inner == 1) {
    // A lane has 8 terms, but no fewer than 32 bytes are read together.
    const std::int64_t lanes = a.reduced > kWidth ? std::max<std::int64_t>(2, blocks_of(8, a.reduced)) : 1;
    const int shift = a.reduced > kRowsOfABlock ? 8 : shift_of(lanes, 5);
    const bool in_packs = are_aligned(x) && a.reduced % kWidth == 0;
    const Rows p{a.reduced, split, divisor_of(splits), a.outer * splits, 1 << shift, shift, in_packs};
    const auto blocks = grid_of(blocks_of(kReduceThreads >> shift, p.items));
    return simt::launch(reduce_rows_kernel<F, T>, dim3(blocks), dim3(kReduceThreads), 0, stream, x, p, a.exponent,
                        results);
  }
  const std::int64_t packs = blocks_of(kWidth, a.inner);
  const int shift = shift_of(packs, 5);
  const std::int64_t tiles = blocks_of(std::int64_t{1} << shift, packs);
  const bool in_packs = are_aligned(x) && a.inner % kWidth == 0;
  const Columns p{a.reduced,  a.inner, split,   divisor_of(splits), divisor_of(tiles), a.outer * splits * tiles,
                  1 << shift, shift,   in_packs};
  return simt::launch(reduce_columns_kernel<F, T>, dim3(grid_of(p.items)), dim3(kReduceThreads), 0, stream, x, p,
                      a.exponent, results);
}

// Both launches. F::finish_partials puts the splits' results together.
template <typename F, typename T>
simt::Status reduce(const ReduceArguments& a, simt::Stream stream) {
  const std::int64_t splits = reduction_splits(a.reduced, a.inner);
  Results results{a.centre, a.centre_storage, a.finish, a.finish_by, nullptr, a.y, a.y_storage};
  const T* const x = static_cast<const T*>(a.x);
  if (splits == 1) return reduce_once<F, T>(x, a, 1, results, stream);
  results.partial = a.partial;
  if (const auto status = reduce_once<F, T>(x, a, splits, results, stream); status != simt::kSuccess) return status;
  ReduceArguments rest = a;
  rest.x = a.partial;
  rest.reduced = splits;
  return F::finish_partials(rest, stream);
}

// The launch over partial results, float (outer, reduced, inner).
template <typename F>
simt::Status reduce_partials(const ReduceArguments& a, simt::Stream stream) {
  const Results results{a.centre, a.centre_storage, a.finish, a.finish_by, nullptr, a.y, a.y_storage};
  return reduce_once<F, float>(static_cast<const float*>(a.x), a, 1, results, stream);
}

}  // namespace detail

// Sums of term(x, centre, exponent).
struct Adding {
  static constexpr float kStart = 0.0f;
  __device__ static float combine(float a, float b) { return a + b; }
  __device__ static float centre(float value) { return value; }
  static simt::Status finish_partials(const ReduceArguments& a, simt::Stream stream) { return add_partials(a, stream); }
};

template <typename F>
constexpr ReduceFunction reduction(const char* name, bool has_centre = false) {
  return {name, has_centre, &detail::reduce<F, float>, &detail::reduce<F, simt::half>,
          &detail::reduce<F, simt::bfloat16>};
}

}  // namespace gpucnn

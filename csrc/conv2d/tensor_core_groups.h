// Convolutions in groups as products on tensor cores. For .cu files.
//
// A tile's columns are filters (of dgrad: channels) of several neighbouring groups, which are merged into one: its
// depth are the channels of all of them, and where a filter is not of a channel's group it meets a zero, which is made
// up as it comes into shared memory. So of m groups every product but one in m is with a zero. A strip of 64 bytes of a
// tile of 256 windows and 32 filters takes 360 instructions of a warp, and about as many cycles of shared memory, so
// that groups of n filters have 22 n products a cycle and multiprocessor of 16 bits, 11 n of TF32, 3 n of float32 that
// is split, up to 32 filters.
//
// Layout   images are read as they lie, C (or K) channels from pixel to pixel, of which a block sees those of its
//          groups in units of 16 bytes; filters element by element (mma/operands.h).
// Limits   C and K in whole units of 16 bytes; images aligned to 16 bytes.
//
// A zero times infinity is no zero. So sums that are not finite are computed once more, of their own group alone.
#pragma once

#include "common/pack.h"
#include "conv2d/gather.h"
#include "conv2d/tensor_core_limits.h"
#include "mma/launch.h"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace gpucnn {

// Neighbouring groups that are merged.
struct MergedGroups {
  int groups, channels, filters;  // all; of one of them
  int merged;                     // at once
  int count;                      // of merged ones: the last may be of fewer

  // As many as have `lines` each in a tile of `tile` columns, in whole units of 16 bytes of every dtype.
  static MergedGroups of(const Conv2dProblem& p, std::int64_t lines, std::int64_t tile) {
    constexpr std::int64_t kUnit = 8;
    const std::int64_t whole = std::lcm(kUnit / std::gcd(kUnit, p.channels()), kUnit / std::gcd(kUnit, p.filters()));
    const std::int64_t merged = std::min(std::max(tile / lines / whole, std::int64_t{1}) * whole, p.groups);
    return {static_cast<int>(p.groups), static_cast<int>(p.channels()), static_cast<int>(p.filters()),
            static_cast<int>(merged), static_cast<int>(blocks_of(merged, p.groups))};
  }

  // From merged group number `index` on.
  __device__ __forceinline__ int first(int index) const { return index * merged; }
  __device__ __forceinline__ int existing(int index) const { return min(merged, groups - first(index)); }
};

// Which of a merged group's tiles a block owns: columns before groups before rows, so that blocks side by side share
// the images' pixels.
struct GroupTile {
  int group, column;
};

template <typename Shape>
__device__ __forceinline__ GroupTile group_tile(unsigned index, unsigned tiles_of_group) {
  return {static_cast<int>(index / tiles_of_group), static_cast<int>(index % tiles_of_group) * Shape::kColumns};
}

// The filters of a merged group: lines of as many depths, both in runs of a group, of which those on the diagonal
// exist.
template <typename T, int kStep>
struct GroupFilters {
  const T* data;                    // the first group's first weight that takes part
  int lines;                        // of all groups that exist
  int lines_each, depths_each;      // of a group
  std::int64_t group, line, depth;  // offsets from one to the next
  int down, across;                 // from a tap to the next
  TapGrid<T, true, kStep> taps;

  template <typename Lines>
  struct State {
    static_assert(Lines::kCount == 1);
    const T* at;
    int first;  // depth of the line's group
    TapAt tap;
  };

  __device__ __forceinline__ const T* first_of(int number) const {
    return data + (number / lines_each * group + number % lines_each * line);
  }
  __device__ __forceinline__ std::int64_t offset(const TapAt& tap, int depth_of_group) const {
    return std::int64_t{tap.down} * down + std::int64_t{tap.across} * across + depth_of_group * depth;
  }

  template <typename Lines>
  __device__ __forceinline__ State<Lines> state(std::int64_t number, std::int64_t begin) const {
    const int mine = static_cast<int>(number);
    constexpr int kNever = 0x7fffffff;
    return {first_of(mine), mine < lines ? mine / lines_each * depths_each : kNever, taps.at(static_cast<int>(begin))};
  }
  template <typename Lines>
  __device__ __forceinline__ void advance(State<Lines>& state) const {
    taps.advance(state.tap);
  }
  // Within a unit, which lies in one tap: groups are merged in whole ones.
  template <typename Lines>
  __device__ __forceinline__ void next(State<Lines>& state) const {
    ++state.tap.channel;
  }
  template <typename Lines>
  __device__ __forceinline__ bool find(const State<Lines>& state, int, const T** at) const {
    const int own = state.tap.channel - state.first;
    *at = state.at + offset(state.tap, own);
    return static_cast<unsigned>(own) < static_cast<unsigned>(depths_each) && taps.contains(state.tap);
  }
};

// Of window `row` with line `number` of the filters, in float32, over the line's group alone.
template <typename Windows, typename T, int kStep>
__device__ __forceinline__ float own_sum(const Windows& x, const GroupFilters<T, kStep>& w, std::int64_t row,
                                         int number) {
  const Pixel window = x.windows.pixel(row);
  const T* const weights = w.first_of(number);
  const int channel = number / w.lines_each * w.depths_each;
  float sum = 0.0f;
  for (TapAt tap{0, 0, 0}; tap.down < w.taps.down; ++tap.down) {
    for (tap.across = 0; tap.across < w.taps.across; ++tap.across) {
      const int cell_row = x.down.origin + window.row * x.down.stride + tap.down * x.down.step;
      const int cell_column = x.across.origin + window.column * x.across.stride + tap.across * x.across.step;
      const bool inside = x.down.contains(cell_row) && x.across.contains(cell_column);
      const std::int64_t cell = (window.image * x.down.size + cell_row) * x.across.size + cell_column;
      for (int d = 0; d < w.depths_each; ++d) {
        const T* const at = x.data + (cell * x.pitch + channel + d);
        const float value = simt::to_float(simt::load_if(inside, at, simt::from_float<T>(0.0f)));
        sum = fmaf(value, simt::to_float(weights[w.offset(tap, d)]), sum);
      }
    }
  }
  return sum;
}

// Sums of the tile that are not finite become sum_of(row, column), of those of its rows and columns that exist. shared:
// the block's ring, which has been multiplied. All threads of the block call it.
template <typename Tile, typename Function>
__device__ __forceinline__ void revise(Tile& tile, float* shared, std::int64_t rows, int columns,
                                       const Function& sum_of) {
  constexpr int kSums = Tile::kDown * Tile::kAcross * 4, kThreads = Tile::Shape::kThreads;
  static_assert(kSums * kThreads * sizeof(float) <= Tile::Shape::kSharedBytes);
  float* const mine = shared + threadIdx.x;
  float zero = 0.0f;
#pragma unroll
  for (int n = 0; n < kSums; ++n)
    zero = fmaf(tile.sums[n / 4 / Tile::kAcross][n / 4 % Tile::kAcross][n % 4], 0.0f, zero);
  __syncthreads();  // all are done with the ring
  if (zero == 0.0f) return;
#pragma unroll
  for (int n = 0; n < kSums; ++n) mine[n * kThreads] = tile.sums[n / 4 / Tile::kAcross][n / 4 % Tile::kAcross][n % 4];
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll 1
  for (int n = 0; n < kSums; ++n) {
    const int fragment = n / 4, half = n % 4 / 2, e = n % 2;
    const int row = Tile::first_row() + Tile::A::line(2 * (fragment / Tile::kAcross) + half, lane / 4);
    const int column = Tile::first_column() + Tile::B::line(fragment % Tile::kAcross, lane % 4 * 2 + e);
    if (mine[n * kThreads] * 0.0f != 0.0f && row < rows && column < columns) mine[n * kThreads] = sum_of(row, column);
  }
#pragma unroll
  for (int n = 0; n < kSums; ++n) tile.sums[n / 4 / Tile::kAcross][n / 4 % Tile::kAcross][n % 4] = mine[n * kThreads];
}

// Throws std::invalid_argument, which Python sees as ValueError, unless images can be read in units of 16 bytes.
template <typename T>
void require_whole_groups(const Conv2dProblem& p, bool aligned) {
  for (const std::int64_t size : {p.C, p.K}) {
    if (size % kPack<T> == 0) continue;
    throw std::invalid_argument("conv2d: the tensor_core kernel needs channels that are multiples of " +
                                std::to_string(kPack<T>) + " for groups, got " + std::to_string(size));
  }
  if (!aligned)
    throw std::invalid_argument("conv2d: the tensor_core kernel needs images aligned to 16 bytes for groups");
}

// The shape of the tiles of y and dx, and of those of dw.
template <typename Arithmetic>
using GroupShape = std::conditional_t<std::is_same_v<Arithmetic, mma::Split>, mma::SplitSlim, mma::Slim>;
template <typename Arithmetic>
using GroupWeightsShape = std::conditional_t<std::is_same_v<Arithmetic, mma::Split>, mma::SplitSmall, mma::Broad>;

}  // namespace gpucnn

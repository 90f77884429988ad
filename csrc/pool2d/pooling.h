// What the kernels of a pooling are told of it, and which windows hold a cell. For .cu files.
#pragma once

#include "common/index.h"
#include "common/pixels.h"
#include "common/problem.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {

// One axis of the windows. Its steps as divisors too: a cell finds its windows by dividing.
struct PoolAxis : Axis {
  Divisor by_stride, by_dilation;

  // The first tap of a window that is not before the image, given the cell under tap 0.
  __device__ __forceinline__ int first_tap(int cell) const {
    return cell < 0 ? static_cast<int>(by_dilation.divide(std::int64_t{dilation} - 1 - cell).whole) : 0;
  }

  // From the first cell of a window to its last.
  __device__ __forceinline__ int reach() const { return (kernel - 1) * dilation; }

  __device__ __forceinline__ int nearest_cell(int cell) const { return min(max(cell, 0), size - 1); }
};

// The windows that may hold a cell, by rising tap: `window`, then the one before it, and so on, as long as holds().
struct Meeting {
  int window;    // may fall below 0
  int distance;  // of the cell from the window's first one

  __device__ __forceinline__ bool holds(const PoolAxis& axis) const { return window >= 0 && distance <= axis.reach(); }
  __device__ __forceinline__ void next(const PoolAxis& axis) {
    if (window > 0) distance += axis.stride;  // of window 0 there is no next, and no room in an int for it
    --window;
  }
};

__device__ __forceinline__ Meeting first_meeting(const PoolAxis& axis, int cell) {
  const int window = min(static_cast<int>(axis.by_stride.divide(cell + axis.padding).whole), axis.outputs - 1);
  return {window, cell + axis.padding - window * axis.stride};
}

// A Pool2dProblem in the numbers that kernels compute with.
struct Pooling {
  PoolAxis vertical, horizontal;
  PackedImages x, y;
};

// `each` channels a thread.
inline Pooling pooling_of(const Pool2dProblem& p, int each) {
  return {{vertical_axis(p), divisor_of(p.stride.vertical), divisor_of(p.dilation.vertical)},
          {horizontal_axis(p), divisor_of(p.stride.horizontal), divisor_of(p.dilation.horizontal)},
          packed_images(p.N, p.H, p.W, p.C, each),
          packed_images(p.N, p.P, p.Q, p.C, each)};
}

// Windows of 2 x 2 and 3 x 3 taps beside each other have kernels in which all loads of a thread are under way at once:
// 2 and 3; 0 for any other.
inline int square_taps(const Pool2dProblem& p) {
  const bool square = p.R == p.S && (p.R == 2 || p.R == 3) && p.dilation.vertical == 1 && p.dilation.horizontal == 1;
  return square ? static_cast<int>(p.R) : 0;
}

// Likewise where a cell is in at most 1 or 2 windows along either axis: 1 and 2; 0 for any other.
inline int most_windows(const Pool2dProblem& p) {
  if (p.dilation.vertical != 1 || p.dilation.horizontal != 1) return 0;
  if (p.R <= p.stride.vertical && p.S <= p.stride.horizontal) return 1;
  return p.R <= 2 * p.stride.vertical && p.S <= 2 * p.stride.horizontal ? 2 : 0;
}

}  // namespace gpucnn

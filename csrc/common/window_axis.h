// Which windows hold a cell: for kernels that gather what windows hand back. For .cu files.
#pragma once

#include "common/index.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {

// One axis of the windows. Its steps as divisors too: a cell finds its windows by dividing.
struct WindowAxis : Axis {
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

  __device__ __forceinline__ bool holds(const WindowAxis& axis) const {
    return window >= 0 && distance <= axis.reach();
  }
  __device__ __forceinline__ void next(const WindowAxis& axis) {
    if (window > 0) distance += axis.stride;  // of window 0 there is no next, and no room in an int for it
    --window;
  }
};

__device__ __forceinline__ Meeting first_meeting(const WindowAxis& axis, int cell) {
  const int window = min(static_cast<int>(axis.by_stride.divide(cell + axis.padding).whole), axis.outputs - 1);
  return {window, cell + axis.padding - window * axis.stride};
}

inline WindowAxis window_axis(const Axis& axis) {
  return {axis, divisor_of(axis.stride), divisor_of(axis.dilation)};
}

}  // namespace gpucnn

// What the kernels of a convolution are told of it, and where its windows and taps lie. For .cu files.
#pragma once

#include "common/index.h"
#include "common/problem.h"
#include "simt/simt.h"

#include <cstdint>
#include <stdexcept>
#include <string>

namespace gpucnn {

// A Conv2dProblem in the numbers that kernels compute with.
struct Geometry {
  Axis vertical, horizontal;
  Images x, y;  // of C and of K channels
  int groups;
  int channels, filters;   // of one group: C / groups and K / groups
  Divisor weights;         // of one filter, R * S * channels
  std::int64_t positions;  // windows, N * P * Q
  std::int64_t pixels;     // N * H * W
};

inline Geometry geometry_of(const Conv2dProblem& p) {
  return {vertical_axis(p),
          horizontal_axis(p),
          images_of(p.H, p.W, p.C),
          images_of(p.P, p.Q, p.K),
          static_cast<int>(p.groups),
          static_cast<int>(p.channels()),
          static_cast<int>(p.filters()),
          divisor_of(p.weights()),
          p.positions(),
          p.N * p.H * p.W};
}

// Throws std::invalid_argument, which Python sees as ValueError, for a convolution in groups.
inline void require_dense(const Conv2dProblem& p) {
  if (p.groups != 1) throw std::invalid_argument("conv2d: the kernel needs groups=1, got " + std::to_string(p.groups));
}

// The cell under a window's first tap, which may lie in the padding.
struct Corner {
  std::int64_t offset;  // of its first channel in x
  int row, column;
};

// Of window number `position`, in [0, positions).
__device__ __forceinline__ Corner corner_of(const Geometry& g, std::int64_t position) {
  const Pixel window = g.y.pixel(position);
  const Pixel cell{window.image, g.vertical.first_cell(window.row), g.horizontal.first_cell(window.column)};
  return {g.x.offset(cell), cell.row, cell.column};
}

// One weight of a filter, as steps from a window's corner to the element of x that it multiplies.
struct Tap {
  std::int64_t offset;  // channel included, counted from the group's first
  int row, column;
};

// Of weight number `index` in [0, weights): filters lie in memory as (R, S, channels).
__device__ __forceinline__ Tap tap_of(const Geometry& g, int index) {
  const int place = index / g.channels, channel = index % g.channels;
  const int r = place / g.horizontal.kernel, s = place % g.horizontal.kernel;
  const Pixel step{0, r * g.vertical.dilation, s * g.horizontal.dilation};
  return {g.x.offset(step) + channel, step.row, step.column};
}

// Whether the tap of the window at `corner` lies on the image.
__device__ __forceinline__ bool meets(const Geometry& g, const Corner& corner, const Tap& tap) {
  return g.vertical.contains(corner.row + tap.row) && g.horizontal.contains(corner.column + tap.column);
}

}  // namespace gpucnn

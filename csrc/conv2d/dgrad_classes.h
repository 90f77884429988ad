// The pixels of a convolution's input in classes that meet the same taps, as its input gradient computes them: a
// product of matrices for each class. For .cu files.
//
// Pixels whose rows (and columns) are strides apart meet the same taps: every so many of a filter, from the first that
// meets them. Of one such class, dx is dy convolved with its taps at stride 1, back to front: no product has a zero of
// the stride, and nothing is scattered. Stride 1 has one class, of all taps.
//
// Classes are counted as equally large as the largest, so that one division serves all: rows of the others that are
// beyond the image are not stored. Blocks of all classes of some pixels are neighbours, as the windows that they read
// are. A class that meets no tap stores zeros.
#pragma once

#include "conv2d/gather.h"
#include "gemm/configurations.h"
#include "simt/simt.h"

#include <algorithm>
#include <cstdint>
#include <numeric>

namespace gpucnn {

// One axis of all classes.
struct ClassAxis {
  Axis axis;
  int classes;   // pixels [0, classes) are the first of theirs
  int tap_step;  // from one tap of a class to its next
  int back;      // windows that the next tap's is before
};

inline ClassAxis class_axis(const Axis& axis) {
  const int common = std::gcd(axis.stride, axis.dilation);
  return {axis, std::min(axis.stride, axis.size), axis.stride / common, axis.dilation / common};
}

// Of one class: its first tap, how many there are, and the window in which that tap lies on the class's first pixel.
struct ClassTaps {
  int first, count, window;
};

__device__ __forceinline__ ClassTaps taps_of(const ClassAxis& a, int first_cell) {
  const int place = first_cell + a.axis.padding, kernel = a.axis.kernel;  // counted from the first padded cell
  int first = 0;
  while (first < a.tap_step && first < kernel && (place - first * a.axis.dilation) % a.axis.stride != 0) ++first;
  if (first >= a.tap_step || first >= kernel) return {0, 0, 0};
  return {first, (kernel - first - 1) / a.tap_step + 1, (place - first * a.axis.dilation) / a.axis.stride};
}

template <typename T>
struct DgradArguments {
  const T* dy;
  const T* w;
  T* dx;
  ClassAxis down, across;
  Images pixels;       // of the largest class
  std::int64_t count;  // N times as many
  int C, K;
  bool wide_dx;
  unsigned tiles_across;
};

// What a block owns: pixels of the class whose first one is (h, w), and channels.
struct DgradTile {
  std::int64_t row, column;
  int h, w;
};

template <typename Shape, typename T>
__device__ __forceinline__ DgradTile dgrad_tile(const DgradArguments<T>& p, unsigned block) {
  const unsigned classes = static_cast<unsigned>(p.down.classes * p.across.classes);
  const unsigned line = block / p.tiles_across, across = static_cast<unsigned>(p.across.classes);
  const unsigned mine = line % classes;
  return {std::int64_t{line / classes} * Shape::kRows, std::int64_t{block % p.tiles_across} * Shape::kColumns,
          static_cast<int>(mine / across), static_cast<int>(mine % across)};
}

// What the block's product is of: the windows of dy on its pixels, by the class's taps, and those taps by channels.
template <typename T, bool kWide, int kStep>
struct DgradSources {
  ImageRows<T, kWide, kStep> windows;
  FilterLines<T, kWide, kStep> filters;
  int first_tap;
};

template <bool kWide, int kStep, typename T>
__device__ __forceinline__ DgradSources<T, kWide, kStep> dgrad_sources(const DgradArguments<T>& p,
                                                                       const DgradTile& at) {
  const ClassTaps r = taps_of(p.down, at.h), s = taps_of(p.across, at.w);
  const auto taps = TapGrid<T, kWide, kStep>::of(r.count, s.count, p.K);
  const int kernel = p.across.axis.kernel, first_tap = r.first * kernel + s.first;
  return {{p.dy,
           {p.down.axis.outputs, r.window, 1, -p.down.back},
           {p.across.axis.outputs, s.window, 1, -p.across.back},
           p.pixels,
           p.count,
           taps,
           p.K},
          {p.w + std::int64_t{first_tap} * p.C, p.C, p.down.axis.kernel * kernel, p.down.tap_step * kernel,
           p.across.tap_step, taps},
          first_tap};
}

// Where pixel number `index` of the block's class begins in dx; negative if it is beyond the image.
template <typename T>
__device__ __forceinline__ std::int64_t dgrad_offset(const DgradArguments<T>& p, const DgradTile& at,
                                                     std::int64_t index) {
  const Pixel pixel = p.pixels.pixel(index);
  const int y = at.h + pixel.row * p.down.axis.stride, x = at.w + pixel.column * p.across.axis.stride;
  if (y >= p.down.axis.size || x >= p.across.axis.size) return -1;
  return ((pixel.image * p.down.axis.size + y) * p.across.axis.size + x) * p.C;
}

// What is on the host.
struct DgradPlan {
  ClassAxis down, across;
  std::int64_t height, width, count, classes;  // pixels of the largest class in an image and in all; classes

  static DgradPlan of(const Conv2dProblem& p) {
    const ClassAxis down = class_axis(vertical_axis(p)), across = class_axis(horizontal_axis(p));
    const std::int64_t height = blocks_of(down.axis.stride, p.H), width = blocks_of(across.axis.stride, p.W);
    return {down, across, height, width, p.N * height * width, std::int64_t{down.classes} * across.classes};
  }
  bool fits_wide(const Conv2dProblem& p) const {
    const Gather rows{down.axis.outputs, 0, 1, down.back}, columns{across.axis.outputs, 0, 1, across.back};
    return gpucnn::fits_wide(rows, columns, height, width, p.R, p.S, p.K);
  }
  template <typename T>
  DgradArguments<T> arguments(const Conv2dProblem& p, const T* dy, const T* w, T* dx, bool wide_dx,
                              unsigned tiles_across) const {
    return {dy,
            w,
            dx,
            down,
            across,
            images_of(height, width, p.C),
            count,
            static_cast<int>(p.C),
            static_cast<int>(p.K),
            wide_dx,
            tiles_across};
  }
};

}  // namespace gpucnn

// Index arithmetic of kernels over images and their windows. For device code, and for the test that runs it by itself.
//
// Coordinates are int: check() in problem.h has seen to it that none exceeds one. Offsets into arrays are 64-bit.
#pragma once

#include "common/problem.h"
#if defined(GPUCNN_FOR_CUDA) && !defined(__CUDACC__)
#include <cuda_runtime_api.h>  // for a binding the qualifiers, which mean nothing there
#else
#include "simt/simt.h"
#endif

#include <cstdint>

namespace gpucnn {

struct Quotient {
  std::int64_t whole;
  int rest;  // [0, divisor)
};

// Division of 64-bit numbers by one that a whole grid shares: a multiplication by its inverse, made on the host, where
// the GPU would call a routine of some hundred instructions (and spill registers around it).
//
// inverse = floor((2^64 - 1) / value), so number * inverse / 2^64 is at most number / value, and less than 1/2 + 2^-2
// below it for a number under 2^62: the whole part is right or one too small, which the rest shows.
struct Divisor {
  int value;  // [1, 2^31)
  std::uint64_t inverse;

  // For a number in [0, 2^62).
  __host__ __device__ constexpr Quotient divide(std::int64_t number) const {
    using Wide = unsigned __int128;
    const auto whole = static_cast<std::int64_t>((static_cast<Wide>(number) * inverse) >> 64);
    const std::int64_t rest = number - whole * value;  // [0, 2 * value)
    const bool beyond = rest >= value;
    return {whole + beyond, static_cast<int>(beyond ? rest - value : rest)};
  }
};

constexpr Divisor divisor_of(std::int64_t value) {
  return {static_cast<int>(value), ~std::uint64_t{0} / static_cast<std::uint64_t>(value)};
}

// A pixel of one of many images.
struct Pixel {
  std::int64_t image;
  int row, column;
};

// An array (images, rows, columns, channels).
struct Images {
  Divisor rows, columns, channels;

  // Pixel number `index`, in the order in which they lie in memory.
  __host__ __device__ constexpr Pixel pixel(std::int64_t index) const {
    const Quotient line = columns.divide(index);
    const Quotient image = rows.divide(line.whole);
    return {image.whole, image.rest, line.rest};
  }

  // Where the channels of a pixel begin, in elements. A pixel outside its image, as under a tap in the padding, has an
  // offset too, from which others are counted; it may be negative.
  __host__ __device__ constexpr std::int64_t offset(const Pixel& at) const {
    return ((at.image * rows.value + at.row) * columns.value + at.column) * channels.value;
  }
};

constexpr Images images_of(std::int64_t rows, std::int64_t columns, std::int64_t channels) {
  return {divisor_of(rows), divisor_of(columns), divisor_of(channels)};
}

// One axis of the windows: H, R, P and the vertical steps, or W, S, Q and the horizontal ones.
struct Axis {
  int size, kernel, outputs;
  int stride, padding, dilation;

  // The cell under the first tap of window `output` in [0, outputs); in the padding where it is not in [0, size).
  __host__ __device__ constexpr int first_cell(int output) const { return output * stride - padding; }

  // Whether `cell` is one of the image.
  __host__ __device__ constexpr bool contains(int cell) const { return cell >= 0 && cell < size; }

  // The window in [0, outputs) whose tap `tap` in [0, kernel) lies on `cell` in [0, size), or -1 if there is none.
  __host__ __device__ constexpr int window_at(int cell, int tap) const {
    const int distance = cell + padding - tap * dilation;  // from the first tap of window 0 to that of the window
    const int output = distance / stride;
    return distance >= 0 && output * stride == distance && output < outputs ? output : -1;
  }
};

constexpr Axis axis_of(std::int64_t size, std::int64_t kernel, std::int64_t outputs, std::int64_t stride,
                       std::int64_t padding, std::int64_t dilation) {
  return {static_cast<int>(size),   static_cast<int>(kernel),  static_cast<int>(outputs),
          static_cast<int>(stride), static_cast<int>(padding), static_cast<int>(dilation)};
}

constexpr Axis vertical_axis(const Windows& p) {
  return axis_of(p.H, p.R, p.P, p.stride.vertical, p.padding.vertical, p.dilation.vertical);
}

constexpr Axis horizontal_axis(const Windows& p) {
  return axis_of(p.W, p.S, p.Q, p.stride.horizontal, p.padding.horizontal, p.dilation.horizontal);
}

// Blocks of `each` that `count` items fill, the last one perhaps in part.
constexpr std::int64_t blocks_of(std::int64_t each, std::int64_t count) {
  return (count + each - 1) / each;
}

}  // namespace gpucnn

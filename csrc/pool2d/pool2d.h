// 2-D pooling, maximum, average and power average: the menu of its launchers.
//
// Pointers are C-contiguous memory of the device (of the process, in a simt module); launchers return what the launch
// said. Problems must have been through check() of common/problem.h. Every array may be empty where N is 0. T is float,
// half or bfloat16; what is added up is float32.
//
//   x, dx (N,H,W,C) T   y, dy (N,P,Q,C) T   winners (N,P,Q,C)   indices (N,P,Q,C) int64   sums (N,P,Q,C) float32
//
// A winner is a tap number r * S + s: the first of equal maxima, the last NaN, and of cells that are all -infinity the
// first in the image. It is a std::uint8_t where a window has 256 taps or fewer, else a std::int32_t.
#pragma once

#include "common/problem.h"
#include "simt/float16.h"
#include "simt/status.h"

#include <algorithm>
#include <cstdint>

namespace gpucnn {

inline constexpr std::int64_t kMostTapsOfByte = 256;

// What is compared: the cells of x, or their magnitudes: the largest, or the smallest.
enum class MaxOf { values, magnitudes, negative_magnitudes };

// y, each window's maximum, a NaN being larger than any number; and its winners, unless null. Of magnitudes, y is the
// largest or the smallest of them.
template <typename T, typename Winner>
[[nodiscard]] simt::Status max_pool2d_direct_fprop(const Pool2dProblem& p, MaxOf of, const T* x, T* y, Winner* winners,
                                                   simt::Stream stream);

// dx: each cell's sum of the gradients of the windows that it won. With x, of magnitudes: times the sign of x.
template <typename T, typename Winner>
[[nodiscard]] simt::Status max_pool2d_direct_dgrad(const Pool2dProblem& p, const T* dy, const Winner* winners,
                                                   const T* x, T* dx, simt::Stream stream);

// indices: where in the image each winner lies, h * W + w, or -1 where a window has no cell in the image.
template <typename Winner>
[[nodiscard]] simt::Status max_pool2d_direct_indices(const Pool2dProblem& p, const Winner* winners,
                                                     std::int64_t* indices, simt::Stream stream);

// What a window's sum is divided by: `every` unless it is 0; else the number of its cells in the image, and with
// `padding_counts` of those in the stated padding too.
struct AverageDivisor {
  bool padding_counts;
  float every;
};

// y: each window's sum over its divisor. Dilation 1.
template <typename T>
[[nodiscard]] simt::Status avg_pool2d_direct_fprop(const Pool2dProblem& p, const AverageDivisor& divisor, const T* x,
                                                   T* y, simt::Stream stream);

// dx: each window's gradient over its divisor, given to all of its cells.
template <typename T>
[[nodiscard]] simt::Status avg_pool2d_direct_dgrad(const Pool2dProblem& p, const AverageDivisor& divisor, const T* dy,
                                                   T* dx, simt::Stream stream);

// Cells of an image that a block of the global average adds up, at most; and the parts that an image so has.
inline constexpr std::int64_t kGlobalCells = 1024;
constexpr std::int64_t global_average_parts(std::int64_t cells) {
  return (cells + kGlobalCells - 1) / kGlobalCells;
}

// y (N,C): each image's sum x (N,cells,C) over `divisor`.   parts: (N, global_average_parts(cells), C) float32, or null
// if that is one part.
template <typename T>
[[nodiscard]] simt::Status avg_pool2d_global_fprop(std::int64_t N, std::int64_t cells, std::int64_t C, float divisor,
                                                   const T* x, float* parts, T* y, simt::Stream stream);

// y = sums^(1/norm), and sums: each window's sum of x^norm, times R * S over its number of cells in the image.
// Dilation 1; norm finite and not 0.
template <typename T>
[[nodiscard]] simt::Status lp_pool2d_direct_fprop(const Pool2dProblem& p, double norm, const T* x, T* y, float* sums,
                                                  simt::Stream stream);

// dx: x^(norm-1) times the sum of sums^(1/norm-1) * dy, and R * S over their numbers of cells, over the windows of each
// cell whose sum is not 0.
template <typename T>
[[nodiscard]] simt::Status lp_pool2d_direct_dgrad(const Pool2dProblem& p, double norm, const T* dy, const T* x,
                                                  const float* sums, T* dx, simt::Stream stream);

}  // namespace gpucnn

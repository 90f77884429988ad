// 2-D max pooling: the menu of its launchers.
//
// Pointers are C-contiguous memory of the device (of the process, in a simt module); launchers return what the launch
// said. Problems must have been through check() of common/problem.h. Every array may be empty where N is 0.
//
//   x, dx (N,H,W,C) float32   y, dy (N,P,Q,C) float32   winners (N,P,Q,C)   indices (N,P,Q,C) int64
//
// A winner is a tap number r * S + s: the first of equal maxima, the last NaN, and of cells that are all -infinity the
// first in the image. It is a std::uint8_t where a window has 256 taps or fewer, else a std::int32_t.
#pragma once

#include "common/problem.h"
#include "simt/status.h"

#include <cstdint>

namespace gpucnn {

inline constexpr std::int64_t kMostTapsOfByte = 256;

// y, each window's maximum, a NaN being larger than any number; and its winners, unless null.
template <typename Winner>
[[nodiscard]] simt::Status max_pool2d_direct_fprop(const Pool2dProblem& p, const float* x, float* y, Winner* winners,
                                                   simt::Stream stream);

// dx: each cell's sum of the gradients of the windows that it won.
template <typename Winner>
[[nodiscard]] simt::Status max_pool2d_direct_dgrad(const Pool2dProblem& p, const float* dy, const Winner* winners,
                                                   float* dx, simt::Stream stream);

// indices: where in the image each winner lies, h * W + w, or -1 where a window has no cell in the image.
template <typename Winner>
[[nodiscard]] simt::Status max_pool2d_direct_indices(const Pool2dProblem& p, const Winner* winners,
                                                     std::int64_t* indices, simt::Stream stream);

}  // namespace gpucnn

// 2-D convolution on tensor cores: the menu of its launchers. As conv2d.h, whose words hold here too.
//
// Any groups, of which several make a tile (tensor_core_groups.h), in whole units of 16 bytes of C and K, and in one
// configuration. `precision` is that of float32 (mma/arithmetic.h); `configuration` is a number of
// mma/configurations.h, or kAnyConfiguration for what suits the problem. conv2d_tensor_core_is_near() holds;
// std::invalid_argument where not. Arrays that are read are aligned to 16 bytes and C, and for dx and dw K too, are
// whole units of 16 bytes, or operands come element by element, in the one configuration for that. Same inputs, same
// bits, and an image has the same bits in any batch, in y and dx in any configuration too. What is outside an image is
// a 0 that is multiplied.
#pragma once

#include "common/problem.h"
#include "mma/configurations.h"
#include "mma/epilogue.h"
#include "simt/float16.h"
#include "simt/status.h"

#include <cstdint>

namespace gpucnn {

// Whether what a block reads of x and of dy lies within 2^31 elements, so that 32 bits count it from where it begins:
// the images that the most windows of a block, 256, can lie in, with all that their taps reach. In floating point, as
// in Python's copy of it, where nothing overflows.
constexpr bool conv2d_tensor_core_is_near(const Conv2dProblem& p) {
  const auto size = [](std::int64_t cells, std::int64_t more, std::int64_t taps, std::int64_t dilation) {
    return static_cast<double>(cells) + 2.0 * static_cast<double>(more) +
           static_cast<double>(taps) * static_cast<double>(dilation);
  };
  const auto steps = [](std::int64_t cells, std::int64_t stride) { return (cells + stride - 1) / stride; };
  const double x = size(p.H, p.padding.vertical, p.R, p.dilation.vertical) *
                   size(p.W, p.padding.horizontal, p.S, p.dilation.horizontal) * static_cast<double>(p.C);
  const double y =
      size(p.P, 0, p.R, p.dilation.vertical) * size(p.Q, 0, p.S, p.dilation.horizontal) * static_cast<double>(p.K);
  const std::int64_t windows = p.P * p.Q, pixels = steps(p.H, p.stride.vertical) * steps(p.W, p.stride.horizontal);
  return x * static_cast<double>(256 / windows + 2) < 2147483648.0 &&
         y * static_cast<double>(256 / pixels + 2) < 2147483648.0;
}

template <typename T>
[[nodiscard]] simt::Status conv2d_tensor_core_fprop(const Conv2dProblem& p, const T* x, const T* w, T* y,
                                                    const mma::Epilogue<T>& epilogue, simt::Stream stream,
                                                    mma::Precision precision, int configuration = kAnyConfiguration);
// Windows in a tile, of which each has moments of its own (mma/epilogue.h).
template <typename T>
[[nodiscard]] std::int64_t conv2d_tensor_core_moment_rows(const Conv2dProblem& p, mma::Precision precision,
                                                          int configuration = kAnyConfiguration);
template <typename T>
[[nodiscard]] simt::Status conv2d_tensor_core_dgrad(const Conv2dProblem& p, const T* dy, const T* w, T* dx,
                                                    simt::Stream stream, mma::Precision precision,
                                                    int configuration = kAnyConfiguration);
// partial: float32 (splits, size of dw), at most 64 MiB; null where there is one split.
template <typename T>
[[nodiscard]] simt::Status conv2d_tensor_core_wgrad(const Conv2dProblem& p, const T* x, const T* dy, T* dw,
                                                    float* partial, simt::Stream stream, mma::Precision precision,
                                                    int configuration = kAnyConfiguration);
[[nodiscard]] std::int64_t conv2d_tensor_core_wgrad_splits(const Conv2dProblem& p,
                                                           int configuration = kAnyConfiguration);

// y and dx of few windows, whose sums are cut into parts (tensor_core_cut.cu). partial: float32 (splits, size of the
// output), at most 64 MiB. Epilogues take no moments.
template <typename T>
[[nodiscard]] simt::Status conv2d_tensor_core_cut_fprop(const Conv2dProblem& p, const T* x, const T* w, T* y,
                                                        float* partial, const mma::Epilogue<T>& epilogue,
                                                        simt::Stream stream, mma::Precision precision);
template <typename T>
[[nodiscard]] simt::Status conv2d_tensor_core_cut_dgrad(const Conv2dProblem& p, const T* dy, const T* w, T* dx,
                                                        float* partial, simt::Stream stream, mma::Precision precision);
[[nodiscard]] std::int64_t conv2d_tensor_core_cut_fprop_splits(const Conv2dProblem& p);
[[nodiscard]] std::int64_t conv2d_tensor_core_cut_dgrad_splits(const Conv2dProblem& p);

// Of groups, what the launchers above call.
template <typename T>
[[nodiscard]] simt::Status conv2d_tensor_core_group_fprop(const Conv2dProblem& p, const T* x, const T* w, T* y,
                                                          const mma::Epilogue<T>& epilogue, simt::Stream stream,
                                                          mma::Precision precision);
template <typename T>
[[nodiscard]] simt::Status conv2d_tensor_core_group_dgrad(const Conv2dProblem& p, const T* dy, const T* w, T* dx,
                                                          simt::Stream stream, mma::Precision precision);
template <typename T>
[[nodiscard]] simt::Status conv2d_tensor_core_group_wgrad(const Conv2dProblem& p, const T* x, const T* dy, T* dw,
                                                          float* partial, simt::Stream stream,
                                                          mma::Precision precision);
[[nodiscard]] std::int64_t conv2d_tensor_core_group_wgrad_splits(const Conv2dProblem& p);

}  // namespace gpucnn

// 2-D convolution: the menu of its launchers.
//
// Pointers are C-contiguous float32 memory of the device (of the process, in a simt module); launchers return what the
// launch said. Problems must have been through check() of common/problem.h. Every array may be empty where N is 0.
//
//   x, dx (N,H,W,C)   y, dy (N,P,Q,K)   w, dw (K,R,S,C/groups)   bias, db (K,)
#pragma once

#include "common/problem.h"
#include "simt/status.h"

#include <cstdint>

namespace gpucnn {

// ------------------------------------------------------------------ direct: any stride, padding, dilation and groups
//
// Same inputs, same bits, and an image has the same bits in any batch. Of what is outside an image the wide kernels
// multiply a 0 and the narrow ones nothing, which differs where it meets an infinity or NaN.

// y = x * w + bias.   bias may be null.
[[nodiscard]] simt::Status conv2d_direct_fprop(const Conv2dProblem& p, const float* x, const float* w,
                                               const float* bias, float* y, simt::Stream stream);

// dx, the gradient of sum(y * dy) with respect to x.
[[nodiscard]] simt::Status conv2d_direct_dgrad(const Conv2dProblem& p, const float* dy, const float* w, float* dx,
                                               simt::Stream stream);

// dw, the gradient with respect to w. The positions are cut into splits, each with a sum of its own; then the sums are
// added in order.   partial: splits x the size of dw, less than 16 MiB; null where there is one split.
[[nodiscard]] simt::Status conv2d_direct_wgrad(const Conv2dProblem& p, const float* x, const float* dy, float* dw,
                                               float* partial, simt::Stream stream);
[[nodiscard]] std::int64_t conv2d_direct_wgrad_splits(const Conv2dProblem& p);

// db, the gradient with respect to bias, in the same way.   partial: splits x K, less than 1 MiB.
[[nodiscard]] simt::Status conv2d_direct_bgrad(const Conv2dProblem& p, const float* dy, float* db, float* partial,
                                               simt::Stream stream);
[[nodiscard]] std::int64_t conv2d_direct_bgrad_splits(const Conv2dProblem& p);

}  // namespace gpucnn

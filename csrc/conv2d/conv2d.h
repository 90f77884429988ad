// 2-D convolution: the menu of its launchers.
//
// T is the type that elements are stored in: float, simt::half or simt::bfloat16; sums are float32 throughout and are
// rounded once. Pointers are C-contiguous memory of the device (of the process, in a simt module); launchers return
// what the launch said, and throw std::invalid_argument for a problem that the kernel can't run. Problems must have
// been through check() of common/problem.h. Every array may be empty where N is 0.
//
//   x, dx (N,H,W,C)   y, dy (N,P,Q,K)   w, dw (K,R,S,C/groups)   bias, db (K,)
//
// All kernels of a pass have one signature:
//
//   fprop  y = relu(x * w + bias); without bias where it is null, without ReLU where `relu` is false.
//   dgrad  dx, the gradient of sum(y * dy) with respect to x, where y = x * w + bias.
//   wgrad  dw, the gradient with respect to w. The positions may be cut into splits, each with float32 sums of its own
//          in partial (splits, size of dw), which are then added in order; null where there is one split.
//   bgrad  db, the gradient with respect to bias, in the same way.
#pragma once

#include "common/problem.h"
#include "gemm/configurations.h"
#include "simt/float16.h"
#include "simt/status.h"

#include <cstdint>

namespace gpucnn {

// ------------------------------------------------------------------ direct: any stride, padding, dilation and groups
//
// Same inputs, same bits, and an image has the same bits in any batch. Of what is outside an image the wide kernels
// multiply a 0 and the narrow ones nothing, which differs where it meets an infinity or NaN.
// partial takes less than 16 MiB for a weight gradient, less than 1 MiB for a bias gradient.

template <typename T>
[[nodiscard]] simt::Status conv2d_direct_fprop(const Conv2dProblem& p, const T* x, const T* w, const T* bias, T* y,
                                               bool relu, simt::Stream stream);
template <typename T>
[[nodiscard]] simt::Status conv2d_direct_dgrad(const Conv2dProblem& p, const T* dy, const T* w, T* dx,
                                               simt::Stream stream);
template <typename T>
[[nodiscard]] simt::Status conv2d_direct_wgrad(const Conv2dProblem& p, const T* x, const T* dy, T* dw, float* partial,
                                               simt::Stream stream);
[[nodiscard]] std::int64_t conv2d_direct_wgrad_splits(const Conv2dProblem& p);
template <typename T>
[[nodiscard]] simt::Status conv2d_direct_bgrad(const Conv2dProblem& p, const T* dy, T* db, float* partial,
                                               simt::Stream stream);
[[nodiscard]] std::int64_t conv2d_direct_bgrad_splits(const Conv2dProblem& p);

// -------------------------------------------- grouped: all groups in one launch, several of them a block where narrow
//
// Any groups, one too; windows of at most 32 x 32 cells and 121 taps. Same bits as said above. Of what is outside an
// image a 0 is multiplied. partial takes less than 16 MiB.

template <typename T>
[[nodiscard]] simt::Status conv2d_grouped_fprop(const Conv2dProblem& p, const T* x, const T* w, const T* bias, T* y,
                                                bool relu, simt::Stream stream);
template <typename T>
[[nodiscard]] simt::Status conv2d_grouped_dgrad(const Conv2dProblem& p, const T* dy, const T* w, T* dx,
                                                simt::Stream stream);
template <typename T>
[[nodiscard]] simt::Status conv2d_grouped_wgrad(const Conv2dProblem& p, const T* x, const T* dy, T* dw, float* partial,
                                                simt::Stream stream);
[[nodiscard]] std::int64_t conv2d_grouped_wgrad_splits(const Conv2dProblem& p);

// ------------------------------------------- stem: the first layer of a network, images of 1 to 4 channels, one group
//
// T is float. No horizontal dilation; filters of at most 1,024 weights, filter rows of at most 128. Same bits as said
// above. Of what is outside an image a 0 is multiplied. partial takes less than 16 MiB. The gradient of the images is
// grouped_dgrad's.

template <typename T>
[[nodiscard]] simt::Status conv2d_stem_fprop(const Conv2dProblem& p, const T* x, const T* w, const T* bias, T* y,
                                             bool relu, simt::Stream stream);
template <typename T>
[[nodiscard]] simt::Status conv2d_stem_wgrad(const Conv2dProblem& p, const T* x, const T* dy, T* dw, float* partial,
                                             simt::Stream stream);
[[nodiscard]] std::int64_t conv2d_stem_wgrad_splits(const Conv2dProblem& p);

// ------------------------------------------------------------------------------------- depthwise: groups = C = K only
//
// Same inputs, same bits, and an image has the same bits in any batch. Rows of 3, 5 or 7 taps at stride 1 or 2 have
// kernels of their own. partial takes less than 16 MiB.

template <typename T>
[[nodiscard]] simt::Status conv2d_depthwise_fprop(const Conv2dProblem& p, const T* x, const T* w, const T* bias, T* y,
                                                  bool relu, simt::Stream stream);
template <typename T>
[[nodiscard]] simt::Status conv2d_depthwise_dgrad(const Conv2dProblem& p, const T* dy, const T* w, T* dx,
                                                  simt::Stream stream);
template <typename T>
[[nodiscard]] simt::Status conv2d_depthwise_wgrad(const Conv2dProblem& p, const T* x, const T* dy, T* dw,
                                                  float* partial, simt::Stream stream);
[[nodiscard]] std::int64_t conv2d_depthwise_wgrad_splits(const Conv2dProblem& p);

// --------------------------------------- implicit GEMM: groups of 1; pointwise: of those, 1x1, stride 1 and no padding
//
// T is float of implicit GEMM. `configuration` is a number of gemm/configurations.h, or kAny for what suits the
// problem. Same inputs, same bits, and an image has the same bits in any batch, in y and dx in any configuration too.
// What is outside an image is a 0 that is multiplied. partial takes at most 64 MiB.

template <typename T>
[[nodiscard]] simt::Status conv2d_implicit_gemm_fprop(const Conv2dProblem& p, const T* x, const T* w, const T* bias,
                                                      T* y, bool relu, simt::Stream stream,
                                                      int configuration = gemm::kAny);
template <typename T>
[[nodiscard]] simt::Status conv2d_implicit_gemm_dgrad(const Conv2dProblem& p, const T* dy, const T* w, T* dx,
                                                      simt::Stream stream, int configuration = gemm::kAny);
template <typename T>
[[nodiscard]] simt::Status conv2d_implicit_gemm_wgrad(const Conv2dProblem& p, const T* x, const T* dy, T* dw,
                                                      float* partial, simt::Stream stream,
                                                      int configuration = gemm::kAny);
[[nodiscard]] std::int64_t conv2d_implicit_gemm_wgrad_splits(const Conv2dProblem& p, int configuration = gemm::kAny);

template <typename T>
[[nodiscard]] simt::Status conv2d_pointwise_fprop(const Conv2dProblem& p, const T* x, const T* w, const T* bias, T* y,
                                                  bool relu, simt::Stream stream, int configuration = gemm::kAny);
template <typename T>
[[nodiscard]] simt::Status conv2d_pointwise_dgrad(const Conv2dProblem& p, const T* dy, const T* w, T* dx,
                                                  simt::Stream stream, int configuration = gemm::kAny);
template <typename T>
[[nodiscard]] simt::Status conv2d_pointwise_wgrad(const Conv2dProblem& p, const T* x, const T* dy, T* dw,
                                                  float* partial, simt::Stream stream, int configuration = gemm::kAny);
[[nodiscard]] std::int64_t conv2d_pointwise_wgrad_splits(const Conv2dProblem& p, int configuration = gemm::kAny);

}  // namespace gpucnn

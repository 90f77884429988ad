// A 1x1 convolution of stride 1 without padding: a product of matrices, pixels by channels, without any index work.
//
//     y (N*P*Q,K) = x (N*H*W,C) * transposed(w (K,C))      dx = dy * w      dw = transposed(dy) * x
//
// Layout, block, warp, thread, bound: gemm/matmul.cu. Groups of 1; a 1x1 convolution of another stride or with padding
// is implicit_gemm_*.cu's.
#include "conv2d/conv2d.h"
#include "conv2d/geometry.h"
#include "gemm/gemm.h"

#include <stdexcept>

namespace gpucnn {
namespace {

gemm::Sizes sizes_of(const Conv2dProblem& p) {
  require_dense(p);
  const auto is = [](const Pair& pair, std::int64_t value) {
    return pair.vertical == value && pair.horizontal == value;
  };
  if (p.R != 1 || p.S != 1 || !is(p.stride, 1) || !is(p.padding, 0) || p.P != p.H || p.Q != p.W) {
    throw std::invalid_argument("conv2d: the pointwise kernel needs 1x1 filters, stride 1 and no padding");
  }
  return {p.positions(), p.K, p.C};
}

}  // namespace

template <typename T>
simt::Status conv2d_pointwise_fprop(const Conv2dProblem& p, const T* x, const T* w, const T* bias, T* y, bool relu,
                                    simt::Stream stream, int configuration) {
  return gemm::matmul_nt(sizes_of(p), x, w, bias, relu, y, stream, configuration);
}

template <typename T>
simt::Status conv2d_pointwise_dgrad(const Conv2dProblem& p, const T* dy, const T* w, T* dx, simt::Stream stream,
                                    int configuration) {
  return gemm::matmul_nn(sizes_of(p), dy, w, dx, stream, configuration);
}

template <typename T>
simt::Status conv2d_pointwise_wgrad(const Conv2dProblem& p, const T* x, const T* dy, T* dw, float* partial,
                                    simt::Stream stream, int configuration) {
  return gemm::matmul_tn(sizes_of(p), x, dy, dw, partial, stream, configuration);
}

std::int64_t conv2d_pointwise_wgrad_splits(const Conv2dProblem& p, int configuration) {
  return gemm::matmul_tn_parts(sizes_of(p), configuration);
}

#define GPUCNN_INSTANTIATE(T)                                                                                    \
  template simt::Status conv2d_pointwise_fprop(const Conv2dProblem&, const T*, const T*, const T*, T*, bool,     \
                                               simt::Stream, int);                                               \
  template simt::Status conv2d_pointwise_dgrad(const Conv2dProblem&, const T*, const T*, T*, simt::Stream, int); \
  template simt::Status conv2d_pointwise_wgrad(const Conv2dProblem&, const T*, const T*, T*, float*, simt::Stream, int);
GPUCNN_INSTANTIATE(float)
GPUCNN_INSTANTIATE(simt::half)
GPUCNN_INSTANTIATE(simt::bfloat16)

}  // namespace gpucnn

// dx[n,h,w,c] = sum over r, s, k of dy[n,p,q,k] * w[k,r,s,c] for each group, over the taps (r,s) of windows (p,q) that
// lie on (h,w): h = p*stride - padding + r*dilation, and w likewise from q and s. All groups in one launch.
//
// Layout, block, warp, thread: grouped_gather.h, where `in` are a group's filters and `out` its channels.
// Limits   as in grouped_fprop.cu. Of one group it serves too: with 1 to 4 channels (the gradient of a network's
//          input) a block is 64 threads of one quad, of which 1 to 4 lanes' worth is useful; an implicit GEMM would
//          fill 1 to 4 columns of a tile of 32 or more.
// Bound    as forward, with no multiplication more for a stride. ResNet-50's stem at N32 (C3 224x224 K64 7x7 stride 2):
//          7.6 GFLOP, 10.1 with the idle fourth channel, 0.17 ms at 60 TFLOP/s; 122 MB, 41 us at 3.0 TB/s.
// Measured not run on hardware yet.
#include "conv2d/conv2d.h"
#include "conv2d/grouped_gather.h"

namespace gpucnn {
namespace {

template <typename T, bool kPacks, bool kSlides>
__global__ void __launch_bounds__(kGatherThreads, 2)
    grouped_dgrad_kernel(const GatherPlan plan, const T* __restrict__ dy, const T* __restrict__ w, T* __restrict__ dx) {
  gather<T, true, kPacks, kSlides>(plan, dy, w, dx, Epilogue<T>{nullptr, false});
}

}  // namespace

template <typename T>
simt::Status conv2d_grouped_dgrad(const Conv2dProblem& p, const T* dy, const T* w, T* dx, simt::Stream stream) {
  const GatherPlan plan = plan_for<true, T>(p, dy, w, dx);
  if (plan.blocks == 0) return simt::kSuccess;
  const auto kernel = plan.slides  ? grouped_dgrad_kernel<T, true, true>
                      : plan.packs ? grouped_dgrad_kernel<T, true, false>
                                   : grouped_dgrad_kernel<T, false, false>;
  return simt::launch(kernel, gather_grid(plan), dim3(static_cast<unsigned>(plan.threads)),
                      static_cast<std::size_t>(plan.shared_bytes), stream, plan, dy, w, dx);
}

template simt::Status conv2d_grouped_dgrad(const Conv2dProblem&, const float*, const float*, float*, simt::Stream);
template simt::Status conv2d_grouped_dgrad(const Conv2dProblem&, const simt::half*, const simt::half*, simt::half*,
                                           simt::Stream);
template simt::Status conv2d_grouped_dgrad(const Conv2dProblem&, const simt::bfloat16*, const simt::bfloat16*,
                                           simt::bfloat16*, simt::Stream);

}  // namespace gpucnn

// y[n,p,q,k] = relu(bias[k] + sum over r, s, c of x[n, p*stride-padding+r*dilation, q*..., c] * w[k,r,s,c]) for each
// group, all groups in one launch.
//
// Layout, block, warp, thread: grouped_gather.h, where `in` are a group's channels and `out` its filters.
// Limits   windows of at most 32 x 32 cells and 121 taps, so that a block's share fits shared memory; x is read 16
//          bytes at a time where C/groups and K/groups are multiples of 4, C one of 16 bytes, and arrays are aligned.
//          Groups of one channel would leave three quarters of every multiplication to zeros: depthwise kernels are for
//          those. Groups of 64 and more are as well served by an implicit GEMM, whose thread gets 16 multiplications
//          from a load where one here gets 10.
// Bound    memory with 4 channels a group, FFMA from 16: of ResNeXt-50 32x4d at N32, C128 56x56 in 32 groups has 103 MB
//          (34 us at 3.0 TB/s) and 0.92 GFLOP (15 us at 60 TFLOP/s), C512 14x14 26 MB (9 us) and 0.92 GFLOP (15 us).
// Measured not run on hardware yet.
#include "common/epilogue.h"
#include "conv2d/conv2d.h"
#include "conv2d/grouped_gather.h"

namespace gpucnn {
namespace {

template <typename T, bool kPacks, bool kSlides>
__global__ void __launch_bounds__(kGatherThreads, 2)
    grouped_fprop_kernel(const GatherPlan plan, const T* __restrict__ x, const T* __restrict__ w,
                         const Epilogue<T> epilogue, T* __restrict__ y) {
  gather<T, false, kPacks, kSlides>(plan, x, w, y, epilogue);
}

}  // namespace

template <typename T>
simt::Status conv2d_grouped_fprop(const Conv2dProblem& p, const T* x, const T* w, const T* bias, T* y, bool relu,
                                  simt::Stream stream) {
  const GatherPlan plan = plan_for<false, T>(p, x, w, bias, y);
  if (plan.blocks == 0) return simt::kSuccess;
  const auto kernel = plan.slides  ? grouped_fprop_kernel<T, true, true>
                      : plan.packs ? grouped_fprop_kernel<T, true, false>
                                   : grouped_fprop_kernel<T, false, false>;
  return simt::launch(kernel, gather_grid(plan), dim3(static_cast<unsigned>(plan.threads)),
                      static_cast<std::size_t>(plan.shared_bytes), stream, plan, x, w, Epilogue<T>{bias, relu}, y);
}

template simt::Status conv2d_grouped_fprop(const Conv2dProblem&, const float*, const float*, const float*, float*, bool,
                                           simt::Stream);
template simt::Status conv2d_grouped_fprop(const Conv2dProblem&, const simt::half*, const simt::half*,
                                           const simt::half*, simt::half*, bool, simt::Stream);
template simt::Status conv2d_grouped_fprop(const Conv2dProblem&, const simt::bfloat16*, const simt::bfloat16*,
                                           const simt::bfloat16*, simt::bfloat16*, bool, simt::Stream);

}  // namespace gpucnn

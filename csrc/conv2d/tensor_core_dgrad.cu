// dx[n,h,w,c] = sum over r, s, k of dy[n,p,q,k] * w[k,r,s,c], over the taps (r,s) of windows (p,q) that lie on (h,w),
// on tensor cores: h = p*stride - padding + r*dilation, and w likewise; as a product of matrices that are gathered.
//
// Layout   dy (N,P,Q,K), w (K,R,S,C), dx (N,H,W,C). Rows are a class's pixels (dgrad_classes.h: no product has a zero
//          of the stride), columns the C channels, and the depth is (tap, k): units of dy lie along it, units of w
//          along the columns, which ldmatrix turns, or, of float32, loads of 8 bytes.
// Block    a tile of pixels of one class x channels (mma/tile.h).
// Limits   what check() in problem.h asks for; groups of 1, others are tensor_core_groups.cu's. C and K in whole units
//          of 16 bytes, or mma/operands.h's narrow path. Sums have the order of the taps: an image has the same bits in
//          any batch, and in any configuration.
// Bound    N32 C64 56x56 K64 3x3 pad 1 of 16 bits: 3.7 G products, 13 us at 1,200 a cycle and multiprocessor of an
//          H100's mma.sync; 26 MB of dy, w and dx take 9 us at 3.0 TB/s.
// Measured not run on hardware yet.
#include "conv2d/dgrad_classes.h"
#include "conv2d/tensor_core_limits.h"
#include "mma/launch.h"
#include "mma/operands.h"
#include "mma/store.h"

namespace gpucnn {
namespace {

template <typename A, typename Shape, bool kWide, typename T>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks) tensor_dgrad_kernel(const DgradArguments<T> p) {
  constexpr int kStep = mma::kStrip<T>;
  using Rows = mma::DepthOperand<T, Shape::kThreads, Shape::kRows, kWide, ImageRows<T, true, kStep>>;
  using Columns = mma::LineOperand<T, Shape::kThreads, Shape::kColumns, kWide, FilterLines<T, true, kStep>>;
  SIMT_DYNAMIC_SHARED(uint4, ring);
  const DgradTile at = dgrad_tile<Shape>(p, blockIdx.x);
  const auto sources = dgrad_sources<true, kStep>(p, at);
  mma::Tile<A, Shape, typename Rows::Strip, typename Columns::Strip> tile;
  mma::multiply(
      tile, ring, [&] { return Rows(sources.windows, at.row); }, [&] { return Columns(sources.filters, at.column); },
      sources.windows.taps.depth());
  const DgradTile to = dgrad_tile<Shape>(p, simt::anew(blockIdx.x));
  mma::store_rows(tile, p.dx, to.row, p.count, to.column, p.C, p.wide_dx, mma::AsItIs{},
                  [&](std::int64_t index) { return dgrad_offset(p, to, index); });
}

}  // namespace

template <typename T>
simt::Status conv2d_tensor_core_dgrad(const Conv2dProblem& p, const T* dy, const T* w, T* dx, simt::Stream stream,
                                      mma::Precision precision, int configuration) {
  require_tensor_core(p);
  if (p.groups > 1) return conv2d_tensor_core_group_dgrad(p, dy, w, dx, stream, precision);
  if (p.N == 0) return simt::kSuccess;
  const DgradPlan plan = DgradPlan::of(p);
  const bool whole = gemm::in_packs<T>(p.C), wide = are_aligned(dy, w) && whole && gemm::in_packs<T>(p.K);
  return mma::with_arithmetic<T>(precision, [&](auto arithmetic) {
    using A = decltype(arithmetic);
    return mma::with_shape<A>(
        mma::tiling_of<A>().choose(plan.count * plan.classes, p.C, configuration), wide, [&](auto shape, auto is_wide) {
          using Shape = decltype(shape);
          return simt::launch(tensor_dgrad_kernel<A, Shape, decltype(is_wide)::value, T>,
                              dim3(gemm::tiles<Shape>(plan.count, p.C) * static_cast<unsigned>(plan.classes)),
                              dim3(Shape::kThreads), Shape::kSharedBytes, stream,
                              plan.arguments(p, dy, w, dx, whole && are_aligned(dx), gemm::tiles_across<Shape>(p.C)));
        });
  });
}

template simt::Status conv2d_tensor_core_dgrad(const Conv2dProblem&, const float*, const float*, float*, simt::Stream,
                                               mma::Precision, int);
template simt::Status conv2d_tensor_core_dgrad(const Conv2dProblem&, const simt::half*, const simt::half*, simt::half*,
                                               simt::Stream, mma::Precision, int);
template simt::Status conv2d_tensor_core_dgrad(const Conv2dProblem&, const simt::bfloat16*, const simt::bfloat16*,
                                               simt::bfloat16*, simt::Stream, mma::Precision, int);

}  // namespace gpucnn

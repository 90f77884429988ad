// dx[n,h,w,c] = sum over r, s, k of dy[n,p,q,k] * w[k,r,s,c], over the taps (r,s) of windows (p,q) that lie on (h,w):
// h = p*stride - padding + r*dilation, and w likewise; as a product of matrices that are gathered. Groups of 1.
//
// Layout   dy (N,P,Q,K), w (K,R,S,C), dx (N,H,W,C). Rows are a class's pixels, columns the C channels, and the depth is
//          (tap, k): packs of dy are along it, packs of w along the columns. Classes: dgrad_classes.h.
// Block    a tile of pixels of one class x channels (gemm/tile.h).
// Limits   float32, as tensor_core_*.cu is faster in 16 bits; what check() in problem.h asks for, and groups=1. Sums
//          have the order of the taps: an image has the same bits in any batch, and in any configuration. C or K that
//          is not whole packs takes the narrow path.
// Bound    FFMA: 2*N*P*Q*K*R*S*C flops; N32 C64 56x56 K64 3x3 pad 1, 7.4 GFLOP: 0.12 ms at the 60 TFLOP/s that an H100
//          gives in practice.
// Measured not run on hardware yet.
#include "conv2d/conv2d.h"
#include "conv2d/dgrad_classes.h"
#include "gemm/launch.h"
#include "gemm/store.h"

namespace gpucnn {
namespace {

template <typename T, typename Shape, bool kWide>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks) implicit_dgrad_kernel(const DgradArguments<T> p) {
  using Shared = gemm::Strips<T, Shape>;
  SIMT_SHARED(Shared, strips, );
  const DgradTile at = dgrad_tile<Shape>(p, blockIdx.x);
  const auto sources = dgrad_sources<kWide, gemm::kDepth<T>>(p, at);
  gemm::DepthRows<T, Shape, kWide, ImageRows<T, kWide>> rows(sources.windows, at.row);
  gemm::LineColumns<T, Shape, kWide, FilterLines<T, kWide>> columns(sources.filters, at.column);
  gemm::Tile<T, Shape> tile;
  gemm::multiply(tile, strips, rows, columns, sources.windows.taps.depth());
  const DgradTile to = dgrad_tile<Shape>(p, simt::anew(blockIdx.x));
  gemm::store_rows(tile, p.dx, to.row, p.count, to.column, p.C, p.wide_dx, Epilogue<T>{nullptr, false},
                   [&](std::int64_t index) { return dgrad_offset(p, to, index); });
}

}  // namespace

template <typename T>
simt::Status conv2d_implicit_gemm_dgrad(const Conv2dProblem& p, const T* dy, const T* w, T* dx, simt::Stream stream,
                                        int configuration) {
  require_dense(p);
  if (p.N == 0) return simt::kSuccess;
  const DgradPlan plan = DgradPlan::of(p);
  const bool wide = are_aligned(dy, w) && gemm::in_packs<T>(p.C) && gemm::in_packs<T>(p.K) && p.K >= gemm::kDepth<T> &&
                    plan.fits_wide(p);
  const int chosen = gemm::choose(plan.count * plan.classes, p.C, wide, configuration);
  return gemm::with_shape(chosen, wide, [&](auto shape, auto is_wide) {
    using Shape = decltype(shape);
    const bool wide_dx = are_aligned(dx) && gemm::in_packs<T>(p.C);
    return simt::launch(implicit_dgrad_kernel<T, Shape, is_wide>,
                        dim3(gemm::tiles<Shape>(plan.count, p.C) * static_cast<unsigned>(plan.classes)),
                        dim3(Shape::kThreads), 0, stream,
                        plan.arguments(p, dy, w, dx, wide_dx, gemm::tiles_across<Shape>(p.C)));
  });
}

template simt::Status conv2d_implicit_gemm_dgrad(const Conv2dProblem&, const float*, const float*, float*, simt::Stream,
                                                 int);

}  // namespace gpucnn

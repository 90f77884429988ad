// y[n,p,q,k] = relu(bias[k] + sum over r, s, c of x[n, p*stride-padding+r*dilation, q*..., c] * w[k,r,s,c]) on tensor
// cores, as a product of matrices that are gathered, never written out. Groups of 1.
//
// Layout   x (N,H,W,C), w (K,R,S,C), y (N,P,Q,K). Rows are the N*P*Q windows, columns the K filters, and the depth is a
//          filter's R*S*C weights as they lie in memory: 64 bytes of it a strip, units of 16 bytes of one tap each.
// Block    a tile of windows x filters (mma/tile.h). Warp: as there. Thread: in a copy 2 to 8 windows' units, of one
//          (tap, channel) that it adds to; at the end runs of 16 bytes of y.
// Limits   what check() in problem.h asks for; groups of 1, others are tensor_core_groups.cu's. C in whole units of 16
//          bytes, or mma/operands.h's narrow path. Sums have the order of the weights: an image has the same bits in
//          any batch, and in any configuration.
// Bound    N32 C64 56x56 K64 3x3 pad 1 of 16 bits: 3.7 G products, 13 us at 1,200 a cycle and multiprocessor of an
//          H100's mma.sync; 26 MB of x, y and w take 9 us at 3.0 TB/s.
// Measured not run on hardware yet.
#include "conv2d/fprop_sources.h"
#include "conv2d/tensor_core_groups.h"
#include "mma/launch.h"
#include "mma/moments.h"
#include "mma/operands.h"
#include "mma/store.h"

#include <stdexcept>

namespace gpucnn {
namespace {

template <typename A, typename Shape, bool kWide, typename T>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    tensor_fprop_kernel(const ImageRows<T, true, mma::kStrip<T>> x, const gemm::DepthMatrix<T, true, mma::kStrip<T>> w,
                        const mma::Epilogue<T> epilogue, T* y, bool wide_y, unsigned across) {
  using Rows = mma::DepthOperand<T, Shape::kThreads, Shape::kRows, kWide, ImageRows<T, true, mma::kStrip<T>>>;
  using Columns =
      mma::DepthOperand<T, Shape::kThreads, Shape::kColumns, kWide, gemm::DepthMatrix<T, true, mma::kStrip<T>>>;
  SIMT_DYNAMIC_SHARED(uint4, ring);
  const auto here = [&] { return gemm::tile_at<Shape>(simt::anew(blockIdx.x), across); };
  mma::Tile<A, Shape, typename Rows::Strip, typename Columns::Strip> tile;
  mma::multiply(tile, ring, [&] { return Rows(x, here().row); }, [&] { return Columns(w, here().column); }, w.depths);
  const gemm::TileAt at = here();
  mma::store_rows(tile, y, at.row, x.count, at.column, w.lines, wide_y, epilogue,
                  [&](std::int64_t row) { return row * w.lines; });
  if (epilogue.moments != nullptr) {
    mma::store_moments(tile, reinterpret_cast<float*>(ring), epilogue.moments, at.row, x.count, at.column, w.lines,
                       w.lines);
  }
}

}  // namespace

template <typename T>
simt::Status conv2d_tensor_core_fprop(const Conv2dProblem& p, const T* x, const T* w, T* y,
                                      const mma::Epilogue<T>& epilogue, simt::Stream stream, mma::Precision precision,
                                      int configuration) {
  require_tensor_core(p);
  if (p.groups > 1) return conv2d_tensor_core_group_fprop(p, x, w, y, epilogue, stream, precision);
  const bool whole = gemm::in_packs<T>(p.C), wide = whole && are_aligned(x, w);
  if (epilogue.moments && whole && !wide) {
    throw std::invalid_argument("conv2d: the tensor_core kernel needs arrays aligned to 16 bytes for moments");
  }
  if (p.positions() == 0) return simt::kSuccess;
  const auto sources = fprop_sources<true, mma::kStrip<T>>(p, x, w);
  return mma::with_arithmetic<T>(precision, [&](auto arithmetic) {
    using A = decltype(arithmetic);
    return mma::with_shape<A>(
        mma::tiling_of<A>().choose(p.positions(), p.K, configuration), wide, [&](auto shape, auto is_wide) {
          using Shape = decltype(shape);
          return simt::launch(
              tensor_fprop_kernel<A, Shape, decltype(is_wide)::value, T>, dim3(gemm::tiles<Shape>(p.positions(), p.K)),
              dim3(Shape::kThreads), Shape::kSharedBytes, stream, sources.windows, sources.filters, epilogue, y,
              are_aligned(y, epilogue.residual) && gemm::in_packs<T>(p.K), gemm::tiles_across<Shape>(p.K));
        });
  });
}

template <typename T>
std::int64_t conv2d_tensor_core_moment_rows(const Conv2dProblem& p, mma::Precision precision, int configuration) {
  std::int64_t rows = 0;
  const simt::Status status = mma::with_arithmetic<T>(precision, [&](auto arithmetic) {
    using A = decltype(arithmetic);
    if (p.groups > 1) {
      rows = GroupShape<A>::kRows;
      return simt::kSuccess;
    }
    const int chosen = mma::tiling_of<A>().choose(p.positions(), p.K, configuration);
    return mma::with_shape<A>(chosen, gemm::in_packs<T>(p.C), [&](auto shape, auto) {
      rows = decltype(shape)::kRows;
      return simt::kSuccess;
    });
  });
  static_cast<void>(status);
  return rows;
}

#define GPUCNN_INSTANTIATE(T)                                                                                 \
  template simt::Status conv2d_tensor_core_fprop(const Conv2dProblem&, const T*, const T*, T*,                \
                                                 const mma::Epilogue<T>&, simt::Stream, mma::Precision, int); \
  template std::int64_t conv2d_tensor_core_moment_rows<T>(const Conv2dProblem&, mma::Precision, int);
GPUCNN_INSTANTIATE(float)
GPUCNN_INSTANTIATE(simt::half)
GPUCNN_INSTANTIATE(simt::bfloat16)
#undef GPUCNN_INSTANTIATE

}  // namespace gpucnn

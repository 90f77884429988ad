// y[n,p,q,k] = relu(bias[k] + sum over r, s, c of x[n, p*stride-padding+r*dilation, q*..., c] * w[k,r,s,c]), as a
// product of matrices that are gathered, never written out. Groups of 1.
//
// Layout   x (N,H,W,C), w (K,R,S,C), y (N,P,Q,K). Rows are the N*P*Q windows, columns the K filters, and the depth is a
//          filter's R*S*C weights as they lie in memory: a pack of 16 bytes is of one tap where C is whole packs.
// Block    a tile of windows x filters (gemm/tile.h). Warp, thread: as there. In a fill a thread keeps the corners of
//          1 to 4 windows in registers, and one (tap, channel) that it adds to.
// Limits   float32, as tensor_core_*.cu is faster in 16 bits; what check() in problem.h asks for, and groups=1. Sums
//          have the order of the weights: an image has the same bits in any batch, and in any configuration. C that is
//          not whole packs takes the narrow path.
// Bound    FFMA: 2*N*P*Q*K*R*S*C flops; N32 C64 56x56 K64 3x3 pad 1, 7.4 GFLOP: 0.12 ms at the 60 TFLOP/s that an H100
//          gives in practice. 51 MB of x, y and w would take 17 us at 3.0 TB/s.
// Measured not run on hardware yet.
#include "conv2d/conv2d.h"
#include "conv2d/gather.h"
#include "gemm/launch.h"
#include "gemm/store.h"

namespace gpucnn {
namespace {

template <typename T, typename Shape, bool kWide>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    implicit_fprop_kernel(const ImageRows<T, kWide> x, const gemm::DepthMatrix<T, kWide> w, const Epilogue<T> epilogue,
                          T* y, bool wide_y, unsigned across) {
  using Shared = gemm::Strips<T, Shape>;
  SIMT_SHARED(Shared, strips, );
  gemm::TileAt at = gemm::tile_at<Shape>(blockIdx.x, across);
  gemm::DepthRows<T, Shape, kWide, ImageRows<T, kWide>> rows(x, at.row);
  gemm::DepthColumns<T, Shape, kWide, gemm::DepthMatrix<T, kWide>> columns(w, at.column);
  gemm::Tile<T, Shape> tile;
  gemm::multiply(tile, strips, rows, columns, w.depths);
  at = gemm::tile_at<Shape>(simt::anew(blockIdx.x), across);
  gemm::store_rows(tile, y, at.row, x.count, at.column, w.lines, wide_y, epilogue,
                   [&](std::int64_t row) { return row * w.lines; });
}

}  // namespace

template <typename T>
simt::Status conv2d_implicit_gemm_fprop(const Conv2dProblem& p, const T* x, const T* w, const T* bias, T* y, bool relu,
                                        simt::Stream stream, int configuration) {
  require_dense(p);
  if (p.positions() == 0) return simt::kSuccess;
  const Axis v = vertical_axis(p), h = horizontal_axis(p);
  const Gather down{v.size, -v.padding, v.stride, v.dilation}, across{h.size, -h.padding, h.stride, h.dilation};
  const bool wide = are_aligned(x, w) && gemm::in_packs<T>(p.C) && p.C >= gemm::kDepth<T> &&
                    fits_wide(down, across, p.P, p.Q, p.R, p.S, p.C);
  const int chosen = gemm::choose(p.positions(), p.K, wide, configuration);
  return gemm::with_shape(chosen, wide, [&](auto shape, auto is_wide) {
    using Shape = decltype(shape);
    const ImageRows<T, is_wide> windows{x,
                                        down,
                                        across,
                                        images_of(p.P, p.Q, p.K),
                                        p.positions(),
                                        TapGrid<T, is_wide>::of(v.kernel, h.kernel, static_cast<int>(p.C)),
                                        static_cast<int>(p.C)};
    return simt::launch(implicit_fprop_kernel<T, Shape, is_wide>, dim3(gemm::tiles<Shape>(p.positions(), p.K)),
                        dim3(Shape::kThreads), 0, stream, windows, gemm::DepthMatrix<T, is_wide>{w, p.K, p.weights()},
                        Epilogue<T>{bias, relu}, y, are_aligned(y, bias) && gemm::in_packs<T>(p.K),
                        gemm::tiles_across<Shape>(p.K));
  });
}

template simt::Status conv2d_implicit_gemm_fprop(const Conv2dProblem&, const float*, const float*, const float*, float*,
                                                 bool, simt::Stream, int);

}  // namespace gpucnn

// dw[k,r,s,c] = sum over n, p, q of dy[n,p,q,k] * x[n, p*stride-padding+r*dilation, q*..., c], as a product of matrices
// of which x's is gathered. Groups of 1.
//
// The N*P*Q windows are cut into parts of equal length, each with sums of its own in `partial`; a second kernel adds
// them, always in the same order. No atomics: the same bits in every run.
//
// Layout   x (N,H,W,C), dy (N,P,Q,K), dw (K,R,S,C), partial (splits,K,R,S,C) float32. Rows are a filter's R*S*C weights
//          as they lie in memory, columns the K filters, and the depth is the windows: packs are along rows and
//          columns.
// Block    a tile of weights x filters over one part (gemm/tile.h). In a fill a thread keeps one (tap, channel) and
//          1 or 2 windows that it adds to. A thread's rows are neighbours in dw, which it stores column by column.
// Limits   float32, as tensor_core_*.cu is faster in 16 bits; what check() in problem.h asks for, and groups=1. partial
//          takes at most 64 MiB. C or K that is not whole packs takes the narrow path.
// Bound    FFMA: 2*N*P*Q*K*R*S*C flops; N32 C64 56x56 K64 3x3 pad 1, 7.4 GFLOP: 0.12 ms at the 60 TFLOP/s that an H100
//          gives in practice; of it the parts, written and read again, take 5 us at 3.0 TB/s.
// Measured not run on hardware yet.
#include "common/sum_parts.h"
#include "conv2d/conv2d.h"
#include "conv2d/gather.h"
#include "gemm/launch.h"
#include "gemm/store.h"

namespace gpucnn {
namespace {

// `partial` is null where there is one part.
template <typename T, typename Shape, bool kWide>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    implicit_wgrad_kernel(const ImageLines<T, kWide> x, const gemm::LineMatrix<T, kWide> dy, T* dw, float* partial,
                          std::int64_t windows_of_part, bool wide_dw, unsigned across, unsigned blocks_of_part) {
  using Shared = gemm::Strips<T, Shape>;
  SIMT_SHARED(Shared, strips, );
  gemm::TileAt at = gemm::tile_at<Shape>(blockIdx.x % blocks_of_part, across);
  std::int64_t part = blockIdx.x / blocks_of_part;
  const std::int64_t begin = part * windows_of_part;
  gemm::LineRows<T, Shape, kWide, ImageLines<T, kWide>> rows(x, at.row, begin);
  gemm::LineColumns<T, Shape, kWide, gemm::LineMatrix<T, kWide>> columns(dy, at.column, begin);
  gemm::Tile<T, Shape> tile;
  gemm::multiply(tile, strips, rows, columns, min(windows_of_part, x.g.positions - begin));
  const unsigned block = simt::anew(blockIdx.x);
  at = gemm::tile_at<Shape>(block % blocks_of_part, across);
  part = block / blocks_of_part;
  const std::int64_t weights = x.g.weights.value;
  if (partial != nullptr) {
    gemm::store_columns(tile, partial + part * weights * dy.lines, at.row, weights, at.column, dy.lines, wide_dw);
  } else {
    gemm::store_columns(tile, dw, at.row, weights, at.column, dy.lines, wide_dw);
  }
}

}  // namespace

std::int64_t conv2d_implicit_gemm_wgrad_splits(const Conv2dProblem& p, int configuration) {
  return gemm::choose_cut(p.weights(), p.K, p.positions(), configuration).parts;
}

template <typename T>
simt::Status conv2d_implicit_gemm_wgrad(const Conv2dProblem& p, const T* x, const T* dy, T* dw, float* partial,
                                        simt::Stream stream, int configuration) {
  require_dense(p);
  const Geometry g = geometry_of(p);
  const std::int64_t weights = p.weights();
  const gemm::Cut cut = gemm::choose_cut(weights, p.K, p.positions(), configuration);
  const bool wide =
      are_aligned(x, dy) && gemm::in_packs<T>(p.C) && gemm::in_packs<T>(p.K) &&
      p.R * p.dilation.vertical + 1 <= (std::int64_t{0x7fffffff} / p.C) / (p.W + p.S * p.dilation.horizontal);
  float* const parts = cut.parts > 1 ? partial : nullptr;
  const bool wide_dw = (parts ? are_aligned(parts) : are_aligned(dw)) && gemm::in_packs<T>(weights);
  const simt::Status status = gemm::with_shape(cut.configuration, wide, [&](auto shape, auto is_wide) {
    using Shape = decltype(shape);
    const unsigned blocks = gemm::tiles<Shape>(weights, p.K);
    return simt::launch(implicit_wgrad_kernel<T, Shape, is_wide>, dim3(blocks * static_cast<unsigned>(cut.parts)),
                        dim3(Shape::kThreads), 0, stream, ImageLines<T, is_wide>::of(g, x),
                        gemm::LineMatrix<T, is_wide>{dy, p.K, p.positions()}, dw, parts, cut.depth, wide_dw,
                        gemm::tiles_across<Shape>(p.K), blocks);
  });
  if (status != simt::kSuccess || cut.parts == 1) return status;
  return sum_parts(partial, dw, cut.parts, p.K * weights, stream);
}

template simt::Status conv2d_implicit_gemm_wgrad(const Conv2dProblem&, const float*, const float*, float*, float*,
                                                 simt::Stream, int);

}  // namespace gpucnn

// dw[k,r,s,c] = sum over n, p, q of dy[n,p,q,k] * x[n, p*stride-padding+r*dilation, q*..., c] on tensor cores, as a
// product of matrices of which x's is gathered. Groups of 1.
//
// The N*P*Q windows are cut into parts of equal length, each with sums of its own in `partial`; a second kernel adds
// them, always in the same order. No atomics: the same bits in every run.
//
// Layout   x (N,H,W,C), dy (N,P,Q,K), dw (K,R,S,C), partial (splits,K,R,S,C) float32. Rows are the K filters, columns a
//          filter's R*S*C weights as they lie in memory, and the depth is the windows, 32 of them a strip (16 of
//          float32): units of 16 bytes lie along rows and columns, which ldmatrix turns, or, of float32, loads of 8
//          bytes.
// Block    a tile of filters x weights over one part (mma/tile.h). Thread: in a copy 2 to 8 units of a window that it
//          adds to.
// Limits   what check() in problem.h asks for; groups of 1, others are tensor_core_groups_wgrad.cu's. C and K in whole
//          units of 16 bytes, or mma/operands.h's narrow path. partial takes at most 64 MiB.
// Bound    N32 C64 56x56 K64 3x3 pad 1 of 16 bits: 3.7 G products, 13 us at 1,200 a cycle and multiprocessor of an
//          H100's mma.sync; 26 MB of x and dy take 9 us at 3.0 TB/s, and the parts, written and read again, 5 us.
// Measured not run on hardware yet.
#include "common/sum_parts.h"
#include "conv2d/gather.h"
#include "conv2d/tensor_core_limits.h"
#include "mma/launch.h"
#include "mma/operands.h"
#include "mma/store.h"

#include <type_traits>

namespace gpucnn {
namespace {

// `partial` is null where there is one part.
template <typename A, typename Shape, bool kWide, typename T>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    tensor_wgrad_kernel(const gemm::LineMatrix<T, true, mma::kStrip<T>> dy, const ImageLines<T, true, mma::kStrip<T>> x,
                        T* dw, float* partial, std::int64_t windows_of_part, bool wide_dw, unsigned across,
                        unsigned blocks_of_part) {
  using Rows = mma::LineOperand<T, Shape::kThreads, Shape::kRows, kWide, gemm::LineMatrix<T, true, mma::kStrip<T>>>;
  using Columns = mma::LineOperand<T, Shape::kThreads, Shape::kColumns, kWide, ImageLines<T, true, mma::kStrip<T>>>;
  SIMT_DYNAMIC_SHARED(uint4, ring);
  const auto here = [&] { return gemm::tile_at<Shape>(simt::anew(blockIdx.x) % blocks_of_part, across); };
  const std::int64_t begin = blockIdx.x / blocks_of_part * windows_of_part;
  mma::Tile<A, Shape, typename Rows::Strip, typename Columns::Strip> tile;
  mma::multiply(
      tile, ring, [&] { return Rows(dy, here().row, begin); }, [&] { return Columns(x, here().column, begin); },
      min(windows_of_part, x.g.positions - begin));
  const gemm::TileAt at = here();
  const std::int64_t part = simt::anew(blockIdx.x) / blocks_of_part;
  const std::int64_t weights = x.g.weights.value;
  const auto offset = [&](std::int64_t filter) { return filter * weights; };
  if (partial != nullptr) {
    mma::store_rows(tile, partial + part * weights * dy.lines, at.row, dy.lines, at.column, weights, wide_dw,
                    mma::AsItIs{}, offset);
  } else {
    mma::store_rows(tile, dw, at.row, dy.lines, at.column, weights, wide_dw, mma::AsItIs{}, offset);
  }
}

}  // namespace

// The parts are the same in each precision.
std::int64_t conv2d_tensor_core_wgrad_splits(const Conv2dProblem& p, int configuration) {
  if (p.groups > 1) return conv2d_tensor_core_group_wgrad_splits(p);
  return mma::kTiling.choose_cut(p.K, p.weights(), p.positions(), configuration).parts;
}

template <typename T>
simt::Status conv2d_tensor_core_wgrad(const Conv2dProblem& p, const T* x, const T* dy, T* dw, float* partial,
                                      simt::Stream stream, mma::Precision precision, int configuration) {
  require_tensor_core(p);
  if (p.groups > 1) return conv2d_tensor_core_group_wgrad(p, x, dy, dw, partial, stream, precision);
  constexpr int kStep = mma::kStrip<T>;
  const std::int64_t weights = p.weights();
  const auto cut = mma::kTiling.choose_cut(p.K, weights, p.positions(), configuration);
  const auto images = ImageLines<T, true, kStep>::of(geometry_of(p), x);
  const gemm::LineMatrix<T, true, kStep> gradients{dy, p.K, p.positions()};
  float* const parts = cut.parts > 1 ? partial : nullptr;
  const bool whole = gemm::in_packs<T>(p.C), wide = are_aligned(x, dy) && whole && gemm::in_packs<T>(p.K);
  const bool wide_dw = whole && (parts ? are_aligned(parts) : are_aligned(dw));
  const simt::Status status = mma::with_arithmetic<T>(precision, [&](auto arithmetic) {
    using A = decltype(arithmetic);
    const int chosen = std::is_same_v<A, mma::Split> ? mma::kSplitTiling.choose(p.K * cut.parts, weights, configuration)
                                                     : cut.configuration;
    return mma::with_shape<A, mma::SplitSmall>(chosen, wide, [&](auto shape, auto is_wide) {
      using Shape = decltype(shape);
      const unsigned blocks = gemm::tiles<Shape>(p.K, weights);
      return simt::launch(tensor_wgrad_kernel<A, Shape, decltype(is_wide)::value, T>,
                          dim3(blocks * static_cast<unsigned>(cut.parts)), dim3(Shape::kThreads), Shape::kSharedBytes,
                          stream, gradients, images, dw, parts, cut.depth, wide_dw, gemm::tiles_across<Shape>(weights),
                          blocks);
    });
  });
  if (status != simt::kSuccess || cut.parts == 1) return status;
  return sum_parts(partial, dw, cut.parts, p.K * weights, stream);
}

template simt::Status conv2d_tensor_core_wgrad(const Conv2dProblem&, const float*, const float*, float*, float*,
                                               simt::Stream, mma::Precision, int);
template simt::Status conv2d_tensor_core_wgrad(const Conv2dProblem&, const simt::half*, const simt::half*, simt::half*,
                                               float*, simt::Stream, mma::Precision, int);
template simt::Status conv2d_tensor_core_wgrad(const Conv2dProblem&, const simt::bfloat16*, const simt::bfloat16*,
                                               simt::bfloat16*, float*, simt::Stream, mma::Precision, int);

}  // namespace gpucnn

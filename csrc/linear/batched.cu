// y[i] = a[i] * b[i] for all matrices of a batch, in one launch; either operand transposed as it lies in memory.
//
// Layout   y (matrices,M,N); a's matrices (M,K) or transposed (K,M), b's (K,N) or transposed (N,K); the batch's steps
//          say where a matrix begins, so that one may serve many.
// Block    a tile of one matrix of y (gemm/tile.h, configuration Small). Tiles before matrices: blocks side by side
//          share operands.
// Limits   as linear.h says. Sizes along memory that are whole packs, and aligned addresses, take the wide path.
// Bound    FFMA: 2*M*N*K flops a matrix; 384 of 197 x 197 x 64 (attention of ViT-B at N32), 1.9 GFLOP, take 32 us at 60
//          TFLOP/s, of which tiles at the edges waste a third; 98 MB, 33 us at 3.0 TB/s.
// Measured not run on hardware yet.
#include "common/epilogue.h"
#include "gemm/launch.h"
#include "gemm/operands.h"
#include "gemm/store.h"
#include "linear/linear.h"

#include <stdexcept>
#include <type_traits>

namespace gpucnn {
namespace {

using gemm::DepthMatrix;
using gemm::DepthOperand;
using gemm::LineMatrix;
using gemm::LineOperand;
using Shape = gemm::Small;

// An operand of kSize lines of a tile, whose matrix has its depth in memory order, or its lines.
template <typename T, int kSize, int kOwn, bool kWide, bool kDepthOrder>
struct Operand {
  using Matrix = std::conditional_t<kDepthOrder, DepthMatrix<T, kWide>, LineMatrix<T, kWide>>;
  using Type = std::conditional_t<kDepthOrder, DepthOperand<T, Shape, kSize, kOwn, kWide, Matrix>,
                                  LineOperand<T, Shape, kSize, kOwn, kWide, Matrix>>;
};

template <typename T, bool kTransposedA, bool kTransposedB, bool kWide>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    batched_kernel(const gemm::Sizes s, const Batch batch, const T* __restrict__ a, const T* __restrict__ b, T* y,
                   bool wide_y, unsigned across, Divisor tiles) {
  using Shared = gemm::Strips<T, Shape>;
  SIMT_SHARED(Shared, strips, );
  const Quotient matrix = tiles.divide(blockIdx.x);
  std::int64_t rest = matrix.whole, a_offset = 0, b_offset = 0;
#pragma unroll
  for (int axis = kBatchAxes - 1; axis >= 0; --axis) {
    const Quotient digit = batch.sizes[axis].divide(rest);
    a_offset += digit.rest * batch.a_steps[axis];
    b_offset += digit.rest * batch.b_steps[axis];
    rest = digit.whole;
  }
  const gemm::TileAt at = gemm::tile_at<Shape>(static_cast<unsigned>(matrix.rest), across);
  using Left = Operand<T, Shape::kRows, 8, kWide, !kTransposedA>;
  using Right = Operand<T, Shape::kColumns, Shape::kOwnColumns, kWide, kTransposedB>;
  const typename Left::Matrix left{a + a_offset, s.M, s.K};
  const typename Right::Matrix right{b + b_offset, s.N, s.K};
  typename Left::Type rows(left, at.row);
  typename Right::Type columns(right, at.column);
  gemm::Tile<T, Shape> tile;
  gemm::multiply(tile, strips, rows, columns, s.K);
  gemm::store_rows(tile, y + matrix.whole * s.M * s.N, at.row, s.M, at.column, s.N, wide_y, Epilogue<T>{nullptr, false},
                   [&](std::int64_t row) { return row * s.N; });
}

template <typename T, bool kWide>
auto kernel_of(bool transposed_a, bool transposed_b) {
  if (transposed_a) return transposed_b ? batched_kernel<T, true, true, kWide> : batched_kernel<T, true, false, kWide>;
  return transposed_b ? batched_kernel<T, false, true, kWide> : batched_kernel<T, false, false, kWide>;
}

}  // namespace

template <typename T>
simt::Status matmul_batched(const gemm::Sizes& s, const Batch& batch, const T* a, bool transposed_a, const T* b,
                            bool transposed_b, T* y, simt::Stream stream) {
  if (s.M == 0 || s.N == 0 || batch.matrices == 0) return simt::kSuccess;
  const std::int64_t tiles = gemm::tiles<Shape>(s.M, s.N);
  if (tiles > kMostCells / batch.matrices) throw std::invalid_argument("matmul: y has 2^31 tiles or more");
  const bool wide =
      are_aligned(a, b) && gemm::in_packs<T>(transposed_a ? s.M : s.K) && gemm::in_packs<T>(transposed_b ? s.K : s.N);
  const auto kernel =
      wide ? kernel_of<T, true>(transposed_a, transposed_b) : kernel_of<T, false>(transposed_a, transposed_b);
  return simt::launch(kernel, dim3(static_cast<unsigned>(tiles * batch.matrices)), dim3(Shape::kThreads), 0, stream, s,
                      batch, a, b, y, are_aligned(y) && gemm::in_packs<T>(s.N), gemm::tiles_across<Shape>(s.N),
                      divisor_of(tiles));
}

#define GPUCNN_INSTANTIATE(T)                                                                                \
  template simt::Status matmul_batched(const gemm::Sizes&, const Batch&, const T*, bool, const T*, bool, T*, \
                                       simt::Stream);
GPUCNN_INSTANTIATE(float)
GPUCNN_INSTANTIATE(simt::half)
GPUCNN_INSTANTIATE(simt::bfloat16)

}  // namespace gpucnn

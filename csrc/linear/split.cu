// y = relu(x * transposed(w) + bias) and dx = dy * w for few rows of x and dy: a step of one image, or of a small
// batch.
//
// A tile of gemm/tile.h would have a row of it to do and 127 to repeat. Here the tile's rows are w's lines, of which
// there are many, and its columns the few of x; and the sum over depth is cut into parts, so that all multiprocessors
// read a share of w. A second kernel adds the parts in order, with bias and ReLU.
//
// Layout   x, dx (M,K), w (N,K), y, dy (M,N), bias (N,), partial (parts, M, width): width is N forward, K backward.
// Block    128 lines of `width`, 32 rows of M, one part of the depth (configuration Thin). Warp, thread: as tile.h has
//          them.
// Sum      a thread owns one sum; neighbours own neighbouring ones, so a warp reads 128 contiguous bytes of a part.
// Limits   as gemm.h says. Parts depend on N and K alone: a row has the same bits in any M.
// Bound    memory: w, 2 or 4 bytes an element, is read once for 32 rows. VGG's first (N4096 K25088), 411 MB, takes 137
//          us at 3.0 TB/s; a tile's 32 products an element of w take as long at 60 TFLOP/s, so fewer rows are not
//          faster. ResNet-50's last (N1000 K2048), 8.2 MB, 2.7 us; its parts at M=32, 1 MB, 0.7 us.
// Measured not run on hardware yet.
#include "common/epilogue.h"
#include "common/index.h"
#include "gemm/launch.h"
#include "gemm/operands.h"
#include "gemm/store.h"
#include "linear/linear.h"

#include <algorithm>
#include <type_traits>

namespace gpucnn {
namespace {

using gemm::DepthMatrix;
using gemm::LineMatrix;
using Shape = gemm::Thin;

constexpr int kSumThreads = 256;
constexpr std::int64_t kBlocks = 528;            // wanted in a grid: 4 for each of an H100's 132 multiprocessors
constexpr std::int64_t kFewestDepth = 256;       // of a part, which writes a sum for each row and line
constexpr std::int64_t kMostPartSums = 1 << 18;  // parts * width: 64 rows of them are 64 MiB

// Of a part but the last, a multiple of a strip's.
std::int64_t depth_of_part(std::int64_t width, std::int64_t depth) {
  const std::int64_t wanted = blocks_of(blocks_of(Shape::kRows, width), kBlocks);
  const std::int64_t parts = std::max<std::int64_t>(1, std::min({wanted, depth / kFewestDepth, kMostPartSums / width}));
  return blocks_of(gemm::kTiling.whole_depth, blocks_of(parts, depth)) * gemm::kTiling.whole_depth;
}

// Lines of the tile are rows of w forward, columns of w backward; `few` is x or dy.
template <typename T, bool kBackward, bool kWide>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    split_kernel(const DepthMatrix<T, kWide> few, const T* __restrict__ w, std::int64_t width, float* partial,
                 std::int64_t part_depth, bool wide_partial, unsigned across, unsigned blocks_of_part) {
  using Shared = gemm::Strips<T, Shape>;
  SIMT_SHARED(Shared, strips, );
  const gemm::TileAt at = gemm::tile_at<Shape>(blockIdx.x % blocks_of_part, across);
  const std::int64_t part = blockIdx.x / blocks_of_part, begin = part * part_depth;
  const std::int64_t depth = min(part_depth, few.depths - begin);
  gemm::DepthColumns<T, Shape, kWide, DepthMatrix<T, kWide>> columns(few, at.column, begin);
  gemm::Tile<T, Shape> tile;
  if constexpr (kBackward) {
    const LineMatrix<T, kWide> matrix{w, width, few.depths};
    gemm::LineRows<T, Shape, kWide, LineMatrix<T, kWide>> rows(matrix, at.row, begin);
    gemm::multiply(tile, strips, rows, columns, depth);
  } else {
    const DepthMatrix<T, kWide> matrix{w, width, few.depths};
    gemm::DepthRows<T, Shape, kWide, DepthMatrix<T, kWide>> rows(matrix, at.row, begin);
    gemm::multiply(tile, strips, rows, columns, depth);
  }
  gemm::store_columns(tile, partial + part * few.lines * width, at.row, width, at.column, few.lines, wide_partial);
}

template <typename T>
__global__ void __launch_bounds__(kSumThreads)
    split_sum_kernel(const float* __restrict__ partial, std::int64_t parts, std::int64_t count, Divisor width,
                     const Epilogue<T> epilogue, T* __restrict__ out) {
  const std::int64_t index = std::int64_t{blockIdx.x} * kSumThreads + threadIdx.x;
  if (index >= count) return;
  float sum = partial[index];
#pragma unroll 4
  for (std::int64_t part = 1; part < parts; ++part) sum += partial[part * count + index];
  out[index] = simt::from_float<T>(epilogue(sum, width.divide(index).rest));
}

template <bool kBackward, typename T>
simt::Status split(std::int64_t rows, std::int64_t width, std::int64_t depth, const T* few, const T* w,
                   const Epilogue<T>& epilogue, T* out, float* partial, simt::Stream stream) {
  if (rows == 0 || width == 0) return simt::kSuccess;
  const std::int64_t part_depth = depth_of_part(width, depth), parts = linear_split_parts(width, depth);
  const bool wide = are_aligned(few, w) && gemm::in_packs<T>(depth) && (!kBackward || gemm::in_packs<T>(width));
  const bool wide_partial = are_aligned(partial) && gemm::in_packs<T>(width);
  const unsigned blocks = gemm::tiles<Shape>(width, rows);
  const auto launch = [&](auto is_wide) {
    return simt::launch(split_kernel<T, kBackward, is_wide>, dim3(blocks * static_cast<unsigned>(parts)),
                        dim3(Shape::kThreads), 0, stream, DepthMatrix<T, is_wide>{few, rows, depth}, w, width, partial,
                        part_depth, wide_partial, gemm::tiles_across<Shape>(rows), blocks);
  };
  const simt::Status status = wide ? launch(std::true_type{}) : launch(std::false_type{});
  if (status != simt::kSuccess) return status;
  return simt::launch(split_sum_kernel<T>, dim3(static_cast<unsigned>(blocks_of(kSumThreads, rows * width))),
                      dim3(kSumThreads), 0, stream, partial, parts, rows * width, divisor_of(width), epilogue, out);
}

}  // namespace

std::int64_t linear_split_parts(std::int64_t width, std::int64_t depth) {
  return width == 0 || depth == 0 ? 1 : blocks_of(depth_of_part(width, depth), depth);
}

template <typename T>
simt::Status linear_split_fprop(const gemm::Sizes& s, const T* x, const T* w, const T* bias, bool relu, T* y,
                                float* partial, simt::Stream stream) {
  return split<false>(s.M, s.N, s.K, x, w, Epilogue<T>{bias, relu}, y, partial, stream);
}

template <typename T>
simt::Status linear_split_dgrad(const gemm::Sizes& s, const T* dy, const T* w, T* dx, float* partial,
                                simt::Stream stream) {
  return split<true>(s.M, s.K, s.N, dy, w, Epilogue<T>{nullptr, false}, dx, partial, stream);
}

#define GPUCNN_INSTANTIATE(T)                                                                                  \
  template simt::Status linear_split_fprop(const gemm::Sizes&, const T*, const T*, const T*, bool, T*, float*, \
                                           simt::Stream);                                                      \
  template simt::Status linear_split_dgrad(const gemm::Sizes&, const T*, const T*, T*, float*, simt::Stream);
GPUCNN_INSTANTIATE(float)
GPUCNN_INSTANTIATE(simt::half)
GPUCNN_INSTANTIATE(simt::bfloat16)

}  // namespace gpucnn

// y = x * transposed(w) + bias, dx = dy * w and dw = transposed(dy) * x: plain products, float32 sums of T.
//
// Layout   x, dx (M,K), w, dw (N,K), y, dy (M,N), bias (N,), in C order. In y rows are M, columns N; in dx rows are M,
//          columns K; in dw the tile's rows are K and its columns N, so that what is longer comes first and rows are
//          neighbours in memory.
// Block    a tile of sums (tile.h), of dw over one part of M. Warp, thread: as tile.h says.
// Limits   as gemm.h says. A part of a cut sum is written as float32 and added by sum_parts.
// Bound    FFMA: 2*M*N*K flops. M=100352 (N32 56x56), K64, N64, 0.82 GFLOP: 14 us at 60 TFLOP/s; but 51 MB, which take
//          17 us at 3.0 TB/s. M=6272 (N32 14x14), K1024, N256, 3.3 GFLOP: 55 us.
// Measured not run on hardware yet.
#include "common/sum_parts.h"
#include "gemm/gemm.h"
#include "gemm/launch.h"
#include "gemm/operands.h"
#include "gemm/store.h"

namespace gpucnn::gemm {
namespace {

template <typename T, typename Shape, bool kWide>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    nt_kernel(const DepthMatrix<T, kWide> x, const DepthMatrix<T, kWide> w, const Epilogue<T> epilogue, T* y,
              bool wide_y, unsigned across) {
  using Shared = Strips<T, Shape>;
  SIMT_SHARED(Shared, strips, );
  TileAt at = tile_at<Shape>(blockIdx.x, across);
  DepthRows<T, Shape, kWide, DepthMatrix<T, kWide>> rows(x, at.row);
  DepthColumns<T, Shape, kWide, DepthMatrix<T, kWide>> columns(w, at.column);
  Tile<T, Shape> tile;
  multiply(tile, strips, rows, columns, x.depths);
  at = tile_at<Shape>(simt::anew(blockIdx.x), across);
  store_rows(tile, y, at.row, x.lines, at.column, w.lines, wide_y, epilogue,
             [&](std::int64_t row) { return row * w.lines; });
}

template <typename T, typename Shape, bool kWide>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    nn_kernel(const DepthMatrix<T, kWide> dy, const LineMatrix<T, kWide> w, T* dx, bool wide_dx, unsigned across) {
  using Shared = Strips<T, Shape>;
  SIMT_SHARED(Shared, strips, );
  TileAt at = tile_at<Shape>(blockIdx.x, across);
  DepthRows<T, Shape, kWide, DepthMatrix<T, kWide>> rows(dy, at.row);
  LineColumns<T, Shape, kWide, LineMatrix<T, kWide>> columns(w, at.column);
  Tile<T, Shape> tile;
  multiply(tile, strips, rows, columns, dy.depths);
  at = tile_at<Shape>(simt::anew(blockIdx.x), across);
  store_rows(tile, dx, at.row, dy.lines, at.column, w.lines, wide_dx, Epilogue<T>{nullptr, false},
             [&](std::int64_t row) { return row * w.lines; });
}

// `partial` is null where there is one part.
template <typename T, typename Shape, bool kWide>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    tn_kernel(const LineMatrix<T, kWide> x, const LineMatrix<T, kWide> dy, T* dw, float* partial,
              std::int64_t depth_of_part, bool wide_dw, unsigned across, unsigned blocks_of_part) {
  using Shared = Strips<T, Shape>;
  SIMT_SHARED(Shared, strips, );
  TileAt at = tile_at<Shape>(blockIdx.x % blocks_of_part, across);
  std::int64_t part = blockIdx.x / blocks_of_part;
  const std::int64_t begin = part * depth_of_part;
  LineRows<T, Shape, kWide, LineMatrix<T, kWide>> rows(x, at.row, begin);
  LineColumns<T, Shape, kWide, LineMatrix<T, kWide>> columns(dy, at.column, begin);
  Tile<T, Shape> tile;
  multiply(tile, strips, rows, columns, min(depth_of_part, x.depths - begin));
  const unsigned block = simt::anew(blockIdx.x);
  at = tile_at<Shape>(block % blocks_of_part, across);
  part = block / blocks_of_part;
  const unsigned thread = simt::anew(threadIdx.x);
  if (partial != nullptr) {
    store_columns(tile, partial + part * x.lines * dy.lines, at.row, x.lines, at.column, dy.lines, wide_dw, thread);
  } else {
    store_columns(tile, dw, at.row, x.lines, at.column, dy.lines, wide_dw, thread);
  }
}

}  // namespace

template <typename T>
simt::Status matmul_nt(const Sizes& s, const T* x, const T* w, const T* bias, bool relu, T* y, simt::Stream stream,
                       int configuration) {
  if (s.M == 0 || s.N == 0) return simt::kSuccess;
  const bool wide = are_aligned(x, w) && in_packs<T>(s.K);
  return with_shape(choose(s.M, s.N, wide, configuration), wide, [&](auto shape, auto is_wide) {
    using Shape = decltype(shape);
    return simt::launch(nt_kernel<T, Shape, is_wide>, dim3(tiles<Shape>(s.M, s.N)), dim3(Shape::kThreads), 0, stream,
                        DepthMatrix<T, is_wide>{x, s.M, s.K}, DepthMatrix<T, is_wide>{w, s.N, s.K},
                        Epilogue<T>{bias, relu}, y, are_aligned(y, bias) && in_packs<T>(s.N), tiles_across<Shape>(s.N));
  });
}

template <typename T>
simt::Status matmul_nn(const Sizes& s, const T* dy, const T* w, T* dx, simt::Stream stream, int configuration) {
  if (s.M == 0 || s.K == 0) return simt::kSuccess;
  const bool wide = are_aligned(dy, w) && in_packs<T>(s.N) && in_packs<T>(s.K);
  return with_shape(choose(s.M, s.K, wide, configuration), wide, [&](auto shape, auto is_wide) {
    using Shape = decltype(shape);
    return simt::launch(nn_kernel<T, Shape, is_wide>, dim3(tiles<Shape>(s.M, s.K)), dim3(Shape::kThreads), 0, stream,
                        DepthMatrix<T, is_wide>{dy, s.M, s.N}, LineMatrix<T, is_wide>{w, s.K, s.N}, dx,
                        are_aligned(dx) && in_packs<T>(s.K), tiles_across<Shape>(s.K));
  });
}

namespace {

Cut cut_of(const Sizes& s, int configuration) {
  return choose_cut(s.K, s.N, s.M, configuration);
}

}  // namespace

std::int64_t matmul_tn_parts(const Sizes& s, int configuration) {
  return cut_of(s, configuration).parts;
}

template <typename T>
simt::Status matmul_tn(const Sizes& s, const T* x, const T* dy, T* dw, float* partial, simt::Stream stream,
                       int configuration) {
  if (s.N == 0 || s.K == 0) return simt::kSuccess;
  const bool wide = are_aligned(x, dy) && in_packs<T>(s.N) && in_packs<T>(s.K);
  const Cut cut = cut_of(s, configuration);
  float* const parts = cut.parts > 1 ? partial : nullptr;
  const bool wide_dw = (parts ? are_aligned(parts) : are_aligned(dw)) && in_packs<T>(s.K);
  const simt::Status status = with_shape(cut.configuration, wide, [&](auto shape, auto is_wide) {
    using Shape = decltype(shape);
    const unsigned blocks = tiles<Shape>(s.K, s.N);
    return simt::launch(tn_kernel<T, Shape, is_wide>, dim3(blocks * static_cast<unsigned>(cut.parts)),
                        dim3(Shape::kThreads), 0, stream, LineMatrix<T, is_wide>{x, s.K, s.M},
                        LineMatrix<T, is_wide>{dy, s.N, s.M}, dw, parts, cut.depth, wide_dw, tiles_across<Shape>(s.N),
                        blocks);
  });
  if (status != simt::kSuccess || cut.parts == 1) return status;
  return sum_parts(partial, dw, cut.parts, s.N * s.K, stream);
}

#define GPUCNN_INSTANTIATE(T)                                                                               \
  template simt::Status matmul_nt(const Sizes&, const T*, const T*, const T*, bool, T*, simt::Stream, int); \
  template simt::Status matmul_nn(const Sizes&, const T*, const T*, T*, simt::Stream, int);                 \
  template simt::Status matmul_tn(const Sizes&, const T*, const T*, T*, float*, simt::Stream, int);
GPUCNN_INSTANTIATE(float)
GPUCNN_INSTANTIATE(simt::half)
GPUCNN_INSTANTIATE(simt::bfloat16)

}  // namespace gpucnn::gemm

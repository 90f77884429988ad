// y and dx as tensor_core_fprop.cu and tensor_core_dgrad.cu compute them, of few windows with long sums: a network's
// last stages at a batch of one, where there are fewer tiles than multiprocessors. The depth of the sums is cut into
// parts, each of them a block's; a second kernel adds a sum's parts in order and does what the epilogue says.
//
// Layout   as there; partial (parts, size of the output) float32.
// Block    a tile of 64 x 64 sums over one part of the depth. Sums: a thread has 4 neighbouring ones (1 where rows of
//          the output are no multiples of 4), and reads all of their parts.
// Limits   as there, and partial takes at most 64 MiB. Parts are cut by the sizes of one image: it has the same bits in
//          any batch.
// Bound    N1 C512 7x7 K512 3x3 of 16 bits: 4.7 MB of w take 1.6 us at an H100's 3.0 TB/s; 33 parts of 100 KB, written
//          and read in its cache, 1.3 us at 5,120 bytes a cycle.
// Measured not run on hardware yet.
#include "conv2d/dgrad_classes.h"
#include "conv2d/fprop_sources.h"
#include "conv2d/tensor_core_limits.h"
#include "mma/launch.h"
#include "mma/operands.h"
#include "mma/store.h"

#include <algorithm>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace gpucnn {
namespace {

constexpr int kSumThreads = 128, kTogether = 4;
constexpr std::int64_t kFewestDepth = 128;  // of a part, which writes a sum for each of its own
constexpr std::int64_t kBlocks = 2 * 132;   // wanted for one image: 2 for each of an H100's multiprocessors

template <typename A>
using ShapeOf = std::conditional_t<std::is_same_v<A, mma::Split>, mma::SplitSmall, mma::Small>;

// The depth of each part but the last of one image's rows x columns sums: a multiple of a strip of either size.
std::int64_t depth_of_part(std::int64_t rows, std::int64_t columns, std::int64_t depth) {
  const std::int64_t tiles = gemm::tiles<mma::Small>(rows, columns);
  const std::int64_t parts = std::max<std::int64_t>(1, std::min(kBlocks / tiles, depth / kFewestDepth));
  return blocks_of(mma::kTiling.whole_depth, blocks_of(parts, depth)) * mma::kTiling.whole_depth;
}

struct Cut {
  std::int64_t depth, parts;  // of a part; how many
};

Cut cut_of_fprop(const Conv2dProblem& p) {
  const std::int64_t each = depth_of_part(p.P * p.Q, p.K, p.weights());
  return {each, blocks_of(each, p.weights())};
}

// Of the class with the most taps.
Cut cut_of_dgrad(const Conv2dProblem& p) {
  const DgradPlan plan = DgradPlan::of(p);
  const std::int64_t taps = blocks_of(plan.down.tap_step, p.R) * blocks_of(plan.across.tap_step, p.S);
  const std::int64_t each = depth_of_part(plan.height * plan.width * plan.classes, p.C, taps * p.K);
  return {each, blocks_of(each, taps * p.K)};
}

template <typename A, typename T>
__global__ void __launch_bounds__(ShapeOf<A>::kThreads, ShapeOf<A>::kBlocks)
    tensor_cut_fprop_kernel(const ImageRows<T, true, mma::kStrip<T>> x,
                            const gemm::DepthMatrix<T, true, mma::kStrip<T>> w, float* partial, std::int64_t part_depth,
                            bool wide, unsigned across, unsigned blocks_of_part) {
  using Shape = ShapeOf<A>;
  using Rows = mma::DepthOperand<T, Shape::kThreads, Shape::kRows, true, ImageRows<T, true, mma::kStrip<T>>>;
  using Columns =
      mma::DepthOperand<T, Shape::kThreads, Shape::kColumns, true, gemm::DepthMatrix<T, true, mma::kStrip<T>>>;
  SIMT_DYNAMIC_SHARED(uint4, ring);
  const gemm::TileAt at = gemm::tile_at<Shape>(blockIdx.x % blocks_of_part, across);
  const std::int64_t part = blockIdx.x / blocks_of_part, begin = part * part_depth;
  mma::Tile<A, Shape, typename Rows::Strip, typename Columns::Strip> tile;
  mma::multiply(
      tile, ring, [&] { return Rows(x, at.row, begin); }, [&] { return Columns(w, at.column, begin); },
      min(part_depth, w.depths - begin));
  mma::store_rows(tile, partial + part * x.count * w.lines, at.row, x.count, at.column, w.lines, wide, mma::AsItIs{},
                  [&](std::int64_t row) { return row * w.lines; });
}

// A part that is beyond the depth of its class has zeros.
template <typename A, typename T>
__global__ void __launch_bounds__(ShapeOf<A>::kThreads, ShapeOf<A>::kBlocks)
    tensor_cut_dgrad_kernel(const DgradArguments<T> p, float* partial, std::int64_t size, std::int64_t part_depth,
                            bool wide, unsigned blocks_of_part) {
  constexpr int kStep = mma::kStrip<T>;
  using Shape = ShapeOf<A>;
  using Rows = mma::DepthOperand<T, Shape::kThreads, Shape::kRows, true, ImageRows<T, true, kStep>>;
  using Columns = mma::LineOperand<T, Shape::kThreads, Shape::kColumns, true, FilterLines<T, true, kStep>>;
  SIMT_DYNAMIC_SHARED(uint4, ring);
  const DgradTile at = dgrad_tile<Shape>(p, blockIdx.x % blocks_of_part);
  const std::int64_t part = blockIdx.x / blocks_of_part, begin = part * part_depth;
  const auto sources = dgrad_sources<true, kStep>(p, at);
  mma::Tile<A, Shape, typename Rows::Strip, typename Columns::Strip> tile;
  mma::multiply(
      tile, ring, [&] { return Rows(sources.windows, at.row, begin); },
      [&] { return Columns(sources.filters, at.column, begin); },
      max(std::int64_t{0}, min(part_depth, sources.windows.taps.depth() - begin)));
  mma::store_rows(tile, partial + part * size, at.row, p.count, at.column, p.C, wide, mma::AsItIs{},
                  [&](std::int64_t index) { return dgrad_offset(p, at, index); });
}

template <typename T, int kEach>
__global__ void __launch_bounds__(kSumThreads)
    tensor_cut_sum_kernel(const float* __restrict__ partial, std::int64_t parts, std::int64_t count, Divisor columns,
                          const mma::Epilogue<T> epilogue, T* __restrict__ out) {
  const std::int64_t index = (std::int64_t{blockIdx.x} * kSumThreads + threadIdx.x) * kEach;
  if (index >= count) return;
  const std::int64_t column = columns.divide(index).rest;
  Floats<kEach> bias = {}, scale, shift = {}, added = {};
  if (epilogue.bias != nullptr) bias = load<kEach>(epilogue.bias + column);
#pragma unroll
  for (int i = 0; i < kEach; ++i) scale[i] = 1.0f;
  if (epilogue.scale != nullptr) {
    scale = load<kEach>(epilogue.scale + column);
    shift = load<kEach>(epilogue.shift + column);
  }
  if (epilogue.residual != nullptr) added = load<kEach>(epilogue.residual + index);
  Floats<kEach> sums = load<kEach>(partial + index);
#pragma unroll 8
  for (std::int64_t part = 1; part < parts; ++part) {
    const Floats<kEach> more = load<kEach>(partial + (part * count + index));
#pragma unroll
    for (int i = 0; i < kEach; ++i) sums[i] += more[i];
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    sums[i] = mma::finished(epilogue, sums[i], {scale[i], fmaf(bias[i], scale[i], shift[i])}, added[i]);
  }
  store(out + index, sums);
}

template <typename T>
simt::Status finish(const float* partial, std::int64_t parts, std::int64_t count, std::int64_t columns,
                    const mma::Epilogue<T>& epilogue, T* out, simt::Stream stream) {
  const auto launch = [&](auto each, auto kernel) {
    constexpr int kEach = decltype(each)::value;
    return simt::launch(kernel, dim3(static_cast<unsigned>(blocks_of(kSumThreads, blocks_of(kEach, count)))),
                        dim3(kSumThreads), 0, stream, partial, parts, count, divisor_of(columns), epilogue, out);
  };
  if (columns % kTogether == 0 &&
      are_aligned(partial, epilogue.bias, epilogue.scale, epilogue.shift, epilogue.residual, out)) {
    return launch(std::integral_constant<int, kTogether>{}, tensor_cut_sum_kernel<T, kTogether>);
  }
  return launch(std::integral_constant<int, 1>{}, tensor_cut_sum_kernel<T, 1>);
}

// There is no path by single elements: `sizes` lie along memory.
template <typename T>
void require_whole(const Conv2dProblem& p, std::initializer_list<std::int64_t> sizes, bool aligned) {
  require_dense(p);
  require_tensor_core(p);
  for (const std::int64_t size : sizes) {
    if (gemm::in_packs<T>(size)) continue;
    throw std::invalid_argument("conv2d: the tensor_core_cut kernel needs channels that are multiples of " +
                                std::to_string(kPack<T>) + ", got " + std::to_string(size));
  }
  if (!aligned) throw std::invalid_argument("conv2d: the tensor_core_cut kernel needs arrays aligned to 16 bytes");
}

void require_workspace(std::int64_t parts, std::int64_t count) {
  if (parts * count <= decltype(mma::kTiling)::kWorkspace / 4) return;
  throw std::invalid_argument("conv2d: the tensor_core_cut kernel needs fewer images: its parts take more than 64 MiB");
}

}  // namespace

std::int64_t conv2d_tensor_core_cut_fprop_splits(const Conv2dProblem& p) {
  return cut_of_fprop(p).parts;
}
std::int64_t conv2d_tensor_core_cut_dgrad_splits(const Conv2dProblem& p) {
  return cut_of_dgrad(p).parts;
}

template <typename T>
simt::Status conv2d_tensor_core_cut_fprop(const Conv2dProblem& p, const T* x, const T* w, T* y, float* partial,
                                          const mma::Epilogue<T>& epilogue, simt::Stream stream,
                                          mma::Precision precision) {
  require_whole<T>(p, {p.C}, are_aligned(x, w));
  const std::int64_t windows = p.positions();
  if (windows == 0) return simt::kSuccess;
  const Cut cut = cut_of_fprop(p);
  require_workspace(cut.parts, windows * p.K);
  const auto sources = fprop_sources<true, mma::kStrip<T>>(p, x, w);
  const bool wide = are_aligned(partial) && p.K % kTogether == 0;
  const simt::Status status = mma::with_arithmetic<T>(precision, [&](auto arithmetic) {
    using A = decltype(arithmetic);
    using Shape = ShapeOf<A>;
    const unsigned blocks = gemm::tiles<Shape>(windows, p.K);
    return simt::launch(tensor_cut_fprop_kernel<A, T>, dim3(blocks * static_cast<unsigned>(cut.parts)),
                        dim3(Shape::kThreads), Shape::kSharedBytes, stream, sources.windows, sources.filters, partial,
                        cut.depth, wide, gemm::tiles_across<Shape>(p.K), blocks);
  });
  if (status != simt::kSuccess) return status;
  return finish(partial, cut.parts, windows * p.K, p.K, epilogue, y, stream);
}

template <typename T>
simt::Status conv2d_tensor_core_cut_dgrad(const Conv2dProblem& p, const T* dy, const T* w, T* dx, float* partial,
                                          simt::Stream stream, mma::Precision precision) {
  require_whole<T>(p, {p.C, p.K}, are_aligned(dy, w));
  if (p.N == 0) return simt::kSuccess;
  const DgradPlan plan = DgradPlan::of(p);
  const Cut cut = cut_of_dgrad(p);
  const std::int64_t size = p.N * p.H * p.W * p.C;
  require_workspace(cut.parts, size);
  const simt::Status status = mma::with_arithmetic<T>(precision, [&](auto arithmetic) {
    using A = decltype(arithmetic);
    using Shape = ShapeOf<A>;
    const unsigned blocks = gemm::tiles<Shape>(plan.count, p.C) * static_cast<unsigned>(plan.classes);
    const auto arguments = plan.arguments(p, dy, w, dx, false, gemm::tiles_across<Shape>(p.C));
    return simt::launch(tensor_cut_dgrad_kernel<A, T>, dim3(blocks * static_cast<unsigned>(cut.parts)),
                        dim3(Shape::kThreads), Shape::kSharedBytes, stream, arguments, partial, size, cut.depth,
                        are_aligned(partial), blocks);
  });
  if (status != simt::kSuccess) return status;
  return finish(partial, cut.parts, size, p.C, mma::Epilogue<T>{}, dx, stream);
}

#define GPUCNN_INSTANTIATE(T)                                                                                \
  template simt::Status conv2d_tensor_core_cut_fprop(const Conv2dProblem&, const T*, const T*, T*, float*,   \
                                                     const mma::Epilogue<T>&, simt::Stream, mma::Precision); \
  template simt::Status conv2d_tensor_core_cut_dgrad(const Conv2dProblem&, const T*, const T*, T*, float*,   \
                                                     simt::Stream, mma::Precision);
GPUCNN_INSTANTIATE(float)
GPUCNN_INSTANTIATE(simt::half)
GPUCNN_INSTANTIATE(simt::bfloat16)
#undef GPUCNN_INSTANTIATE

}  // namespace gpucnn

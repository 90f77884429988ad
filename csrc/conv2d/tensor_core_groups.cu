// y and dx as of tensor_core_fprop.cu and tensor_core_dgrad.cu, for each group, all groups in one launch: several of
// them a tile, as tensor_core_groups.h says.
//
// Layout   x (N,H,W,C), w (K,R,S,C/groups), y (N,P,Q,K). Rows are windows (of dgrad: pixels of a class,
//          dgrad_classes.h), columns the filters (channels) of merged groups, and the depth is taps by the channels
//          (filters) of these.
// Block    a tile of 256 x 32 (Split: 128 x 32) of one merged group. Warp: mma/tile.h. Thread: in a copy 8 windows'
//          units, of one (tap, channel) that it adds to, and 8 weights of a filter.
// Limits   tensor_core_groups.h. Sums have the order of the weights: an image has the same bits in any batch.
// Bound    shared memory: ResNeXt-50 32x4d at N32, C128 56x56 in 32 groups of 16 bits: 0.46 G products at 90 a cycle
//          and multiprocessor are 22 us of an H100; 51 MB of x and y take 17 us at 3.0 TB/s. C512 14x14, 16 a group: 6.
// Measured not run on hardware yet.
#include "conv2d/dgrad_classes.h"
#include "conv2d/tensor_core_groups.h"
#include "mma/moments.h"
#include "mma/operands.h"
#include "mma/store.h"

namespace gpucnn {
namespace {

template <typename T>
using GroupWindows = ImageRows<T, true, mma::kStrip<T>>;

// What the two passes' tiles are computed with.
template <typename A, typename Shape, typename T>
struct GroupProduct {
  using Rows = mma::DepthOperand<T, Shape::kThreads, Shape::kRows, true, GroupWindows<T>>;
  using Columns = mma::DepthOperand<T, Shape::kThreads, Shape::kColumns, false, GroupFilters<T, mma::kStrip<T>>>;
  mma::Tile<A, Shape, typename Rows::Strip, typename Columns::Strip> tile;

  __device__ __forceinline__ GroupProduct(uint4* ring, const GroupWindows<T>& x,
                                          const GroupFilters<T, mma::kStrip<T>>& w, std::int64_t row, int column) {
    mma::multiply<false>(tile, ring, Rows(x, row), Columns(w, column), x.taps.depth());
    revise(tile, reinterpret_cast<float*>(ring), x.count - row, w.lines - column,
           [&](int i, int j) { return own_sum(x, w, row + i, column + j); });
  }
};

template <typename A, typename Shape, typename T>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    tensor_group_fprop_kernel(const GroupWindows<T> windows, const GroupFilters<T, mma::kStrip<T>> filters,
                              const MergedGroups groups, const mma::Epilogue<T> epilogue, T* y, bool wide_y,
                              unsigned tiles_of_group) {
  SIMT_DYNAMIC_SHARED(uint4, ring);
  const unsigned across = tiles_of_group * static_cast<unsigned>(groups.count);
  const GroupTile at = group_tile<Shape>(blockIdx.x % across, tiles_of_group);
  const std::int64_t row = std::int64_t{blockIdx.x / across} * Shape::kRows;
  const int first = groups.first(at.group), existing = groups.existing(at.group);
  GroupWindows<T> x = windows;
  GroupFilters<T, mma::kStrip<T>> w = filters;
  x.data += first * groups.channels;
  x.taps = TapGrid<T, true, mma::kStrip<T>>::of(windows.taps.down, windows.taps.across, existing * groups.channels);
  w.data += first * w.group;
  w.lines = existing * groups.filters;
  w.taps = x.taps;
  GroupProduct<A, Shape, T> product(ring, x, w, row, at.column);
  const std::int64_t column = std::int64_t{first} * groups.filters, K = std::int64_t{groups.groups} * groups.filters;
  mma::store_rows(product.tile, y, row, x.count, column + at.column, column + w.lines, wide_y, epilogue,
                  [&](std::int64_t window) { return window * K; });
  if (epilogue.moments != nullptr) {
    mma::store_moments(product.tile, reinterpret_cast<float*>(ring), epilogue.moments, row, x.count, column + at.column,
                       column + w.lines, K);
  }
}

template <typename A, typename Shape, typename T>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    tensor_group_dgrad_kernel(const DgradArguments<T> p, const MergedGroups groups, unsigned tiles_of_group) {
  SIMT_DYNAMIC_SHARED(uint4, ring);
  const DgradTile at = dgrad_tile<Shape>(p, blockIdx.x);
  const GroupTile place = group_tile<Shape>(static_cast<unsigned>(at.column / Shape::kColumns), tiles_of_group);
  const int first = groups.first(place.group), existing = groups.existing(place.group);
  auto sources = dgrad_sources<true, mma::kStrip<T>>(p, at);
  GroupWindows<T>& x = sources.windows;
  x.data += first * groups.filters;
  x.taps = TapGrid<T, true, mma::kStrip<T>>::of(x.taps.down, x.taps.across, existing * groups.filters);
  const FilterLines<T, true, mma::kStrip<T>>& taps = sources.filters;
  const int channels = groups.channels;
  const std::int64_t weights = std::int64_t{taps.taps} * channels;
  const GroupFilters<T, mma::kStrip<T>> w{
      p.w + (first * groups.filters * weights + std::int64_t{sources.first_tap} * channels),
      existing * channels,
      channels,
      groups.filters,
      groups.filters * weights,
      1,
      weights,
      taps.step_down * channels,
      taps.step_across * channels,
      x.taps};
  GroupProduct<A, Shape, T> product(ring, x, w, at.row, place.column);
  const std::int64_t column = std::int64_t{first} * channels;
  mma::store_rows(product.tile, p.dx, at.row, p.count, column + place.column, column + w.lines, p.wide_dx,
                  mma::AsItIs{}, [&](std::int64_t index) { return dgrad_offset(p, at, index); });
}

}  // namespace

template <typename T>
simt::Status conv2d_tensor_core_group_fprop(const Conv2dProblem& p, const T* x, const T* w, T* y,
                                            const mma::Epilogue<T>& epilogue, simt::Stream stream,
                                            mma::Precision precision) {
  require_whole_groups<T>(p, are_aligned(x));
  if (p.positions() == 0) return simt::kSuccess;
  constexpr int kStep = mma::kStrip<T>;
  const auto groups = MergedGroups::of(p, p.filters(), mma::Slim::kColumns);
  const Axis v = vertical_axis(p), h = horizontal_axis(p);
  const auto taps = TapGrid<T, true, kStep>::of(v.kernel, h.kernel, 1);  // by the channels of a block's groups
  const GroupWindows<T> windows{x,
                                {v.size, -v.padding, v.stride, v.dilation},
                                {h.size, -h.padding, h.stride, h.dilation},
                                images_of(p.P, p.Q, p.K),
                                p.positions(),
                                taps,
                                static_cast<int>(p.C)};
  const GroupFilters<T, kStep> filters{w,
                                       0,
                                       groups.filters,
                                       groups.channels,
                                       p.filters() * p.weights(),
                                       p.weights(),
                                       1,
                                       h.kernel * groups.channels,
                                       groups.channels,
                                       taps};
  const bool wide = are_aligned(y, epilogue.residual) && p.filters() * groups.merged % kPack<T> == 0;
  return mma::with_arithmetic<T>(precision, [&](auto arithmetic) {
    using A = decltype(arithmetic);
    using Shape = GroupShape<A>;
    const unsigned across = gemm::tiles_across<Shape>(p.filters() * groups.merged);
    const auto down = static_cast<unsigned>(blocks_of(Shape::kRows, p.positions()));
    return simt::launch(tensor_group_fprop_kernel<A, Shape, T>,
                        dim3(down * across * static_cast<unsigned>(groups.count)), dim3(Shape::kThreads),
                        Shape::kSharedBytes, stream, windows, filters, groups, epilogue, y, wide, across);
  });
}

template <typename T>
simt::Status conv2d_tensor_core_group_dgrad(const Conv2dProblem& p, const T* dy, const T* w, T* dx, simt::Stream stream,
                                            mma::Precision precision) {
  require_whole_groups<T>(p, are_aligned(dy));
  if (p.N == 0) return simt::kSuccess;
  const auto groups = MergedGroups::of(p, p.channels(), mma::Slim::kColumns);
  const DgradPlan plan = DgradPlan::of(p);
  const bool wide = are_aligned(dx) && p.channels() * groups.merged % kPack<T> == 0;
  return mma::with_arithmetic<T>(precision, [&](auto arithmetic) {
    using A = decltype(arithmetic);
    using Shape = GroupShape<A>;
    const unsigned across = gemm::tiles_across<Shape>(p.channels() * groups.merged);
    const auto down = static_cast<unsigned>(blocks_of(Shape::kRows, plan.count) * plan.classes);
    const unsigned tiles = across * static_cast<unsigned>(groups.count);
    return simt::launch(tensor_group_dgrad_kernel<A, Shape, T>, dim3(down * tiles), dim3(Shape::kThreads),
                        Shape::kSharedBytes, stream, plan.arguments(p, dy, w, dx, wide, tiles), groups, across);
  });
}

#define GPUCNN_INSTANTIATE(T)                                                                                      \
  template simt::Status conv2d_tensor_core_group_fprop(const Conv2dProblem&, const T*, const T*, T*,               \
                                                       const mma::Epilogue<T>&, simt::Stream, mma::Precision);     \
  template simt::Status conv2d_tensor_core_group_dgrad(const Conv2dProblem&, const T*, const T*, T*, simt::Stream, \
                                                       mma::Precision);
GPUCNN_INSTANTIATE(float)
GPUCNN_INSTANTIATE(simt::half)
GPUCNN_INSTANTIATE(simt::bfloat16)
#undef GPUCNN_INSTANTIATE

}  // namespace gpucnn

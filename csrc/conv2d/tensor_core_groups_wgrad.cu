// dw as of tensor_core_wgrad.cu, for each group, all groups in one launch: several of them a tile.
//
// A tile has the products of the filters of some groups and the channels of the same, of which those of one group are
// stored: of m groups one in m. Nothing else of them meets: a NaN stays in its group.
//
// Layout   x (N,H,W,C), dy (N,P,Q,K), dw (K,R,S,C/groups), partial (splits,K,R,S,C/groups) float32. Rows are the
//          filters of merged groups, columns their taps by channels, and the depth is the windows.
// Block    a tile of 64 x 128 (Split: 64 x 64) of one merged group over one part. Thread: mma/tile.h.
// Limits   tensor_core_groups.h. partial takes at most 64 MiB.
// Bound    shared memory: 290 cycles a strip, so that groups of n filters have 14 n products a cycle and
//          multiprocessor of 16 bits, 7 n of TF32, up to 64. ResNeXt-50 32x4d at N32, C512 14x14, 16 a group: 0.46 G
//          products, 9 us of an H100.
// Measured not run on hardware yet.
#include "common/sum_parts.h"
#include "conv2d/tensor_core_groups.h"
#include "mma/operands.h"
#include "mma/tile.h"

namespace gpucnn {
namespace {

template <typename T>
using GroupGradients = gemm::LineMatrix<T, true, mma::kStrip<T>>;
template <typename T>
using GroupImages = ImageLines<T, true, mma::kStrip<T>>;

// Those of the block's tile that are of one group: out is dw, or a part, of the first group's first filter on.
template <typename Tile, typename Out>
__device__ __forceinline__ void store_groups(const Tile& tile, Out* out, const MergedGroups& groups, int existing,
                                             int taps, int first_row, int first_column) {
  const int lane = static_cast<int>(threadIdx.x) % 32, depth = existing * groups.channels;
#pragma unroll
  for (int j = 0; j < Tile::kAcross; ++j) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int column = first_column + Tile::first_column() + Tile::B::line(j, lane % 4 * 2 + e);
      const int tap = column / depth, place = column - tap * depth;
      const int group = place / groups.channels, channel = place - group * groups.channels;
#pragma unroll
      for (int n = 0; n < 2 * Tile::kDown; ++n) {
        const int row = first_row + Tile::first_row() + Tile::A::line(n, lane / 4),
                  filter = row - group * groups.filters;
        if (tap >= taps || filter < 0 || filter >= groups.filters) continue;
        out[(std::int64_t{row} * taps + tap) * groups.channels + channel] =
            simt::from_float<Out>(tile.sums[n / 2][j][n % 2 * 2 + e]);
      }
    }
  }
}

// `partial` is null where there is one part.
template <typename A, typename Shape, typename T>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    tensor_group_wgrad_kernel(const GroupGradients<T> dy, const GroupImages<T> images, const MergedGroups groups, T* dw,
                              float* partial, std::int64_t windows_of_part, unsigned across, unsigned tiles_of_group) {
  using Rows = mma::LineOperand<T, Shape::kThreads, Shape::kRows, true, GroupGradients<T>>;
  using Columns = mma::LineOperand<T, Shape::kThreads, Shape::kColumns, true, GroupImages<T>>;
  SIMT_DYNAMIC_SHARED(uint4, ring);
  const unsigned blocks_of_part = tiles_of_group * static_cast<unsigned>(groups.count);
  const std::int64_t part = blockIdx.x / blocks_of_part, begin = part * windows_of_part;
  const unsigned place = blockIdx.x % blocks_of_part, number = place % tiles_of_group;
  const int index = static_cast<int>(place / tiles_of_group);
  const int row = static_cast<int>(number / across) * Shape::kRows;
  const int column = static_cast<int>(number % across) * Shape::kColumns;
  const int first = groups.first(index), existing = groups.existing(index);
  const int taps = images.g.vertical.kernel * images.g.horizontal.kernel;
  GroupImages<T> x = images;
  x.data += first * groups.channels;
  x.g.channels = existing * groups.channels;
  x.g.weights.value = taps * x.g.channels;
  mma::Tile<A, Shape, typename Rows::Strip, typename Columns::Strip> tile;
  mma::multiply(
      tile, ring, [&] { return Rows(dy, std::int64_t{first} * groups.filters + row, begin); },
      [&] { return Columns(x, column, begin); }, min(windows_of_part, x.g.positions - begin));
  const std::int64_t weights = std::int64_t{taps} * groups.channels, offset = first * groups.filters * weights;
  if (partial != nullptr) {
    store_groups(tile, partial + (part * weights * dy.lines + offset), groups, existing, taps, row, column);
  } else {
    store_groups(tile, dw + offset, groups, existing, taps, row, column);
  }
}

// The depth of all groups, cut; by sizes alone.
auto group_cut(const Conv2dProblem& p, const MergedGroups& groups) {
  const std::int64_t rows = blocks_of(mma::Broad::kRows, p.filters() * groups.merged) * mma::Broad::kRows;
  return mma::kGroupTiling.choose_cut(rows * groups.count, p.weights() * groups.merged, p.positions());
}

}  // namespace

// The parts are the same in each precision.
std::int64_t conv2d_tensor_core_group_wgrad_splits(const Conv2dProblem& p) {
  return group_cut(p, MergedGroups::of(p, p.filters(), mma::Broad::kRows)).parts;
}

template <typename T>
simt::Status conv2d_tensor_core_group_wgrad(const Conv2dProblem& p, const T* x, const T* dy, T* dw, float* partial,
                                            simt::Stream stream, mma::Precision precision) {
  require_whole_groups<T>(p, are_aligned(x, dy));
  const auto groups = MergedGroups::of(p, p.filters(), mma::Broad::kRows);
  const auto cut = group_cut(p, groups);
  const auto images = GroupImages<T>::of(geometry_of(p), x);
  const GroupGradients<T> gradients{dy, p.K, p.positions()};
  const simt::Status status = mma::with_arithmetic<T>(precision, [&](auto arithmetic) {
    using A = decltype(arithmetic);
    using Shape = GroupWeightsShape<A>;
    const std::int64_t filters = p.filters() * groups.merged, weights = p.weights() * groups.merged;
    const unsigned tiles = gemm::tiles<Shape>(filters, weights);
    const auto blocks = static_cast<unsigned>(groups.count * cut.parts) * tiles;
    return simt::launch(tensor_group_wgrad_kernel<A, Shape, T>, dim3(blocks), dim3(Shape::kThreads),
                        Shape::kSharedBytes, stream, gradients, images, groups, dw, cut.parts > 1 ? partial : nullptr,
                        cut.depth, gemm::tiles_across<Shape>(weights), tiles);
  });
  if (status != simt::kSuccess || cut.parts == 1) return status;
  return sum_parts(partial, dw, cut.parts, p.K * p.weights(), stream);
}

#define GPUCNN_INSTANTIATE(T)                                                                                \
  template simt::Status conv2d_tensor_core_group_wgrad(const Conv2dProblem&, const T*, const T*, T*, float*, \
                                                       simt::Stream, mma::Precision);
GPUCNN_INSTANTIATE(float)
GPUCNN_INSTANTIATE(simt::half)
GPUCNN_INSTANTIATE(simt::bfloat16)
#undef GPUCNN_INSTANTIATE

}  // namespace gpucnn

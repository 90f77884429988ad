// y[n,p,q,k] = bias[k] + sum over r, s, c of x[n, p*stride-padding+r*dilation, q*..., c] * w[k,r,s,c],
// and max(0, y) where ReLU is asked for. Stored as float, half or bfloat16, summed in float32.
//
// Layout   x (N,H,W,C), w (K,R,S,C/groups), y (N,P,Q,K). As a product of matrices, for each group: rows are the N*P*Q
//          windows, columns its filters, and a sum runs over a filter's R*S*C/groups weights as they lie in memory.
// Wide     groups of 8 filters or more. A block owns 64 windows x 32 filters of one group and goes through the weights
//          in strips of 16, gathered into shared memory; a thread owns 4 x 4 of the sums (tile.h). In a fill, 16
//          threads side by side read 16 consecutive weights: 64 contiguous bytes of w and, where C/groups allows, of x.
// Narrow   groups of fewer filters, depthwise ones among them. A thread owns one output; neighbours own neighbouring
//          filters of a window, so a warp writes 128 contiguous bytes of y.
// Limits   what check() in problem.h asks for; nothing needs to be aligned. Of aligned arrays, and groups of a multiple
//          of 4 filters, the wide kernel writes 4 filters at a time. A sum is in the order of the weights: an
//          image has the same bits in any batch.
// Bound    FFMA: 2*N*P*Q*K*R*S*C/groups flops; N32 C64 56x56 K64 3x3 pad 1, 7.4 GFLOP, takes 0.11 ms at an H100's
//          67 TFLOP/s. Gathering costs index arithmetic beside the products: half of that rate is the aim here.
// Measured not run on hardware yet.
#include "common/epilogue.h"
#include "conv2d/conv2d.h"
#include "conv2d/geometry.h"
#include "conv2d/tile.h"

#include <cstdint>

namespace gpucnn {
namespace {

using FpropTile = Tile<64, 32>;
constexpr int kFewestFilters = 8;  // of a group for the wide kernel: with fewer, most of its columns would be idle
constexpr int kNarrowThreads = 256;

template <typename T>
__global__ void __launch_bounds__(FpropTile::kThreads)
    fprop_wide_kernel(const Geometry g, const T* __restrict__ x, const T* __restrict__ w, const Epilogue<T> epilogue,
                      T* __restrict__ y, bool wide_y) {
  constexpr int kTogether = FpropTile::kThreads / FpropTile::kDepth;  // rows that one pass of a fill covers
  constexpr int kPasses = FpropTile::kRows / kTogether;
  static_assert(FpropTile::kRows % kTogether == 0 && FpropTile::kColumns % kTogether == 0);
  SIMT_SHARED(float, cells, [FpropTile::kDepth][FpropTile::kRows + FpropTile::kPad]);
  SIMT_SHARED(float, filters, [FpropTile::kDepth][FpropTile::kColumns + FpropTile::kPad]);

  const TilePlace place = tile_place<FpropTile>(static_cast<int>(blockIdx.x), g.groups, g.filters);
  const int lane = static_cast<int>(threadIdx.x) % FpropTile::kDepth;   // [0, 16): the weight of a strip that it fills
  const int first = static_cast<int>(threadIdx.x) / FpropTile::kDepth;  // [0, 8): the row that it fills first
  const int first_channel = place.group * g.channels, first_filter = place.group * g.filters;

  Corner corners[kPasses];  // of the rows first, first + 8, ...
#pragma unroll
  for (int i = 0; i < kPasses; ++i) {
    const std::int64_t position = place.row + first + i * kTogether;
    corners[i] = corner_of(g, position < g.positions ? position : 0);  // of rows beyond the last nothing is stored
  }

  FpropTile tile;
  for (int begin = 0; begin < g.weights.value; begin += FpropTile::kDepth) {
    const int weight = begin + lane;  // may be beyond the last
    const bool exists = weight < g.weights.value;
    const Tap tap = tap_of(g, exists ? weight : 0);
#pragma unroll
    for (int i = 0; i < kPasses; ++i) {
      const bool inside = exists && meets(g, corners[i], tap);
      const std::int64_t offset = corners[i].offset + tap.offset + first_channel;
      cells[lane][FpropTile::place(lane, first + i * kTogether)] =
          simt::to_float(simt::load_if(inside, x + (inside ? offset : 0)));
    }
#pragma unroll
    for (int j = 0; j < FpropTile::kColumns; j += kTogether) {
      const int filter = place.column + first + j;  // of the group
      const bool inside = exists && filter < g.filters;
      const std::int64_t offset = std::int64_t{first_filter + filter} * g.weights.value + weight;
      filters[lane][FpropTile::place(lane, first + j)] =
          simt::to_float(simt::load_if(inside, w + (inside ? offset : 0)));
    }
    __syncthreads();
    tile.add(cells, filters);
    __syncthreads();
  }

  const int filter = place.column + FpropTile::column(), k = first_filter + filter;
  Floats<4> offsets = {};
  if (wide_y && epilogue.bias != nullptr) {
    if (filter < g.filters) offsets = load<4>(epilogue.bias + k);
  } else {
#pragma unroll
    for (int j = 0; j < FpropTile::kOwn; ++j) offsets[j] = filter + j < g.filters ? epilogue.offset(k + j) : 0.0f;
  }
#pragma unroll
  for (int i = 0; i < FpropTile::kOwn; ++i) {
    const std::int64_t position = place.row + FpropTile::row() + i;
    if (position >= g.positions) continue;
    Floats<4> values;
#pragma unroll
    for (int j = 0; j < FpropTile::kOwn; ++j) values[j] = epilogue.clip(tile.sums[i][j] + offsets[j]);
    store_quad(y + (position * g.y.channels.value + k), values, g.filters - filter, wide_y);
  }
}

template <typename T>
__global__ void __launch_bounds__(kNarrowThreads)
    fprop_narrow_kernel(const Geometry g, const T* __restrict__ x, const T* __restrict__ w, const Epilogue<T> epilogue,
                        T* __restrict__ y) {
  const std::int64_t index = std::int64_t{blockIdx.x} * kNarrowThreads + threadIdx.x;  // of an element of y
  if (index >= g.positions * g.y.channels.value) return;
  const auto [position, k] = g.y.channels.divide(index);
  const Corner corner = corner_of(g, position);
  const T* const cells = x + k / g.filters * g.channels;  // the group's channels of x
  const T* weight = w + std::int64_t{k} * g.weights.value;

  float sum = 0.0f;
  for (int r = 0; r < g.vertical.kernel; ++r) {
    for (int s = 0; s < g.horizontal.kernel; ++s, weight += g.channels) {
      const Tap tap = tap_of(g, (r * g.horizontal.kernel + s) * g.channels);
      if (!meets(g, corner, tap)) continue;
      const T* const cell = cells + corner.offset + tap.offset;
      for (int c = 0; c < g.channels; ++c) sum += simt::to_float(cell[c]) * simt::to_float(weight[c]);
    }
  }
  y[index] = simt::from_float<T>(epilogue(sum, k));
}

}  // namespace

template <typename T>
simt::Status conv2d_direct_fprop(const Conv2dProblem& p, const T* x, const T* w, const T* bias, T* y, bool relu,
                                 simt::Stream stream) {
  const Geometry g = geometry_of(p);
  const Epilogue<T> epilogue{bias, relu};
  if (g.positions == 0) return simt::kSuccess;
  if (g.filters >= kFewestFilters) {
    const std::int64_t blocks = tile_count<FpropTile>(g.positions, g.groups, g.filters);
    const bool wide_y = are_aligned(bias, y) && g.filters % 4 == 0;
    return simt::launch(fprop_wide_kernel<T>, dim3(static_cast<unsigned>(blocks)), dim3(FpropTile::kThreads), 0, stream,
                        g, x, w, epilogue, y, wide_y);
  }
  const std::int64_t blocks = blocks_of(kNarrowThreads, g.positions * g.y.channels.value);
  return simt::launch(fprop_narrow_kernel<T>, dim3(static_cast<unsigned>(blocks)), dim3(kNarrowThreads), 0, stream, g,
                      x, w, epilogue, y);
}

template simt::Status conv2d_direct_fprop(const Conv2dProblem&, const float*, const float*, const float*, float*, bool,
                                          simt::Stream);
template simt::Status conv2d_direct_fprop(const Conv2dProblem&, const simt::half*, const simt::half*, const simt::half*,
                                          simt::half*, bool, simt::Stream);
template simt::Status conv2d_direct_fprop(const Conv2dProblem&, const simt::bfloat16*, const simt::bfloat16*,
                                          const simt::bfloat16*, simt::bfloat16*, bool, simt::Stream);

}  // namespace gpucnn

// dw[k,r,s,c] = sum over n, p, q of dy[n,p,q,k] * x[n, p*stride-padding+r*dilation, q*..., c]. Stored as float, half or
// bfloat16, summed in float32.
//
// The N*P*Q positions are cut into splits of equal length. Each split's sums go to a part of `partial` of their own;
// a second kernel adds the parts in order. No atomics: the same bits in every run.
//
// Layout   x (N,H,W,C), dy (N,P,Q,K), dw (K,R,S,C/groups), partial (splits,K,R,S,C/groups). As a product of matrices,
//          for each group: rows are its filters, columns a filter's R*S*C/groups weights, and a sum runs over
//          positions.
// Wide     groups of 8 filters or more and filters of 16 weights or more. A block owns 32 filters x 64 weights of one
//          group and one split, and goes through its positions in strips of 16, gathered into shared memory; a thread
//          owns 4 x 4 of the sums (tile.h). In a fill a warp reads 128 contiguous bytes of dy and, where C/groups
//          allows, of x.
// Narrow   the rest, depthwise filters among them. A thread owns one weight and one split; neighbours own neighbouring
//          weights.
// Sum      a thread owns one weight and adds its parts (common/sum_parts.cu).
// Limits   what check() in problem.h asks for; nothing needs to be aligned. Of filters of a multiple of 4 weights the
//          wide kernel writes 4 at a time. partial takes less than 16 MiB: there are
//          several splits only where one takes fewer than 1,024 blocks, of at most 8 KiB of sums each, and then all of
//          them together take fewer than 2,048.
// Bound    FFMA: 2*N*P*Q*K*R*S*C/groups flops; N32 C64 56x56 K64 3x3 pad 1, 7.4 GFLOP, takes 0.11 ms at an H100's
//          67 TFLOP/s. Gathering costs index arithmetic beside the products: half of that rate is the aim here.
// Measured not run on hardware yet.
#include "common/sum_parts.h"
#include "conv2d/conv2d.h"
#include "conv2d/geometry.h"
#include "conv2d/tile.h"

#include <algorithm>
#include <cstdint>

namespace gpucnn {
namespace {

using WgradTile = Tile<32, 64>;
constexpr int kFewestFilters = 8, kFewestWeights = 16;  // for the wide kernel: with fewer, most of a tile would be idle
constexpr int kNarrowThreads = 256;
constexpr int kBlocksPerMultiprocessor = 4;
constexpr int kBlocks = 1024;          // wanted in a grid: two waves of an H100's 132 multiprocessors, nearly
constexpr int kFewestPositions = 128;  // in a split, so that adding the parts up stays a small share of the work

static_assert(sizeof(float) * WgradTile::kRows * WgradTile::kColumns == 8 << 10, "partial's bound, as said above");
static_assert(kNarrowThreads <= WgradTile::kRows * WgradTile::kColumns);

bool is_wide(const Geometry& g) {
  return g.filters >= kFewestFilters && g.weights.value >= kFewestWeights;
}

// Blocks that one split takes.
std::int64_t blocks_of_split(const Geometry& g) {
  if (is_wide(g)) return tile_count<WgradTile>(g.filters, g.groups, g.weights.value);
  return blocks_of(kNarrowThreads, std::int64_t{g.y.channels.value} * g.weights.value);
}

// A corner, and the same bytes as the word that is moved.
union CornerWord {
  uint4 word;
  Corner corner;
  __device__ __forceinline__ CornerWord() : word() {}
};
static_assert(sizeof(Corner) == sizeof(uint4));

template <typename T>
__global__ void __launch_bounds__(WgradTile::kThreads, kBlocksPerMultiprocessor)
    wgrad_wide_kernel(const Geometry g, const T* __restrict__ x, const T* __restrict__ dy, const Parts<T> parts,
                      std::int64_t positions_of_split, int blocks_per_split, bool wide_parts) {
  constexpr int kRowLines = WgradTile::kThreads / WgradTile::kRows;        // of a strip of dy in one pass of a fill
  constexpr int kColumnLines = WgradTile::kThreads / WgradTile::kColumns;  // of a strip of x
  static_assert(WgradTile::kDepth % kRowLines == 0 && WgradTile::kDepth % kColumnLines == 0);
  static_assert(WgradTile::kDepth <= WgradTile::kThreads);
  SIMT_SHARED(float, gradients, [WgradTile::kDepth][WgradTile::kRows + WgradTile::kPad]);
  SIMT_SHARED(float, cells, [WgradTile::kDepth][WgradTile::kColumns + WgradTile::kPad]);
  SIMT_SHARED(uint4, corners, [WgradTile::kDepth]);  // of a strip's windows

  const int block = static_cast<int>(blockIdx.x), split = block / blocks_per_split;
  const TilePlace place = tile_place<WgradTile>(block % blocks_per_split, g.groups, g.weights.value);
  const int thread = static_cast<int>(threadIdx.x);
  const int row = thread % WgradTile::kRows, column = thread % WgradTile::kColumns;  // of the tile, that it fills
  const int filter = static_cast<int>(place.row) + row;                              // of the group
  const int k = place.group * g.filters + filter;
  const bool has_weight = place.column + column < g.weights.value;
  const Tap tap = tap_of(g, has_weight ? place.column + column : 0);
  const T* const source = x + place.group * g.channels;
  const std::int64_t begin = split * positions_of_split;
  const std::int64_t end = min(begin + positions_of_split, g.positions);

  WgradTile tile;
  for (std::int64_t first = begin; first < end; first += WgradTile::kDepth) {
    if (thread < WgradTile::kDepth) {
      CornerWord stored;
      stored.corner = corner_of(g, first + thread);  // beyond the last: unused
      simt::vstore(corners + thread, stored.word);
    }
    __syncthreads();  // the corners are there, and the strips before these have been used
#pragma unroll
    for (int line = thread / WgradTile::kRows; line < WgradTile::kDepth; line += kRowLines) {
      const bool inside = first + line < end && filter < g.filters;
      const T* const gradient = dy + (inside ? (first + line) * g.y.channels.value + k : 0);
      gradients[line][WgradTile::place(line, row)] = simt::to_float(simt::load_if(inside, gradient));
    }
#pragma unroll
    for (int line = thread / WgradTile::kColumns; line < WgradTile::kDepth; line += kColumnLines) {
      CornerWord stored;
      stored.word = simt::vload<uint4>(corners + line);
      const Corner corner = stored.corner;
      const bool inside = first + line < end && has_weight && meets(g, corner, tap);
      const T* const cell = source + (inside ? corner.offset + tap.offset : 0);
      cells[line][WgradTile::place(line, column)] = simt::to_float(simt::load_if(inside, cell));
    }
    __syncthreads();
    tile.add(gradients, cells);
  }

#pragma unroll
  for (int i = 0; i < WgradTile::kOwn; ++i) {
    const int mine = static_cast<int>(place.row) + WgradTile::row() + i;  // filter of the group
    if (mine >= g.filters) continue;
    const int weight = place.column + WgradTile::column(), there = g.weights.value - weight;
    const std::int64_t index = std::int64_t{place.group * g.filters + mine} * g.weights.value + weight;
    Floats<4> values;
#pragma unroll
    for (int j = 0; j < WgradTile::kOwn; ++j) values[j] = tile.sums[i][j];
    if (parts.parts != nullptr) {
      store_quad(parts.parts + (split * parts.count + index), values, there, wide_parts);
    } else {
      store_quad(parts.sums + index, values, there, wide_parts);
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kNarrowThreads)
    wgrad_narrow_kernel(const Geometry g, const T* __restrict__ x, const T* __restrict__ dy, const Parts<T> parts,
                        std::int64_t positions_of_split, int blocks_per_split) {
  const int block = static_cast<int>(blockIdx.x), split = block / blocks_per_split;
  const std::int64_t index =
      std::int64_t{block % blocks_per_split} * kNarrowThreads + threadIdx.x;  // of a weight of dw
  if (index >= parts.count) return;
  const auto [filter, weight] = g.weights.divide(index);
  const int k = static_cast<int>(filter);
  const Tap tap = tap_of(g, weight);
  const T* const source = x + k / g.filters * g.channels;
  const std::int64_t begin = split * positions_of_split;
  const std::int64_t end = min(begin + positions_of_split, g.positions);

  float sum = 0.0f;
  for (std::int64_t position = begin; position < end; ++position) {
    const Corner corner = corner_of(g, position);
    if (!meets(g, corner, tap)) continue;
    sum += simt::to_float(dy[position * g.y.channels.value + k]) * simt::to_float(source[corner.offset + tap.offset]);
  }
  parts.store(split, index, sum);
}

}  // namespace

std::int64_t conv2d_direct_wgrad_splits(const Conv2dProblem& p) {
  const Geometry g = geometry_of(p);
  const std::int64_t wanted = blocks_of(blocks_of_split(g), kBlocks);
  return std::max<std::int64_t>(1, std::min(wanted, g.positions / kFewestPositions));
}

template <typename T>
simt::Status conv2d_direct_wgrad(const Conv2dProblem& p, const T* x, const T* dy, T* dw, float* partial,
                                 simt::Stream stream) {
  const Geometry g = geometry_of(p);
  const std::int64_t splits = conv2d_direct_wgrad_splits(p), each = blocks_of_split(g);
  const std::int64_t positions = blocks_of(splits, g.positions);
  const std::int64_t weights = std::int64_t{g.y.channels.value} * g.weights.value;
  const Parts<T> parts{splits > 1 ? partial : nullptr, dw, weights};
  const dim3 grid(static_cast<unsigned>(splits * each));
  const bool wide_parts = (parts.parts ? are_aligned(partial) : are_aligned(dw)) && g.weights.value % 4 == 0;
  const simt::Status status = is_wide(g)
                                  ? simt::launch(wgrad_wide_kernel<T>, grid, dim3(WgradTile::kThreads), 0, stream, g, x,
                                                 dy, parts, positions, static_cast<int>(each), wide_parts)
                                  : simt::launch(wgrad_narrow_kernel<T>, grid, dim3(kNarrowThreads), 0, stream, g, x,
                                                 dy, parts, positions, static_cast<int>(each));
  if (status != simt::kSuccess || splits == 1) return status;
  return sum_parts(partial, dw, splits, weights, stream);
}

template simt::Status conv2d_direct_wgrad(const Conv2dProblem&, const float*, const float*, float*, float*,
                                          simt::Stream);
template simt::Status conv2d_direct_wgrad(const Conv2dProblem&, const simt::half*, const simt::half*, simt::half*,
                                          float*, simt::Stream);
template simt::Status conv2d_direct_wgrad(const Conv2dProblem&, const simt::bfloat16*, const simt::bfloat16*,
                                          simt::bfloat16*, float*, simt::Stream);

}  // namespace gpucnn

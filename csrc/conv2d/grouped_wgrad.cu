// dw[k,r,s,c] = sum over n, p, q of dy[n,p,q,k] * x[n, p*stride-padding+r*dilation, q*..., c] for each group, all
// groups in one launch.
//
// The N*P*Q positions are cut into tiles, and these into splits of equally many. Each split's sums go to a part of
// `partial` of their own; a second kernel adds the parts in order (sum_parts.cu). No atomics: the same bits in every
// run.
//
// Layout   x (N,H,W,C), dy (N,P,Q,K), dw (K,R,S,C/groups), partial (splits,K,R,S,C/groups). A block works in shared
//          memory, in float32: on a tile of x, which holds every cell under a tile of positions, on dy at these
//          (staged.h), and on a table of where both lie for each position that there is.
// Block    one split of a bundle of neighbouring groups, about 32 channels wide, or of 32 filters and 32 channels of a
//          wider group; and at most 256 of the bundle's units, of each filter row r, each kTogether taps in it, and
//          each quad of 4 filters and quad of 4 channels of a group.
// Warp     32 units of one position, or fewer of several: neighbours own neighbouring channels, so a warp reads 128
//          contiguous bytes of a cell.
// Thread   one unit of every `slots`-th position of a tile: 16 * kTogether sums in registers. 1 + kTogether loads of 16
//          bytes from shared memory feed 16 * kTogether multiplications. The slots' sums are then added in order.
// Limits   as in grouped_fprop.cu. partial takes less than 16 MiB: as many splits as that allows.
// Bound    memory with 4 channels a group, FFMA from 16: of ResNeXt-50 32x4d at N32, C128 56x56 in 32 groups has 103 MB
//          (34 us at 3.0 TB/s) and 0.92 GFLOP (15 us at 60 TFLOP/s), C512 14x14 26 MB (9 us) and 0.92 GFLOP (15 us).
// Measured not run on hardware yet.
#include "common/sum_parts.h"
#include "conv2d/conv2d.h"
#include "conv2d/slots.h"
#include "conv2d/staged.h"
#include "simt/simt.h"

#include <algorithm>
#include <cstdint>
#include <stdexcept>

namespace gpucnn {
namespace {

constexpr int kThreads = 256;
constexpr int kPositions = 128;        // of a tile at most
constexpr int kQuads = 8;              // of filters, and of channels, in a block at most
constexpr int kChannels = 32;          // of a bundle of groups, where one has no more
constexpr int kTaps = 3;               // of a thread, where a row has as many
constexpr std::int64_t kBlocks = 528;  // wanted in a grid: two waves of two blocks for an H100's 132 multiprocessors
constexpr std::int64_t kMostPartialFloats = 16 << 18;  // 16 MiB

struct Plan {
  Axis vertical, horizontal;
  Source x, dy;
  Staged cells, gradients;
  int filter_quads, channel_quads;  // of a group in a block
  int tap_groups;                   // of kTogether taps in a filter row
  int units, units_of_block, slots, threads;
  int images, rows, columns;                               // positions of a tile
  Divisor column_tiles, row_tiles;                         // and then image tiles
  Divisor shares, channel_chunks, filter_chunks, bundles;  // what blocks of a split are told to do, the fastest first
  std::int64_t tiles, splits, tiles_of_split;
  int gradients_at, table_at, shared_bytes;  // floats from the start of shared memory
  bool packs;
};

// The plan that costs least of those that fit, of ever fewer groups a bundle, then of ever fewer channels.
Plan plan_of(const Conv2dProblem& p) {
  require_small_coordinates(p);
  Plan best{};
  best.vertical = vertical_axis(p), best.horizontal = horizontal_axis(p);
  const int groups = static_cast<int>(p.groups), channels = static_cast<int>(p.channels());
  const int filters = static_cast<int>(p.filters()), together = p.S == 1 ? 1 : kTaps;
  best.x = {p.N, best.vertical.size, best.horizontal.size, groups, channels, p.C};
  best.dy = {p.N, best.vertical.outputs, best.horizontal.outputs, groups, filters, p.K};
  best.tap_groups = (best.horizontal.kernel - 1) / together + 1;
  const Reach rows{p.P, best.vertical.stride, (best.vertical.kernel - 1) * best.vertical.dilation + 1};
  const Reach columns{p.Q, best.horizontal.stride, (best.horizontal.kernel - 1) * best.horizontal.dilation + 1};
  const int channel_quads = (channels - 1) / 4 + 1, filter_quads = (filters - 1) / 4 + 1;
  best.filter_quads = even_piece(filter_quads, kQuads);

  Shape shape;
  int bundle =
      std::max(1, std::min(groups, kChannels / (4 * std::max(std::min(channel_quads, kQuads), best.filter_quads))));
  int quads = even_piece(channel_quads, kQuads);
  for (bool last = false; !last;) {
    const int units = bundle * best.filter_quads * quads * best.vertical.kernel * best.tap_groups;
    const int of_block = even_piece(units, kThreads), slots = kThreads / of_block,
              threads = round_up(of_block * slots, 32);
    const int reduction = slots > 1 ? of_block * slots * 16 : 0;
    const auto floats = [&](int pixels, int positions) {
      return std::max(reduction, pixels * 4 * bundle * quads + positions * (4 * bundle * best.filter_quads + 2));
    };
    const double shares = static_cast<double>(blocks_of(of_block, units) * blocks_of(quads, channel_quads) *
                                              blocks_of(best.filter_quads, filter_quads) * blocks_of(bundle, groups));
    const double compute = kPositions * (16.0 * together * of_block / 128 + bundle * 4 * best.filter_quads / 8.0);
    const double pixel = cycles_of_pixel(bundle * 4 * quads);
    for (const int limit : {kFloatsOfBlock, kMostFloatsOfBlock}) {
      Shape found = cheapest(p.N, rows, columns, kPositions, compute, pixel, limit, floats);
      if (!found.found()) continue;
      found.cost *= shares;
      if (shape.found() && found.cost >= shape.cost) break;
      shape = found;
      best.channel_quads = quads, best.units = units, best.units_of_block = of_block, best.slots = slots;
      best.threads = threads;
      best.cells.bundle = bundle;
      best.shared_bytes = static_cast<int>(sizeof(float)) *
                          floats(static_cast<int>(found.images * rows.cells(found.rows) * columns.cells(found.columns)),
                                 found.positions());
      break;
    }
    last = bundle == 1 && quads == 1;
    if (bundle > 1) {
      bundle /= 2;
    } else {
      quads = std::max(1, quads / 2);
    }
  }
  if (!shape.found()) throw std::invalid_argument("conv2d: a window's cells do not fit a block's shared memory");

  bundle = best.cells.bundle;
  best.images = shape.images, best.rows = shape.rows, best.columns = shape.columns;
  best.cells =
      staged_of(shape.images, static_cast<int>(rows.cells(shape.rows)), static_cast<int>(columns.cells(shape.columns)),
                bundle, 4 * best.channel_quads, 4 * bundle * best.channel_quads);
  best.gradients =
      staged_of(shape.images, shape.rows, shape.columns, bundle, 4 * best.filter_quads, 4 * bundle * best.filter_quads);
  best.gradients_at = best.cells.floats();
  best.table_at = best.gradients_at + best.gradients.floats();
  best.column_tiles = divisor_of(blocks_of(shape.columns, p.Q)),
  best.row_tiles = divisor_of(blocks_of(shape.rows, p.P));
  best.tiles = best.column_tiles.value * std::int64_t{best.row_tiles.value} * blocks_of(shape.images, p.N);
  best.shares = divisor_of(blocks_of(best.units_of_block, best.units));
  best.channel_chunks = divisor_of(blocks_of(best.channel_quads, channel_quads));
  best.filter_chunks = divisor_of(blocks_of(best.filter_quads, filter_quads));
  best.bundles = divisor_of(blocks_of(bundle, groups));
  const std::int64_t each =
      std::int64_t{best.shares.value} * best.channel_chunks.value * best.filter_chunks.value * best.bundles.value;
  best.splits = std::max<std::int64_t>(
      1, std::min({blocks_of(each, kBlocks), best.tiles, kMostPartialFloats / (p.K * p.weights())}));
  best.tiles_of_split = blocks_of(best.splits, best.tiles);
  return best;
}

std::int64_t blocks_of_split(const Plan& plan) {
  return std::int64_t{plan.shares.value} * plan.channel_chunks.value * plan.filter_chunks.value * plan.bundles.value;
}

template <typename T, int kTogether, bool kPacks>
__global__ void __launch_bounds__(kThreads, 2)
    grouped_wgrad_kernel(const Plan plan, const T* __restrict__ x, const T* __restrict__ dy, const Parts<T> parts) {
  SIMT_DYNAMIC_SHARED(float, cells);
  float* const gradients = cells + plan.gradients_at;
  int2* const table = reinterpret_cast<int2*>(cells + plan.table_at);

  const Quotient share = plan.shares.divide(blockIdx.x);
  const Quotient channel_chunk = plan.channel_chunks.divide(share.whole);
  const Quotient filter_chunk = plan.filter_chunks.divide(channel_chunk.whole);
  const Quotient bundle = plan.bundles.divide(filter_chunk.whole);
  const std::int64_t split = bundle.whole;

  const int thread = static_cast<int>(threadIdx.x);
  const int slot = thread / plan.units_of_block, mine = thread % plan.units_of_block;
  const int unit = share.rest * plan.units_of_block + mine;
  const bool has_unit = unit < plan.units && slot < plan.slots;  // without one it works on the first, for nobody
  int rest = has_unit ? unit : 0;
  const int channel_quad = rest % plan.channel_quads;
  rest /= plan.channel_quads;
  const int group = rest % plan.cells.bundle;
  rest /= plan.cells.bundle;
  const int filter_quad = rest % plan.filter_quads;
  rest /= plan.filter_quads;
  const int first_tap = rest % plan.tap_groups * kTogether, r = rest / plan.tap_groups;

  const int first_group = bundle.rest * plan.cells.bundle;
  const int first_channel = channel_chunk.rest * plan.cells.strip,
            first_filter = filter_chunk.rest * plan.gradients.strip;
  const int gradient_at = group * plan.gradients.strip + filter_quad * 4;
  int cell_at[kTogether];  // of the taps, from the cell of a position's first
#pragma unroll
  for (int t = 0; t < kTogether; ++t) {
    const int s = min(first_tap + t, plan.horizontal.kernel - 1);  // beyond the last tap: computed, not stored
    cell_at[t] = (r * plan.vertical.dilation * plan.cells.columns + s * plan.horizontal.dilation) * plan.cells.pitch +
                 group * plan.cells.strip + channel_quad * 4;
  }

  Floats<4> sums[kTogether][4] = {};  // [tap][filter][channel]
  const std::int64_t begin = split * plan.tiles_of_split, end = min(begin + plan.tiles_of_split, plan.tiles);
  for (std::int64_t tile = begin; tile < end; ++tile) {
    const Quotient column_tile = plan.column_tiles.divide(tile), row_tile = plan.row_tiles.divide(column_tile.whole);
    const std::int64_t image = row_tile.whole * plan.images;
    const int p = row_tile.rest * plan.rows, q = column_tile.rest * plan.columns;
    const int images = static_cast<int>(min(std::int64_t{plan.images}, plan.x.images - image));  // that there are
    const int rows = min(plan.rows, plan.vertical.outputs - p),
              columns = min(plan.columns, plan.horizontal.outputs - q);
    const int positions = images * rows * columns;
    for (int i = thread; i < positions; i += static_cast<int>(blockDim.x)) {
      const int line = i / columns, column = i % columns, of_image = line / rows, row = line % rows;
      const int cell = (of_image * plan.cells.rows + row * plan.vertical.stride) * plan.cells.columns +
                       column * plan.horizontal.stride;
      const int gradient = (of_image * plan.rows + row) * plan.columns + column;
      table[i] = make_int2(cell * plan.cells.pitch, gradient * plan.gradients.pitch);
    }
    stage<T, kPacks>(plan.cells, plan.x,
                     {image, plan.vertical.first_cell(p), plan.horizontal.first_cell(q), first_group, first_channel}, x,
                     cells);
    stage<T, kPacks>(plan.gradients, plan.dy, {image, p, q, first_group, first_filter}, dy, gradients);
    simt::cp_async_wait_all();
    __syncthreads();
    for (int i = slot; i < positions; i += plan.slots) {
      const int2 at = simt::vload<int2>(table + i);
      const Floats<4> gradient = load<4>(gradients + at.y + gradient_at);
#pragma unroll
      for (int t = 0; t < kTogether; ++t) {
        const Floats<4> cell = load<4>(cells + at.x + cell_at[t]);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
#pragma unroll
          for (int c = 0; c < 4; ++c) sums[t][k][c] += gradient[k] * cell[c];
        }
      }
    }
    __syncthreads();
  }

  const std::int64_t weights = std::int64_t{plan.vertical.kernel} * plan.horizontal.kernel * plan.x.depth;
  const int channel = first_channel + channel_quad * 4;
#pragma unroll
  for (int t = 0; t < kTogether; ++t) {
    if (plan.slots > 1) {
      if (t > 0) __syncthreads();
      add_slots(sums[t], cells, slot, plan.slots, mine, plan.units_of_block);
    }
    const int s = first_tap + t;
    if (!has_unit || slot > 0 || s >= plan.horizontal.kernel || first_group + group >= plan.x.groups) continue;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int filter = first_filter + filter_quad * 4 + k;
      if (filter >= plan.dy.depth) continue;
      const std::int64_t index = (std::int64_t{first_group + group} * plan.dy.depth + filter) * weights +
                                 (r * plan.horizontal.kernel + s) * std::int64_t{plan.x.depth} + channel;
      if constexpr (kPacks) {
        if (channel >= plan.x.depth) continue;
        if (parts.parts != nullptr) {
          store(parts.parts + split * parts.count + index, sums[t][k]);
        } else {
          store(parts.sums + index, sums[t][k]);
        }
      } else {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          if (channel + c < plan.x.depth) parts.store(split, index + c, sums[t][k][c]);
        }
      }
    }
  }
}

template <typename T>
auto kernel_of(const Plan& plan, bool one_tap) {
  if (one_tap) return plan.packs ? grouped_wgrad_kernel<T, 1, true> : grouped_wgrad_kernel<T, 1, false>;
  return plan.packs ? grouped_wgrad_kernel<T, kTaps, true> : grouped_wgrad_kernel<T, kTaps, false>;
}

}  // namespace

std::int64_t conv2d_grouped_wgrad_splits(const Conv2dProblem& p) {
  return plan_of(p).splits;
}

template <typename T>
simt::Status conv2d_grouped_wgrad(const Conv2dProblem& p, const T* x, const T* dy, T* dw, float* partial,
                                  simt::Stream stream) {
  Plan plan = plan_of(p);
  plan.packs =
      are_aligned(x, dy) && may_stage_packs<T>(plan.x, plan.cells) && may_stage_packs<T>(plan.dy, plan.gradients);
  for (Staged* tile : {&plan.cells, &plan.gradients}) set_unit(*tile, plan.packs ? kQuad : 1);
  const std::int64_t weights = p.K * p.weights(), blocks = plan.splits * blocks_of_split(plan);
  const Parts<T> parts{plan.splits > 1 ? partial : nullptr, dw, weights};
  const simt::Status status = simt::launch(kernel_of<T>(plan, p.S == 1), dim3(static_cast<unsigned>(blocks)),
                                           dim3(static_cast<unsigned>(plan.threads)),
                                           static_cast<std::size_t>(plan.shared_bytes), stream, plan, x, dy, parts);
  if (status != simt::kSuccess || plan.splits == 1) return status;
  return sum_parts(partial, dw, plan.splits, weights, stream);
}

template simt::Status conv2d_grouped_wgrad(const Conv2dProblem&, const float*, const float*, float*, float*,
                                           simt::Stream);
template simt::Status conv2d_grouped_wgrad(const Conv2dProblem&, const simt::half*, const simt::half*, simt::half*,
                                           float*, simt::Stream);
template simt::Status conv2d_grouped_wgrad(const Conv2dProblem&, const simt::bfloat16*, const simt::bfloat16*,
                                           simt::bfloat16*, float*, simt::Stream);

}  // namespace gpucnn

// The kernel that grouped_fprop.cu and grouped_dgrad.cu share: every result gathers what it is the sum of.
//
//     result[position][out] = sum over taps and in of source[cell of position and tap][in] * weight(tap, in, out)
//
// for each group, where forward reads images and writes windows, in of C/groups channels and out of K/groups filters,
// and backward reads windows and writes images, in of filters and out of channels. Backward with a stride u, pixels
// that differ by u meet the same taps: they are a phase, and over the pixels of a phase the product is a forward one of
// unit stride, of the taps that meet it. No multiplication is by a zero that the stride put there.
//
// Layout   source, result as images; w (K,R,S,C/groups). A block works in shared memory, in float32: on a tile of the
//          source, which holds every cell under a tile of positions (staged.h), and on the weights of the bundle.
//          Weights lie as in memory, one line a filter (and, backward, in the order of `in`, the group fastest), padded
//          so that the lanes of a warp, which differ by group and quad, find theirs in different banks.
// Block    a tile of positions (images x rows x columns) and a bundle of neighbouring groups, about 32 channels wide;
//          or 32 of a wider group's results. It goes through the group's `in` in strips.
// Warp     `quads` quads of 4 neighbouring results, side by side, of 32 / quads positions: with 8 quads a warp reads
//          128 contiguous bytes of a cell, and writes 4 x 128.
// Thread   one quad at kOwn positions, `slots` apart: 4 * kOwn sums in registers. 12 loads of 16 bytes from shared
//          memory feed 128 multiplications. Where a quad's group has fewer than 4 results, as of its last quad it may,
//          the rest is idle.
#pragma once

#include "common/problem.h"
#include "conv2d/staged.h"
#include "simt/simt.h"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <stdexcept>

namespace gpucnn {

inline constexpr int kGatherThreads = 256;
inline constexpr int kGatherOwn = 8;        // positions of a thread
inline constexpr int kGatherSlots = 64;     // threads of one quad at most: of 512 positions
inline constexpr int kGatherQuads = 8;      // of a block at most
inline constexpr int kGatherChannels = 32;  // of a bundle of groups, where one has no more

// One axis: H, R, P and the vertical steps, or W, S, Q and the horizontal ones.
struct GatherAxis {
  int sources, results;  // cells
  int taps, stride, padding, dilation;
  int phases;         // of the results: 1 forward, the stride backward
  int period;         // a phase meets one in so many taps
  int position_step;  // from the cells of a position to those of the next
  int tap_step;       // from the cell of a tap that is met to that of the next, without its sign

  // Of a phase, at most.
  constexpr int positions() const { return (results - 1) / phases + 1; }
  constexpr int most_taps() const { return (taps - 1) / period + 1; }
  constexpr Reach reach() const { return {positions(), position_step, (most_taps() - 1) * tap_step + 1}; }
};

// The taps that a phase meets, first, first + period, ...; the cell of position 0 and the tap that has the smallest;
// and where, counted from there, the cell of the first tap is and how far it is to the next tap's.
struct Taps {
  int first, count, origin, nearest, step;
};

__device__ __forceinline__ Taps forward_taps(const GatherAxis& axis) {
  return {0, axis.taps, -axis.padding, 0, axis.dilation};
}

__device__ __forceinline__ Taps backward_taps(const GatherAxis& axis, int phase) {
  int first = 0;
  while (first < axis.taps && (phase + axis.padding - first * axis.dilation) % axis.stride != 0) ++first;
  if (first >= axis.taps) return {0, 0, 0, 0, 0};
  const int count = (axis.taps - 1 - first) / axis.period + 1;
  const int window = (phase + axis.padding - first * axis.dilation) / axis.stride;  // of the first pixel and tap
  return {first, count, window - (count - 1) * axis.tap_step, (count - 1) * axis.tap_step, -axis.tap_step};
}

struct GatherPlan {
  GatherAxis vertical, horizontal;
  Source source;
  int outs;              // results of a group and position
  std::int64_t results;  // channels of the result
  Staged staged;
  int quads_each, quads, slots;  // of a group in a block, of a block; threads of a quad
  int weight_pitch, weights_at;  // floats of a line of weights; where they begin in shared memory
  int images, rows, columns;     // positions of a tile
  SmallDivisor by_rows, by_columns;
  // What a block is told to do, the fastest first: which quads of its groups, groups, tile, phase.
  Divisor chunks, bundles, column_tiles, row_tiles, column_phases, row_phases;
  std::int64_t blocks;
  int shared_bytes, threads;
  bool packs;  // source and weights may be read, and results written, four or more elements at a time
};

// Weights of a bundle in shared memory: lines, and the floats of one before it is padded.
template <bool kBackward>
__host__ __device__ constexpr int weight_lines(int bundle, int strip, int quads) {
  return kBackward ? strip * bundle : 4 * quads;
}
template <bool kBackward>
constexpr int weight_pitch_of(int taps, int strip, int quads_each) {
  const int line = taps * (kBackward ? 4 * quads_each : strip);
  if (kBackward) return line + (((4 * quads_each - line) % 32) + 32) % 32;  // groups side by side: banks side by side
  return line % 8 == 4 ? line : line + 4;                                   // quads side by side: 4 * odd apart
}

// The plan that costs least of those that fit, of ever fewer groups a bundle, then of ever narrower strips. Throws
// std::invalid_argument where none does.
template <bool kBackward>
GatherPlan plan_gather(const Conv2dProblem& p) {
  const auto axis = [](std::int64_t images, std::int64_t windows, std::int64_t kernel, std::int64_t stride,
                       std::int64_t padding, std::int64_t dilation) {
    const std::int64_t common = std::gcd(stride, dilation), size = kBackward ? windows : images;
    return GatherAxis{static_cast<int>(size),
                      static_cast<int>(kBackward ? images : windows),
                      static_cast<int>(kernel),
                      static_cast<int>(stride),
                      static_cast<int>(padding),
                      static_cast<int>(dilation),
                      static_cast<int>(kBackward ? stride : 1),
                      static_cast<int>(kBackward ? stride / common : 1),
                      static_cast<int>(kBackward ? 1 : stride),
                      static_cast<int>(kBackward ? dilation / common : dilation)};
  };
  require_small_coordinates(p);
  GatherPlan best{};
  best.vertical = axis(p.H, p.P, p.R, p.stride.vertical, p.padding.vertical, p.dilation.vertical);
  best.horizontal = axis(p.W, p.Q, p.S, p.stride.horizontal, p.padding.horizontal, p.dilation.horizontal);
  const int depth = static_cast<int>(kBackward ? p.filters() : p.channels());
  best.outs = static_cast<int>(kBackward ? p.channels() : p.filters());
  best.results = kBackward ? p.C : p.K;
  best.source = {p.N,   best.vertical.sources, best.horizontal.sources, static_cast<int>(p.groups),
                 depth, kBackward ? p.K : p.C};
  const int taps = best.vertical.most_taps() * best.horizontal.most_taps();
  const int quads_of_group = (best.outs - 1) / 4 + 1;
  best.quads_each = even_piece(quads_of_group, kGatherQuads);
  const Reach rows = best.vertical.reach(), columns = best.horizontal.reach();
  const double phases = double(best.vertical.phases) * best.horizontal.phases;

  Shape shape;
  int bundle = std::max(1, kGatherChannels / std::max(round_up(depth, 4), 4 * best.quads_each));
  bundle = static_cast<int>(std::min<std::int64_t>(bundle, p.groups));
  int strip = depth <= kGatherChannels ? round_up(depth, 4) : kGatherChannels;
  for (bool last = false; !last;) {
    const int quads = bundle * best.quads_each;
    const int slots = std::min(kGatherThreads / quads, kGatherSlots), threads = round_up(quads * slots, 32);
    const int pitch = weight_pitch_of<kBackward>(taps, strip, best.quads_each);
    const int weights = weight_lines<kBackward>(bundle, strip, quads) * pitch;
    const auto floats = [&](int pixels, int) { return pixels * pitch_of(bundle, strip) + weights; };
    // A block multiplies 128 pairs a cycle, and gets some 8 floats: half as many useful ones of less than a sector.
    const double strips = blocks_of(strip, depth), bytes = strips * strip * bundle;
    const double compute = threads * kGatherOwn * 4.0 * taps * strip * strips / 128 + weights * strips / 8;
    const double pixel = bytes / (strip < 8 && strips > 1 ? 4 : 8);
    for (const int limit : {kFloatsOfBlock, kMostFloatsOfBlock}) {
      Shape found = cheapest(p.N, rows, columns, slots * kGatherOwn, compute, pixel, limit, floats);
      if (!found.found()) continue;
      found.cost *= double(blocks_of(bundle, p.groups)) * phases;
      if (shape.found() && found.cost >= shape.cost) break;
      shape = found;
      best.quads = quads, best.slots = slots, best.threads = threads;
      best.weight_pitch = pitch;
      best.staged = {0, 0, 0, bundle, strip, 0, {}, {}, {}};
      break;
    }
    last = bundle == 1 && strip == 4;
    if (bundle > 1) {
      bundle /= 2;
    } else {
      strip = std::max(4, round_up(strip / 2, 4));
    }
  }
  if (!shape.found()) {
    throw std::invalid_argument("conv2d: a window's cells and weights do not fit a block's shared memory");
  }

  bundle = best.staged.bundle, strip = best.staged.strip;
  best.images = shape.images, best.rows = shape.rows, best.columns = shape.columns;
  best.by_rows = small_divisor_of(best.rows), best.by_columns = small_divisor_of(best.columns);
  best.staged = staged_of(shape.images, static_cast<int>(rows.cells(shape.rows)),
                          static_cast<int>(columns.cells(shape.columns)), bundle, strip);
  best.weights_at = best.staged.floats();
  best.shared_bytes = static_cast<int>(sizeof(float)) *
                      (best.weights_at + weight_lines<kBackward>(bundle, strip, best.quads) * best.weight_pitch);
  best.chunks = divisor_of(blocks_of(best.quads_each, quads_of_group));
  best.bundles = divisor_of(blocks_of(bundle, p.groups));
  best.column_tiles = divisor_of(blocks_of(shape.columns, columns.positions));
  best.row_tiles = divisor_of(blocks_of(shape.rows, rows.positions));
  best.column_phases = divisor_of(best.horizontal.phases), best.row_phases = divisor_of(best.vertical.phases);
  best.blocks = best.chunks.value * std::int64_t{best.bundles.value} * best.column_tiles.value * best.row_tiles.value *
                best.column_phases.value * best.row_phases.value * blocks_of(shape.images, p.N);
  return best;
}

// Fills `lines` with the weights of `cut`'s groups and strip, of the taps that are met.
template <typename T, bool kBackward, bool kPacks>
__device__ __forceinline__ void stage_weights(const GatherPlan& plan, const Cut& cut, int first_out, const Taps& rows,
                                              const Taps& columns, const T* __restrict__ w, float* lines) {
  const int bundle = plan.staged.bundle, strip = plan.staged.strip, depth = plan.source.depth;
  const int wide = kBackward ? 4 * plan.quads_each : strip;  // floats of a tap in a line
  const int units = rows.count * columns.count * (wide / 4);
  const int all = weight_lines<kBackward>(bundle, strip, plan.quads) * units;
  const int channels = kBackward ? plan.outs : depth, filters = kBackward ? depth : plan.outs;  // of a group
  for (int unit = static_cast<int>(threadIdx.x); unit < all; unit += static_cast<int>(blockDim.x)) {
    const int line = unit / units, place = unit % units, tap = place / (wide / 4);
    const int r = rows.first + tap / columns.count * plan.vertical.period;
    const int s = columns.first + tap % columns.count * plan.horizontal.period;
    const int within = place % (wide / 4) * 4;
    int group, filter, channel;  // within the bundle, and within the group
    if constexpr (kBackward) {
      group = line % bundle, filter = cut.channel + line / bundle, channel = first_out + within;
    } else {
      const int quad = line % plan.quads;
      group = quad / plan.quads_each, channel = cut.channel + within;
      filter = first_out + quad % plan.quads_each * 4 + line / plan.quads;
    }
    const bool inside = cut.group + group < plan.source.groups && filter < filters;
    const std::int64_t k = std::int64_t{cut.group + group} * filters + filter;
    const T* const from =
        w + (inside ? ((k * plan.vertical.taps + r) * plan.horizontal.taps + s) * channels + channel : 0);
    Floats<4> values = {};
    if constexpr (kPacks) {
      if (inside && channel < channels) values = load<4>(from);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (inside && channel + i < channels) values[i] = simt::to_float(from[i]);
      }
    }
    store(lines + line * plan.weight_pitch + tap * wide + within, values);
  }
}

// sums[i] += of position i, the products with the cells at from + cells[i] and the weights at `weights`: kBackward, 4
// lines of 4 results, otherwise 4 lines of 4 cells' channels; `line` floats from one to the next.
template <bool kBackward>
__device__ __forceinline__ void add_products(Floats<4> (&sums)[kGatherOwn], const float* from,
                                             const int (&cells)[kGatherOwn], const float* weights, int line) {
  Floats<4> lines[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) lines[i] = load<4>(weights + i * line);
#pragma unroll
  for (int i = 0; i < kGatherOwn; ++i) {
    const Floats<4> cell = load<4>(from + cells[i]);
#pragma unroll
    for (int in = 0; in < 4; ++in) {
#pragma unroll
      for (int out = 0; out < 4; ++out) sums[i][out] += cell[in] * (kBackward ? lines[in][out] : lines[out][in]);
    }
  }
}

// `finish(value, k)` makes a sum what is stored in channel k of the result.
template <typename T, bool kBackward, bool kPacks, typename Finish>
__device__ __forceinline__ void gather(const GatherPlan& plan, const T* __restrict__ source, const T* __restrict__ w,
                                       T* __restrict__ result, Finish&& finish) {
  SIMT_DYNAMIC_SHARED(float, staged);
  float* const weights = staged + plan.weights_at;
  const int thread = static_cast<int>(threadIdx.x);
  const int quad = thread % plan.quads, slot = thread / plan.quads;  // beyond plan.slots: works, and stores nothing
  const int group = quad / plan.quads_each, quad_of_group = quad % plan.quads_each;
  const int bundle = plan.staged.bundle, strip = plan.staged.strip, wide = kBackward ? 4 * plan.quads_each : strip;
  const int positions = plan.images * plan.rows * plan.columns;

  int cells[kGatherOwn];  // where the staged cell of a position and tap 0 begins
#pragma unroll
  for (int i = 0; i < kGatherOwn; ++i) {
    const int index = slot + i * plan.slots, used = index < positions ? index : 0;
    const int line = plan.by_columns.divide(used), image = plan.by_rows.divide(line);
    const int row = plan.by_rows.rest(line, image) * plan.vertical.position_step;
    const int column = plan.by_columns.rest(used, line) * plan.horizontal.position_step;
    cells[i] = ((image * plan.staged.rows + row) * plan.staged.columns + column) * plan.staged.pitch;
  }

  for (std::int64_t block = blockIdx.x; block < plan.blocks; block += gridDim.x) {
    const Quotient chunk = plan.chunks.divide(block), in_bundle = plan.bundles.divide(chunk.whole);
    const Quotient column_tile = plan.column_tiles.divide(in_bundle.whole);
    const Quotient row_tile = plan.row_tiles.divide(column_tile.whole);
    const Quotient column_phase = plan.column_phases.divide(row_tile.whole);
    const Quotient row_phase = plan.row_phases.divide(column_phase.whole);
    const Taps rows = kBackward ? backward_taps(plan.vertical, row_phase.rest) : forward_taps(plan.vertical);
    const Taps columns = kBackward ? backward_taps(plan.horizontal, column_phase.rest) : forward_taps(plan.horizontal);
    const int first_row = row_tile.rest * plan.rows, first_column = column_tile.rest * plan.columns;  // of the phase
    const int first_group = in_bundle.rest * bundle, first_out = chunk.rest * plan.quads_each * 4;
    Cut cut{row_phase.whole * plan.images, rows.origin + first_row * plan.vertical.position_step,
            columns.origin + first_column * plan.horizontal.position_step, first_group, 0};

    Floats<4> sums[kGatherOwn] = {};
    for (; rows.count * columns.count > 0 && cut.channel < plan.source.depth; cut.channel += strip) {
      stage<T, kPacks>(plan.staged, plan.source, cut, source, staged);
      stage_weights<T, kBackward, kPacks>(plan, cut, first_out, rows, columns, w, weights);
      simt::cp_async_wait_all();
      __syncthreads();
      for (int r = 0; r < rows.count; ++r) {
        const int row = (rows.nearest + r * rows.step) * plan.staged.columns;
        for (int s = 0; s < columns.count; ++s) {
          const float* const from =
              staged + (row + columns.nearest + s * columns.step) * plan.staged.pitch + group * strip;
          const float* const lines = weights + (r * columns.count + s) * wide;
          for (int in = 0; in < strip; in += 4) {
            if constexpr (kBackward) {
              add_products<true>(sums, from + in, cells,
                                 lines + (in * bundle + group) * plan.weight_pitch + quad_of_group * 4,
                                 bundle * plan.weight_pitch);
            } else {
              add_products<false>(sums, from + in, cells, lines + quad * plan.weight_pitch + in,
                                  plan.quads * plan.weight_pitch);
            }
          }
        }
      }
      __syncthreads();
    }

    const int out = first_out + quad_of_group * 4;  // of the group
    const bool has_quad = slot < plan.slots && first_group + group < plan.source.groups && out < plan.outs;
    const int channel = (first_group + group) * plan.outs + out;
#pragma unroll
    for (int i = 0; i < kGatherOwn; ++i) {
      const int index = slot + i * plan.slots;
      const int line = plan.by_columns.divide(index), image = plan.by_rows.divide(line);
      const int row = (first_row + plan.by_rows.rest(line, image)) * plan.vertical.phases + row_phase.rest;
      const int column =
          (first_column + plan.by_columns.rest(index, line)) * plan.horizontal.phases + column_phase.rest;
      if (!has_quad || index >= positions || cut.image + image >= plan.source.images || row >= plan.vertical.results ||
          column >= plan.horizontal.results) {
        continue;
      }
      const std::int64_t pixel = ((cut.image + image) * plan.vertical.results + row) * plan.horizontal.results + column;
      T* const to = result + pixel * plan.results + channel;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (kPacks || out + j < plan.outs) sums[i][j] = finish(sums[i][j], channel + j);
      }
      if constexpr (kPacks) {
        store(to, sums[i]);
      } else {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          if (out + j < plan.outs) to[j] = simt::from_float<T>(sums[i][j]);
        }
      }
    }
  }
}

// Settles whether there may be packs: that depends on the type and on addresses.
template <typename T, typename... Pointers>
void settle_packs(GatherPlan& plan, const Pointers*... pointers) {
  plan.packs = are_aligned(pointers...) && plan.outs % 4 == 0 && may_stage_packs<T>(plan.source, plan.staged);
  set_unit(plan.staged, plan.packs ? kPack<T> : 1);
}

inline dim3 gather_grid(const GatherPlan& plan) {
  return dim3(static_cast<unsigned>(std::min<std::int64_t>(plan.blocks, kMostCells)));
}

}  // namespace gpucnn

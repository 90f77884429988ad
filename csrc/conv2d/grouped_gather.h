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
// Thread   one quad at kGatherOwn positions, `slots` apart: 32 sums in registers. 12 loads of 16 bytes feed 128
//          multiplications. Where a group's last quad has fewer than 4 results, the rest is idle.
// Sliding  where 3 taps side by side meet neighbouring cells (3x3 of unit stride), a thread's positions are neighbours:
//          it reads their 10 cells once for all three taps, and 22 loads feed 384 multiplications.
#pragma once

#include "common/epilogue.h"
#include "conv2d/grouped_plan.h"
#include "conv2d/staged.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {

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

// Fills `lines` with the weights of `cut`'s groups and strip, of the taps that are met. 8 lanes side by side, whose 16
// bytes each are one pass of shared memory, are on one line: lines are padded.
template <typename T, bool kBackward>
__device__ __forceinline__ void stage_weights(const GatherPlan& plan, const Cut& cut, int first_out, const Taps& rows,
                                              const Taps& columns, const T* __restrict__ w, float* lines) {
  const int bundle = plan.staged.bundle, strip = plan.staged.strip, depth = plan.source.depth;
  const int wide = kBackward ? 4 * plan.quads_each : strip;  // floats of a tap in a line
  const int units = rows.count * columns.count * (wide / 4), of_line = round_up(units, 8);
  const int all = weight_lines<kBackward>(bundle, strip, plan.quads) * of_line;
  const int channels = kBackward ? plan.outs : depth, filters = kBackward ? depth : plan.outs;  // of a group
  for (int unit = static_cast<int>(threadIdx.x); unit < all; unit += static_cast<int>(blockDim.x)) {
    const int line = unit / of_line, place = unit % of_line, tap = place / (wide / 4);
    if (place >= units) continue;
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
    if (plan.quads_together) {
      if (inside && channel < channels) values = load<4>(from);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (inside && channel + i < channels) values[i] = simt::to_float(from[i]);
      }
    }
    store_quad_shared(lines + line * plan.weight_pitch + tap * wide + within, values);
  }
}

// 4 x 4 weights: kBackward, 4 lines of 4 results, otherwise 4 lines of 4 of a cell's channels; `line` floats apart.
template <bool kBackward>
struct Weights {
  Floats<4> lines[4];

  __device__ __forceinline__ Weights(const float* weights, int line) {
#pragma unroll
    for (int i = 0; i < 4; ++i) lines[i] = load<4>(weights + i * line);
  }

  __device__ __forceinline__ void multiply(const Floats<4>& cell, Floats<4>& sums) const {
#pragma unroll
    for (int in = 0; in < 4; ++in) {
#pragma unroll
      for (int out = 0; out < 4; ++out) sums[out] += cell[in] * (kBackward ? lines[in][out] : lines[out][in]);
    }
  }
};

// sums[i] += the products of position i with a filter row's taps, of which the first one's cell is at `from` and the
// next `step` floats on, its weights at `weights`, and the next `tap` floats on. Where not sliding, cells[i] more.
template <bool kBackward, bool kSlides>
__device__ __forceinline__ void add_taps(Floats<4> (&sums)[kGatherOwn], const int (&cells)[kGatherOwn], int taps,
                                         const float* from, int step, const float* weights, int tap, int line) {
  if constexpr (kSlides) {
    // Backward, the first tap's cell is the last.
    const int pitch = kBackward ? -step : step;
    const float* const first = kBackward ? from + (kSlidingTaps - 1) * step : from;
    Floats<4> all[kGatherOwn + kSlidingTaps - 1];
#pragma unroll
    for (int i = 0; i < kGatherOwn + kSlidingTaps - 1; ++i) all[i] = load<4>(first + i * pitch);
#pragma unroll
    for (int s = 0; s < kSlidingTaps; ++s) {
      const Weights<kBackward> mine(weights + s * tap, line);
#pragma unroll
      for (int i = 0; i < kGatherOwn; ++i) mine.multiply(all[i + (kBackward ? kSlidingTaps - 1 - s : s)], sums[i]);
    }
  } else {
    for (int s = 0; s < taps; ++s) {
      const Weights<kBackward> mine(weights + s * tap, line);
#pragma unroll
      for (int i = 0; i < kGatherOwn; ++i) mine.multiply(load<4>(from + s * step + cells[i]), sums[i]);
    }
  }
}

template <typename T, bool kBackward, bool kPacks, bool kSlides>
__device__ __forceinline__ void gather(const GatherPlan& plan, const T* __restrict__ source, const T* __restrict__ w,
                                       T* __restrict__ result, const Epilogue<T>& epilogue) {
  SIMT_DYNAMIC_SHARED(float, staged);
  float* const weights = staged + plan.weights_at;
  const int thread = static_cast<int>(threadIdx.x);
  const int quad = thread % plan.quads, slot = thread / plan.quads;  // beyond plan.slots: works, and stores nothing
  const int group = quad / plan.quads_each, quad_of_group = quad % plan.quads_each;
  const int bundle = plan.staged.bundle, strip = plan.staged.strip, wide = kBackward ? 4 * plan.quads_each : strip;
  constexpr int kRun = kSlides ? kGatherOwn : 1;  // neighbours that an index stands for
  const int positions = plan.images * plan.rows * plan.columns;
  const int apart = kSlides ? 0 : plan.slots;  // the indices of a thread

  int cells[kGatherOwn];  // where the staged cell of a position and tap 0 begins
#pragma unroll
  for (int i = 0; i < kGatherOwn; ++i) {
    const int used = min(slot + i * apart, positions - 1);  // beyond: as a neighbour, for nobody
    const int line = plan.by_columns.divide(used), image = plan.by_rows.divide(line);
    const int row = plan.by_rows.rest(line, image) * plan.vertical.position_step;
    const int column = plan.by_columns.rest(used, line) * plan.horizontal.position_step * kRun;
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
    const int first_row = row_tile.rest * plan.rows,
              first_column = column_tile.rest * plan.columns * kRun;  // of the phase
    const int first_group = in_bundle.rest * bundle, first_out = chunk.rest * plan.quads_each * 4;
    Cut cut{row_phase.whole * plan.images, rows.origin + first_row * plan.vertical.position_step,
            columns.origin + first_column * plan.horizontal.position_step, first_group, 0};

    Floats<4> sums[kGatherOwn] = {};
    for (; rows.count * columns.count > 0 && cut.channel < plan.source.depth; cut.channel += strip) {
      stage<T, kPacks>(plan.staged, plan.source, cut, source, staged);
      stage_weights<T, kBackward>(plan, cut, first_out, rows, columns, w, weights);
      simt::cp_async_wait_all();
      __syncthreads();
      for (int r = 0; r < rows.count; ++r) {
        const int row = (rows.nearest + r * rows.step) * plan.staged.columns + columns.nearest;
        const float* const from = staged + row * plan.staged.pitch + group * strip + (kSlides ? cells[0] : 0);
        const float* const lines = weights + r * columns.count * wide;
        const int step = columns.step * plan.staged.pitch;
        for (int in = 0; in < strip; in += 4) {
          if constexpr (kBackward) {
            add_taps<true, kSlides>(sums, cells, columns.count, from + in, step,
                                    lines + (in * bundle + group) * plan.weight_pitch + quad_of_group * 4, wide,
                                    bundle * plan.weight_pitch);
          } else {
            add_taps<false, kSlides>(sums, cells, columns.count, from + in, step, lines + quad * plan.weight_pitch + in,
                                     wide, plan.quads * plan.weight_pitch);
          }
        }
      }
      __syncthreads();
    }

    const int out = first_out + quad_of_group * 4;  // of the group
    const bool has_quad = slot < plan.slots && first_group + group < plan.source.groups && out < plan.outs;
    const int channel = (first_group + group) * plan.outs + out;
    Floats<4> offsets = {};
    if (has_quad && epilogue.bias != nullptr) {
      if (plan.quads_together) {
        offsets = load<4>(epilogue.bias + channel);
      } else {
#pragma unroll
        for (int j = 0; j < 4; ++j) offsets[j] = out + j < plan.outs ? epilogue.offset(channel + j) : 0.0f;
      }
    }
#pragma unroll
    for (int i = 0; i < kGatherOwn; ++i) {
      const int index = slot + i * apart;
      const int line = plan.by_columns.divide(index), image = plan.by_rows.divide(line);
      const int row = (first_row + plan.by_rows.rest(line, image)) * plan.vertical.phases + row_phase.rest;
      const int column =
          (first_column + plan.by_columns.rest(index, line) * kRun + (kSlides ? i : 0)) * plan.horizontal.phases +
          column_phase.rest;
      if (!has_quad || index >= positions || cut.image + image >= plan.source.images || row >= plan.vertical.results ||
          column >= plan.horizontal.results) {
        continue;
      }
      const std::int64_t pixel = ((cut.image + image) * plan.vertical.results + row) * plan.horizontal.results + column;
      T* const to = result + pixel * plan.results + channel;
#pragma unroll
      for (int j = 0; j < 4; ++j) sums[i][j] = epilogue.clip(sums[i][j] + offsets[j]);
      if (plan.quads_together) {
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

}  // namespace gpucnn

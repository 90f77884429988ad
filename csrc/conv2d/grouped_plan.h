// How the kernel of grouped_gather.h is to go about a problem: its tiles, bundles and strips, by arithmetic on sizes.
// For .cu files.
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
inline constexpr int kGatherOwn = 8;     // positions of a thread
inline constexpr int kGatherSlots = 64;  // threads of one quad at most: of 512 positions
inline constexpr int kSlidingTaps = 3;
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

struct GatherPlan {
  GatherAxis vertical, horizontal;
  Source source;
  int outs;              // results of a group and position
  std::int64_t results;  // channels of the result
  Staged staged;
  int quads_each, quads, slots;  // of a group in a block, of a block; threads of a quad
  int weight_pitch, weights_at;  // floats of a line of weights; where they begin in shared memory
  bool slides;                   // positions of a thread are neighbours, and `columns` counts such runs
  int images, rows, columns;     // positions of a tile
  SmallDivisor by_rows, by_columns;
  // What a block is told to do, the fastest first: which quads of its groups, groups, tile, phase.
  Divisor chunks, bundles, column_tiles, row_tiles, column_phases, row_phases;
  std::int64_t blocks;
  int shared_bytes, threads;
  bool packs;           // the source may be read 16 bytes at a time
  bool quads_together;  // weights may be read, and results written, 4 at a time
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

// The plan that costs least of those that fit, of ever fewer groups a bundle, then of ever narrower strips, unless
// `only_strip` says which; of those that have fewer than `narrow` channels of a pixel only where none else fits. Throws
// std::invalid_argument where none does.
template <bool kBackward>
GatherPlan cheapest_gather(const Conv2dProblem& p, bool may_slide, int only_strip, int narrow) {
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
  const Reach rows = best.vertical.reach(), single = best.horizontal.reach();
  const bool slidable = may_slide && best.horizontal.phases == 1 && single.step == 1 && best.horizontal.tap_step == 1 &&
                        best.horizontal.taps == kSlidingTaps;
  const Reach runs{blocks_of(kGatherOwn, single.positions), kGatherOwn, single.span + kGatherOwn - 1};
  const double phases = static_cast<double>(best.vertical.phases) * best.horizontal.phases;

  Shape shape;
  int bundle = std::max(1, kGatherChannels / std::max(round_up(depth, 4), 4 * best.quads_each));
  bundle = static_cast<int>(std::min<std::int64_t>(bundle, p.groups));
  int strip = depth <= kGatherChannels ? round_up(depth, 4) : kGatherChannels;
  for (bool last = false; !last;) {
    if (shape.found() && bundle * strip < narrow) break;
    const int quads = bundle * best.quads_each;
    const int slots = std::min(kGatherThreads / quads, kGatherSlots), threads = round_up(quads * slots, 32);
    const int pitch = weight_pitch_of<kBackward>(taps, strip, best.quads_each);
    const int weights = weight_lines<kBackward>(bundle, strip, quads) * pitch;
    const double strips = static_cast<double>(blocks_of(strip, depth));
    // A block multiplies 128 pairs a cycle where it slides, and waits for shared memory half as long again where it
    // does not; it gets some 8 floats a cycle, half as many useful ones of less than a sector.
    const double products = threads * kGatherOwn * 4.0 * taps * strip * strips / 128 + weights * strips / 8;
    const double pixel = strips * cycles_of_pixel(strip * bundle);
    for (const bool slides : {true, false}) {
      if ((slides && (!slidable || quads != kGatherQuads)) || (only_strip > 0 && strip != only_strip)) continue;
      const Reach& columns = slides ? runs : single;
      const int pixel_pitch = pitch_of(bundle, strip, quads, columns.step);
      const auto floats = [&](int pixels, int) { return pixels * pixel_pitch + weights; };
      for (const int limit : {kFloatsOfBlock, kMostFloatsOfBlock}) {
        Shape found = cheapest(p.N, rows, columns, slides ? slots : slots * kGatherOwn,
                               slides ? products : 1.5 * products, pixel, limit, floats);
        if (!found.found()) continue;
        found.cost *= static_cast<double>(blocks_of(bundle, p.groups)) * phases;
        if (shape.found() && found.cost >= shape.cost) break;
        shape = found;
        // No more warps than the tile has work for.
        const int used = static_cast<int>(blocks_of(slides ? 1 : kGatherOwn, found.positions()));
        best.threads = round_up(quads * used, 32);
        best.slides = slides, best.quads = quads, best.slots = std::min(slots, best.threads / quads);
        best.weight_pitch = pitch;
        best.staged = {0, 0, 0, bundle, strip, pixel_pitch, {}, {}, {}};
        break;
      }
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

  const Reach& columns = best.slides ? runs : single;
  bundle = best.staged.bundle, strip = best.staged.strip;
  best.images = shape.images, best.rows = shape.rows, best.columns = shape.columns;
  best.by_rows = small_divisor_of(best.rows), best.by_columns = small_divisor_of(best.columns);
  best.staged = staged_of(shape.images, static_cast<int>(rows.cells(shape.rows)),
                          static_cast<int>(columns.cells(shape.columns)), bundle, strip, best.staged.pitch);
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

// In which strips a sum is added up decides its bits, and so must not depend on the number of images. Pieces of pixels
// of less than a sector, or a pack, are read for more than they are worth.
template <bool kBackward, typename T>
GatherPlan plan_gather(const Conv2dProblem& p, bool may_slide) {
  constexpr int kSector = 2 * kPack<T>;
  Conv2dProblem usual = p;
  usual.N = 32;
  const int strip = cheapest_gather<kBackward>(usual, false, 0, kSector).staged.strip;
  return cheapest_gather<kBackward>(p, may_slide, strip, kSector);
}

// The plan for arrays of T at these addresses, on which it depends whether there may be packs, and so whether to slide.
template <bool kBackward, typename T, typename... Pointers>
GatherPlan plan_for(const Conv2dProblem& p, const Pointers*... pointers) {
  for (const bool may_slide : {true, false}) {
    GatherPlan plan = plan_gather<kBackward, T>(p, may_slide);
    plan.packs = are_aligned(pointers...) && may_stage_packs<T>(plan.source, plan.staged);
    plan.quads_together = plan.packs && plan.outs % 4 == 0;
    set_unit(plan.staged, plan.packs ? kQuad : 1);
    if (plan.packs || !plan.slides) return plan;
  }
  return {};
}

inline dim3 gather_grid(const GatherPlan& plan) {
  return dim3(static_cast<unsigned>(std::min<std::int64_t>(plan.blocks, kMostCells)));
}

}  // namespace gpucnn

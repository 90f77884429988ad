// What the stem kernels share: images of 1 to 4 channels, of which lines lie in shared memory as they do in the array,
// so that a filter row's S*C weights meet S*C neighbouring floats. For .cu files.
#pragma once

#include "common/problem.h"
#include "conv2d/staged.h"
#include "simt/ptx.h"
#include "simt/simt.h"

#include <algorithm>
#include <cstdint>
#include <stdexcept>

namespace gpucnn {

inline constexpr int kStemThreads = 256;
inline constexpr int kStemChannels = 4;  // at most
inline constexpr int kStemLanes = 8;     // threads side by side at most that own the filters of a block, 8 each

// A tile of lines in shared memory, as float32: (images, rows) of them, `pitch` floats each.
struct Lines {
  int images, rows, pitch;
  SmallDivisor by_rows, by_units;

  __host__ __device__ constexpr int floats() const { return images * rows * pitch; }
};

// What of a convolution the kernels compute with.
struct Stem {
  Axis vertical, horizontal;
  std::int64_t images;
  int channels, filters;
  int run;                            // S*C: weights of a filter row
  int weights;                        // R*S*C
  int lanes;                          // threads side by side that own the filters of a block
  int images_of_tile, rows, columns;  // positions of a tile
  Lines lines;
  Divisor chunks, column_tiles, row_tiles;  // of filters; and then image tiles
  std::int64_t tiles;

  __host__ __device__ constexpr int filters_of_block() const { return 8 * lanes; }
  __host__ __device__ constexpr std::int64_t line_elements() const { return std::int64_t{horizontal.size} * channels; }
};

// Floats of a line that holds `cells` cells. The start may lie up to a pack into it, and it ends with a pack; and a
// line is `apart` banks after the one before, nearly.
constexpr int line_pitch(std::int64_t cells, int channels, int apart) {
  const int least = round_up(static_cast<int>(cells) * channels + 14, 8);
  return least + ((round_up(apart, 4) - least) % 32 + 32) % 32;
}

// Throws std::invalid_argument for what is no stem.
inline void require_stem(const Conv2dProblem& p) {
  if (p.groups != 1 || p.C > kStemChannels || p.dilation.horizontal != 1 || p.weights() > 1024 || p.S * p.C > 128) {
    throw std::invalid_argument(
        "conv2d: a stem kernel needs 1 to 4 channels, one group, no horizontal dilation, filters of at most 1,024 "
        "weights "
        "and filter rows of at most 128");
  }
  require_small_coordinates(p);
}

// Fills in the tile, the cheapest: see cheapest(), of which floats() is told the floats of lines instead of pixels.
// apart(columns of the tile) is how many banks lines should be apart.
template <typename FloatsOf, typename Apart>
bool set_tile(Stem& stem, const Conv2dProblem& p, int most, double compute, FloatsOf&& floats, Apart&& apart) {
  const Reach rows{p.P, stem.vertical.stride, (stem.vertical.kernel - 1) * stem.vertical.dilation + 1};
  const Reach columns{p.Q, stem.horizontal.stride, stem.horizontal.kernel};
  const int slack = (14 + 7 + 31) / stem.channels + 1;  // what a line has more, in cells
  const Reach wide{p.Q, stem.horizontal.stride, stem.horizontal.kernel + slack};
  for (const int limit : {kFloatsOfBlock, kMostFloatsOfBlock}) {
    const Shape shape = cheapest(p.N, rows, wide, most, compute, stem.channels / 8.0, limit,
                                 [&](int pixels, int positions) { return floats(pixels * stem.channels, positions); });
    if (!shape.found()) continue;
    stem.images_of_tile = shape.images, stem.rows = shape.rows, stem.columns = shape.columns;
    const int lines = static_cast<int>(rows.cells(shape.rows));
    stem.lines = {shape.images,
                  lines,
                  line_pitch(columns.cells(shape.columns), stem.channels, apart(shape.columns)),
                  small_divisor_of(lines),
                  {}};
    stem.column_tiles = divisor_of(blocks_of(shape.columns, p.Q));
    stem.row_tiles = divisor_of(blocks_of(shape.rows, p.P));
    stem.tiles = std::int64_t{stem.column_tiles.value} * stem.row_tiles.value * blocks_of(shape.images, p.N);
    return true;
  }
  return false;
}

inline Stem stem_of(const Conv2dProblem& p, int lanes) {
  Stem stem{};
  stem.vertical = vertical_axis(p), stem.horizontal = horizontal_axis(p);
  stem.images = p.N;
  stem.channels = static_cast<int>(p.C), stem.filters = static_cast<int>(p.K);
  stem.run = static_cast<int>(p.S * p.C), stem.weights = static_cast<int>(p.weights());
  stem.lanes = lanes;
  stem.chunks = divisor_of(blocks_of(8 * lanes, p.K));
  return stem;
}

// Whether lines may be read in quads: they are whole packs.
template <typename T>
bool may_stage_packs(const Stem& stem, const T* x) {
  return are_aligned(x) && stem.line_elements() % kPack<T> == 0;
}

inline void set_unit(Stem& stem, int elements) {
  stem.lines.by_units = small_divisor_of(stem.lines.pitch / elements);
}

// Where a tile is: its first image, window row and column; and where in its lines the cell under the first tap of that
// column begins.
struct StemTile {
  std::int64_t image;
  int row, column, lead;
};

template <typename T, bool kPacks>
__device__ __forceinline__ StemTile stem_tile(const Stem& stem, std::int64_t index) {
  const Quotient column = stem.column_tiles.divide(index), row = stem.row_tiles.divide(column.whole);
  StemTile tile{row.whole * stem.images_of_tile, row.rest * stem.rows, column.rest * stem.columns, 0};
  if constexpr (kPacks) {  // the rest of a division that rounds down
    tile.lead = stem.horizontal.first_cell(tile.column) * stem.channels & (kPack<T> - 1);
  }
  return tile;
}

// Fills `floats` with the lines under a tile: what is outside an image is zero. All threads of a block call it;
// cp_async_wait_all() and a barrier have to follow.
template <typename T, bool kPacks>
__device__ __forceinline__ void stage_lines(const Stem& stem, const StemTile& tile, const T* __restrict__ x,
                                            float* floats) {
  constexpr int kUnit = kPacks ? kQuad : 1;
  const int units = stem.lines.images * stem.lines.rows * static_cast<int>(stem.lines.by_units.value);
  const int first_row = stem.vertical.first_cell(tile.row);
  const std::int64_t begin = std::int64_t{stem.horizontal.first_cell(tile.column)} * stem.channels - tile.lead;
#pragma unroll 2
  for (int unit = static_cast<int>(threadIdx.x); unit < units; unit += static_cast<int>(blockDim.x)) {
    const int line = stem.lines.by_units.divide(unit), image = stem.lines.by_rows.divide(line);
    const int row = first_row + stem.lines.by_rows.rest(line, image);
    const int place = stem.lines.by_units.rest(unit, line) * kUnit;
    const std::int64_t element = begin + place;  // of the image's row
    const bool inside = tile.image + image < stem.images && stem.vertical.contains(row) && element >= 0 &&
                        element < stem.line_elements();
    const T* const from =
        x + (inside ? ((tile.image + image) * stem.vertical.size + row) * stem.line_elements() + element : 0);
    float* const to = floats + line * stem.lines.pitch + place;
    if constexpr (!kPacks) {
      *to = inside ? simt::to_float(*from) : 0.0f;
    } else if constexpr (sizeof(T) == sizeof(float)) {
      simt::cp_async<16>(to, from, inside);
    } else {
      Floats<kUnit> values = {};
      if (inside) values = load<kUnit>(from);
      store_quad_shared(to, values);
    }
  }
}

}  // namespace gpucnn

// Tiles of images in shared memory, as the grouped kernels use them. For .cu files.
//
// A staged tile is (images, rows, columns) pixels of some of an array's channels, as float32 whatever the array's type:
// those of `bundle` neighbouring groups, `strip` floats each. A pixel takes `pitch` floats; what lies outside the image
// or the group is zero.
#pragma once

#include "common/index.h"
#include "common/pack.h"
#include "simt/ptx.h"
#include "simt/simt.h"
#include "simt/store_shared.h"

#include <algorithm>
#include <cstdint>
#include <stdexcept>

namespace gpucnn {

// Division of small numbers, where the number times the divisor is below 2^31: exact, as the inverse is too large by
// less than 1, and so the product by less than 1 / divisor.
struct SmallDivisor {
  unsigned value, inverse;

  __host__ __device__ constexpr int divide(int number) const {
    return static_cast<int>((std::uint64_t{static_cast<unsigned>(number)} * inverse) >> 31);
  }
  __host__ __device__ constexpr int rest(int number, int whole) const {
    return number - whole * static_cast<int>(value);
  }
};

constexpr SmallDivisor small_divisor_of(int value) {
  return {static_cast<unsigned>(value), (1u << 31) / static_cast<unsigned>(value) + 1};
}

// The array that tiles are cut from: (images, rows, columns, channels), of `groups` groups of `depth` channels.
struct Source {
  std::int64_t images;
  int rows, columns, groups, depth;
  std::int64_t channels;
};

// The size of a staged tile.
struct Staged {
  int images, rows, columns, bundle, strip, pitch;
  SmallDivisor by_rows, by_columns, by_units;
  bool skips;  // of quads: every other of 8 pixels first

  __host__ __device__ constexpr int pixels() const { return images * rows * columns; }
  __host__ __device__ constexpr int floats() const { return pixels() * pitch; }
};

// Floats of a pixel, where 8 lanes side by side, which one pass of shared memory serves 16 bytes each, are `lanes` to a
// pixel, of each of its groups, and pixels are `step` apart: the fewest for which they read different banks.
constexpr int pitch_of(int bundle, int strip, int lanes, int step) {
  const int pixels = lanes < 8 ? 8 / lanes : 1, least = bundle * strip;
  for (int pitch = least; pitch < least + 32; pitch += 4) {
    unsigned taken = 0;
    bool apart = true;
    for (int pixel = 0; pixel < pixels; ++pixel) {
      for (int group = 0; group < bundle; ++group) {
        const unsigned banks = 1u << (pixel * step * pitch + group * strip) / 4 % 8;
        apart = apart && (taken & banks) == 0;
        taken |= banks;
      }
    }
    if (apart) return pitch;
  }
  return least + 4;
}

// One whose elements are read one by one, until set_unit() says otherwise.
constexpr Staged staged_of(int images, int rows, int columns, int bundle, int strip, int pitch) {
  return {images,
          rows,
          columns,
          bundle,
          strip,
          pitch,
          small_divisor_of(rows),
          small_divisor_of(columns),
          small_divisor_of(bundle * strip),
          false};
}

// Where a tile is cut: its first image, row and column (which may lie in the padding), first group, and first channel
// within the groups.
struct Cut {
  std::int64_t image;
  int row, column, group, channel;
};

// Elements that are staged together: 16 bytes of shared memory, which lanes side by side store to all banks, and 8 or
// 16 of the array.
inline constexpr int kQuad = 4;

// A quad to `to`, by one store.
__device__ __forceinline__ void store_quad_shared(float* to, const Floats<kQuad>& values) {
  detail::Access<float, kQuad> access;
#pragma unroll
  for (int i = 0; i < kQuad; ++i) access.elements[i] = values[i];
  simt::store_shared(to, access.word);
}

// Whether such tiles may be read in quads, and whole packs of the array: their channels then lie in the array as they
// do in the tile, and no pack goes beyond them.
template <typename T>
bool may_stage_packs(const Source& array, const Staged& tile) {
  constexpr int pack = kPack<T>;
  if (array.channels % pack != 0 || tile.bundle * tile.strip % pack != 0 || array.depth % 4 != 0) return false;
  return tile.bundle > 1 ? tile.strip == array.depth : array.depth % pack == 0;
}

// The pixel that is number `number` where of 8 in a row 0, 2, 4 and 6 come first.
__host__ __device__ constexpr int every_other(int number) {
  return (number & ~7) + number % 4 * 2 + number % 8 / 4;
}

// Of pixels of `units` quads, `pitch` floats apart: whether 8 lanes side by side share banks less where
// pixels come in that order.
constexpr bool better_skipping(int units, int pitch) {
  int most[2] = {};
  for (int skips = 0; skips < 2; ++skips) {
    for (int first = 0; first < 8 * units; first += 8) {
      int of_quad[8] = {};
      for (int unit = first; unit < first + 8; ++unit) {
        const int pixel = skips ? every_other(unit / units) : unit / units;
        const int count = ++of_quad[(pixel * (pitch / 4) + unit % units) % 8];
        most[skips] = count > most[skips] ? count : most[skips];
      }
    }
  }
  return most[1] < most[0];
}

inline void set_unit(Staged& tile, int elements) {
  const int units = tile.bundle * tile.strip / elements;
  tile.by_units = small_divisor_of(units);
  tile.skips = elements == 4 && better_skipping(units, tile.pitch);
}

// Fills `floats` with a tile of `array`. All threads of a block call it; cp_async_wait_all() and a barrier have to
// follow.
template <typename T, bool kAligned>
__device__ __forceinline__ void stage(const Staged& tile, const Source& source, const Cut& cut,
                                      const T* __restrict__ array, float* floats) {
  constexpr int kUnit = kAligned ? kQuad : 1;
  const int units = tile.pixels() * static_cast<int>(tile.by_units.value);
  // Channels from the cut to the end of the strip, or of the array where the bundle is not whole.
  const int whole = tile.bundle > 1 ? (source.groups - cut.group) * source.depth : source.depth - cut.channel;
  const int first = cut.group * source.depth + cut.channel;
#pragma unroll 2
  for (int unit = static_cast<int>(threadIdx.x); unit < units; unit += static_cast<int>(blockDim.x)) {
    const int number = tile.by_units.divide(unit), place = tile.by_units.rest(unit, number) * kUnit;  // in the pixel
    const bool skips = tile.skips && (number | 7) < tile.pixels();
    const int pixel = skips ? every_other(number) : number;
    const int line = tile.by_columns.divide(pixel), image = tile.by_rows.divide(line);
    const int row = cut.row + tile.by_rows.rest(line, image), column = cut.column + tile.by_columns.rest(pixel, line);
    int channel = place;  // from the first
    bool inside =
        cut.image + image < source.images && row >= 0 && row < source.rows && column >= 0 && column < source.columns;
    if constexpr (kAligned) {
      inside = inside && channel < whole;
    } else {
      const int group = place / tile.strip, within = place % tile.strip;
      channel = group * source.depth + within;
      inside = inside && cut.group + group < source.groups && cut.channel + within < source.depth;
    }
    const std::int64_t offset =
        (((cut.image + image) * source.rows + row) * source.columns + column) * source.channels + first + channel;
    const T* const from = array + (inside ? offset : 0);
    float* const to = floats + pixel * tile.pitch + place;
    if constexpr (!kAligned) {
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

// ------------------------------------------------------------------------------------------------ what a tile costs

// Throws std::invalid_argument where coordinates of a tile that goes beyond its image may not fit an int.
inline void require_small_coordinates(const Conv2dProblem& p) {
  const auto reach = [](std::int64_t size, std::int64_t outputs, std::int64_t stride, std::int64_t padding,
                        std::int64_t kernel, std::int64_t dilation) {
    return std::max(size, (outputs - 1) * stride) + 2 * padding + kernel * dilation;
  };
  if (std::max(reach(p.H, p.P, p.stride.vertical, p.padding.vertical, p.R, p.dilation.vertical),
               reach(p.W, p.Q, p.stride.horizontal, p.padding.horizontal, p.S, p.dilation.horizontal)) >
      kMostCells / 4) {
    throw std::invalid_argument("conv2d: rows or columns reach over more than 2^29 cells");
  }
}

inline constexpr int kFloatsOfBlock = 72 * 256;      // of shared memory wanted at most, 72 KiB: 3 blocks of an H100's
inline constexpr int kMostFloatsOfBlock = 96 * 256;  // and never more, 96 KiB

// Cycles to stage a pixel of `floats` neighbours: 8 a cycle, and as much again for the sectors and rows of memory that
// a narrow piece of a pixel leaves half used.
constexpr double cycles_of_pixel(int floats) {
  return floats / 8.0 * (1.0 + 8.0 / floats);
}

__host__ __device__ constexpr int round_up(int value, int multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Cuts of `size` into pieces of at most `most`, as equal as can be: the length of each.
constexpr int even_piece(std::int64_t size, std::int64_t most) {
  return static_cast<int>(blocks_of(blocks_of(most, size), size));
}

// The positions of a tile, and what it takes to work on all tiles, in cycles of a multiprocessor.
struct Shape {
  int images = 0, rows = 0, columns = 0;
  double cost = 0;

  constexpr int positions() const { return images * rows * columns; }
  constexpr bool found() const { return images > 0; }
};

// One axis of tiles: `positions` of them, `step` cells apart, whose taps reach over `span` cells.
struct Reach {
  std::int64_t positions;
  int step, span;

  constexpr std::int64_t cells(int count) const { return std::int64_t{count - 1} * step + span; }
};

// The tile of at most `most` positions of which all tiles together cost least, where a tile costs `compute`, and
// `pixel` for each pixel that it stages; floats(pixels, positions) may be at most `limit`. None may be found.
template <typename FloatsOf>
Shape cheapest(std::int64_t images, const Reach& rows, const Reach& columns, int most, double compute, double pixel,
               int limit, FloatsOf&& floats) {
  Shape best;
  for (int width = even_piece(columns.positions, most);; width = even_piece(columns.positions, width - 1 - width / 8)) {
    Shape tile;
    tile.columns = width;
    tile.rows = even_piece(rows.positions, std::max(1, most / tile.columns));
    tile.images =
        static_cast<int>(std::max<std::int64_t>(1, std::min<std::int64_t>(images, most / (tile.columns * tile.rows))));
    const auto pixels = [&] { return tile.images * rows.cells(tile.rows) * columns.cells(tile.columns); };
    const auto fits = [&] {
      return pixels() <= limit && floats(static_cast<int>(pixels()), tile.positions()) <= limit;
    };
    while (!fits() && tile.images > 1) tile.images = (tile.images + 1) / 2;
    while (!fits() && tile.rows > 1) tile.rows = (tile.rows + 1) / 2;
    const double tiles = static_cast<double>(blocks_of(tile.columns, columns.positions)) *
                         static_cast<double>(blocks_of(tile.rows, rows.positions)) *
                         static_cast<double>(blocks_of(tile.images, std::max<std::int64_t>(1, images)));
    tile.cost = tiles * (compute + pixel * static_cast<double>(pixels()));
    if (fits() && (!best.found() || tile.cost < best.cost)) best = tile;
    if (width == 1) break;
  }
  return best;
}

}  // namespace gpucnn

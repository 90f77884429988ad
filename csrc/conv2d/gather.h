// Where the operands of a convolution, as a product of matrices, lie in its images and filters: Sources for the
// operands of gemm/operands.h. None is ever written out as a matrix. For .cu files.
//
//   ImageRows    windows by (tap, channel): a window's rows and columns are strides apart, a tap's cells are steps
//                apart, which may be negative. Of fprop's x; of dgrad's dy, whose windows are the pixels of dx.
//   FilterLines  (tap, filter) by channel: dgrad's w, whose taps may be some of each so many.
//   ImageLines   window by (tap, channel): wgrad's x.
//
// Indices are divided once, when a block begins; from strip to strip they are added to, with a carry.
//
// A strip is kStep of an operand's depth: gemm::kDepth<T> unless said otherwise.
//
// Wide     what a block sees of an image lies within 2^31 elements (fits_wide): offsets are counted in 32 bits from a
//          pointer of 64. In strips of gemm::kDepth<T>, a depth of taps by channels has as many channels or more.
#pragma once

#include "conv2d/geometry.h"
#include "gemm/operands.h"
#include "simt/simt.h"

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace gpucnn {

// A place in a depth of taps by channels: (down, across, channel), the channel fastest.
struct TapAt {
  int down, across, channel;
};

// The extents of such a depth, and what a strip of the operand is in them.
template <typename T, bool kWide, int kStep = gemm::kDepth<T>>
struct TapGrid {
  static constexpr bool kFewerThanChannels = kWide && kStep == gemm::kDepth<T>;

  int down, across, channels;
  TapAt jump;  // where a strip may be more than the channels

  __host__ __device__ static constexpr TapGrid of(int down, int across, int channels) {
    if constexpr (kFewerThanChannels) return {down, across, channels, {}};
    const int taps = kStep / channels, width = across > 0 ? across : 1;
    return {down, across, channels, {taps / width, taps % width, kStep % channels}};
  }
  __host__ __device__ constexpr std::int64_t depth() const { return std::int64_t{down} * across * channels; }

  __device__ __forceinline__ TapAt at(int d) const {
    const int tap = d / channels, width = across > 0 ? across : 1;
    return {tap / width, tap % width, d % channels};
  }
  __device__ __forceinline__ bool contains(const TapAt& at) const { return at.down < down; }
  __device__ __forceinline__ void next(TapAt& at) const { add(at, {0, 0, 1}); }
  __device__ __forceinline__ void advance(TapAt& at) const {
    if constexpr (kFewerThanChannels) {
      add(at, {0, 0, kStep});
    } else {
      add(at, jump);
    }
  }

 private:
  __device__ __forceinline__ void add(TapAt& at, const TapAt& more) const {
    at.channel += more.channel;
    at.across += more.across;
    at.down += more.down;
    if (at.channel >= channels) {
      at.channel -= channels;
      ++at.across;
    }
    if (at.across >= across) {
      at.across -= across;
      ++at.down;
    }
  }
};

// One axis of windows that are gathered: window i has its tap j on cell origin + i * stride + j * step.
struct Gather {
  int size, origin, stride, step;

  __device__ __forceinline__ bool contains(int cell) const {
    return static_cast<unsigned>(cell) < static_cast<unsigned>(size);
  }
};

template <typename T, bool kWide, int kStep = gemm::kDepth<T>>
struct ImageRows {
  const T* data;
  Gather down, across;
  Images windows;  // rows and columns of windows; its channels mean nothing
  std::int64_t count;
  TapGrid<T, kWide, kStep> taps;
  int pitch;  // from a pixel to the next: the channels, of which a group's are some

  template <typename Lines>
  struct State {
    const T* at;                                    // the cell of line 0's first tap, which may lie outside
    gemm::Count<kWide> offset[Lines::kCount];       // of line n's, from there
    int row[Lines::kCount], column[Lines::kCount];  // of the same cell
    TapAt tap;
  };

  // Lines beyond the last repeat it.
  template <typename Lines>
  __device__ __forceinline__ State<Lines> state(std::int64_t line, std::int64_t depth) const {
    State<Lines> state;
    std::int64_t first = 0;
#pragma unroll
    for (int n = 0; n < Lines::kCount; ++n) {
      const Pixel window = windows.pixel(min(line + Lines::of(n), count - 1));
      state.row[n] = down.origin + window.row * down.stride;
      state.column[n] = across.origin + window.column * across.stride;
      const std::int64_t cell = (window.image * down.size + state.row[n]) * across.size + state.column[n];
      if (n == 0) first = cell;
      state.offset[n] = static_cast<gemm::Count<kWide>>((cell - first) * pitch);
    }
    state.at = data + first * pitch;
    state.tap = taps.at(static_cast<int>(depth));
    return state;
  }
  template <typename Lines>
  __device__ __forceinline__ void advance(State<Lines>& state) const {
    taps.advance(state.tap);
  }
  template <typename Lines>
  __device__ __forceinline__ void next(State<Lines>& state) const {
    taps.next(state.tap);
  }
  template <typename Lines>
  __device__ __forceinline__ bool find(const State<Lines>& state, int n, const T** at) const {
    using Offset = gemm::Count<kWide>;
    const int rows = state.tap.down * down.step, columns = state.tap.across * across.step;
    const Offset tap = (Offset{rows} * across.size + columns) * pitch + state.tap.channel;
    *at = state.at + (n == 0 ? tap : tap + state.offset[n]);
    return taps.contains(state.tap) && down.contains(state.row[n] + rows) && across.contains(state.column[n] + columns);
  }
};

// Whether 128 windows in a row, and their taps, lie within 2^31 elements of one another.
inline bool fits_wide(const Gather& down, const Gather& across, std::int64_t rows, std::int64_t columns, std::int64_t R,
                      std::int64_t S, std::int64_t channels) {
  const auto size = [](std::int64_t value) { return value < 0 ? -value : value; };
  const std::int64_t to_next_row = std::max<std::int64_t>(down.stride, size(down.size - (rows - 1) * down.stride));
  const std::int64_t tall = (128 / columns + 2) * to_next_row + R * size(down.step);
  const std::int64_t broad = columns * across.stride + S * size(across.step) + 1;
  const std::int64_t most = std::int64_t{0x7fffffff} / channels;
  return broad <= most && tall <= (most - broad) / across.size;
}

template <typename T, bool kWide, int kStep = gemm::kDepth<T>>
struct FilterLines {
  const T* data;                  // its first tap that takes part
  int channels;                   // of x: a line
  int taps;                       // of a filter
  int step_down, step_across;     // from one tap that takes part to the next, in taps
  TapGrid<T, kWide, kStep> grid;  // those taps, by filters

  template <typename Lines>
  struct State {
    const T* at;  // of line 0
    int lines;    // from there on
    TapAt tap;
  };

  template <typename Lines>
  __device__ __forceinline__ State<Lines> state(std::int64_t line, std::int64_t depth) const {
    return {data + line, static_cast<int>(channels - line), grid.at(static_cast<int>(depth))};
  }
  template <typename Lines>
  __device__ __forceinline__ void advance(State<Lines>& state) const {
    grid.advance(state.tap);
  }
  template <typename Lines>
  __device__ __forceinline__ bool find(const State<Lines>& state, int n, const T** at) const {
    const int tap = state.tap.channel * taps + state.tap.down * step_down + state.tap.across * step_across;
    *at = state.at + (std::int64_t{tap} * channels + Lines::of(n));
    return grid.contains(state.tap) && Lines::of(n) < state.lines;
  }
};

template <typename T, bool kWide, int kStep = gemm::kDepth<T>>
struct ImageLines {
  const T* data;
  Geometry g;
  int jump_row, jump_column;                // cells that kStep windows further are further, less whole images
  std::int64_t jump, next_row, next_image;  // offsets: of that jump; from beyond a row to the next; beyond an image

  static ImageLines of(const Geometry& g, const T* data) {
    const std::int64_t P = g.vertical.outputs, Q = g.horizontal.outputs, u = g.vertical.stride, v = g.horizontal.stride;
    const std::int64_t W = g.horizontal.size, H = g.vertical.size, C = g.x.channels.value;
    const std::int64_t images = kStep / (P * Q), rows = kStep / Q % P, columns = kStep % Q;
    return {data,
            g,
            static_cast<int>(rows * u),
            static_cast<int>(columns * v),
            ((images * H + rows * u) * W + columns * v) * C,
            (u * W - Q * v) * C,
            (H - P * u) * W * C};
  }

  // A window, as the cell under a tap: the first one's, or that of the thread's line 0 where it is wide.
  struct Cell {
    const T* at;
    int row, column;
    int row_end, column_end;     // where a row and an image of windows end
    gemm::Count<kWide> windows;  // from there on
  };
  // What line n's tap is further than line 0's.
  template <typename Lines>
  struct Wide {
    Cell cell;
    int offset[Lines::kCount], row[Lines::kCount], column[Lines::kCount];
  };
  template <typename Lines>
  struct Narrow {
    Cell cell;
    std::int64_t line;
  };
  template <typename Lines>
  using State = std::conditional_t<kWide, Wide<Lines>, Narrow<Lines>>;

  // Wide: lines beyond the last repeat the last pack, or element.
  template <typename Lines>
  __device__ __forceinline__ State<Lines> state(std::int64_t line, std::int64_t depth) const {
    const Corner corner = corner_of(g, depth);
    const int height = g.vertical.outputs * g.vertical.stride, width = g.horizontal.outputs * g.horizontal.stride;
    Cell cell{data + corner.offset,
              corner.row,
              corner.column,
              height - g.vertical.padding,
              width - g.horizontal.padding,
              gemm::count_of<kWide>(g.positions - depth)};
    if constexpr (kWide) {
      const int last = g.weights.value - (Lines::kPacks ? kPack<T> : 1);
      const Tap first = tap_of(g, static_cast<int>(min(line, std::int64_t{last})));
      cell.at += first.offset;
      cell.row += first.row, cell.row_end += first.row;
      cell.column += first.column, cell.column_end += first.column;
      State<Lines> state{cell, {}, {}, {}};
#pragma unroll
      for (int n = 1; n < Lines::kCount; ++n) {
        const Tap tap = tap_of(g, static_cast<int>(min(line + Lines::of(n), std::int64_t{last})));
        state.offset[n] = static_cast<int>(tap.offset - first.offset);
        state.row[n] = tap.row - first.row, state.column[n] = tap.column - first.column;
      }
      return state;
    } else {
      return {cell, line};
    }
  }
  template <typename State>
  __device__ __forceinline__ void advance(State& state) const {
    Cell& cell = state.cell;
    cell.windows -= kStep;
    cell.at += jump;
    cell.row += jump_row;
    cell.column += jump_column;
    if (cell.column >= cell.column_end) {
      cell.column -= g.horizontal.outputs * g.horizontal.stride;
      cell.row += g.vertical.stride;
      cell.at += next_row;
    }
    if (cell.row >= cell.row_end) {
      cell.row -= g.vertical.outputs * g.vertical.stride;
      cell.at += next_image;
    }
  }
  template <typename Lines>
  __device__ __forceinline__ bool find(const Wide<Lines>& state, int n, const T** at) const {
    const Cell& cell = state.cell;
    *at = cell.at + (n == 0 ? 0 : state.offset[n]);
    const int row = n == 0 ? cell.row : cell.row + state.row[n];
    const int column = n == 0 ? cell.column : cell.column + state.column[n];
    return cell.windows > 0 && g.vertical.contains(row) && g.horizontal.contains(column);
  }
  template <typename Lines>
  __device__ __forceinline__ bool find(const Narrow<Lines>& state, int n, const T** at) const {
    const Cell& cell = state.cell;
    const std::int64_t line = state.line + Lines::of(n);
    const bool exists = cell.windows > 0 && line < g.weights.value;
    const Tap tap = tap_of(g, exists ? static_cast<int>(line) : 0);
    *at = cell.at + tap.offset;
    return exists && g.vertical.contains(cell.row + tap.row) && g.horizontal.contains(cell.column + tap.column);
  }
};

}  // namespace gpucnn

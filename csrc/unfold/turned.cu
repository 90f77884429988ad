// columns[n, (c*R+r)*S+s, p*Q+q] = x[n, p*stride-padding+r*dilation, q*stride-padding+s*dilation, c], 0 outside the
// image; and x[n,h,w,c], the sum of those elements of columns that this reads from there.
//
// Images have their channels beside each other, columns their windows: what goes from one to the other is turned, in
// tiles of 32 x 32 through shared memory. With fewer than 16 channels a thread instead walks over those of one window,
// or cell: neighbours read and write neighbouring columns, and lines of cells stay in L1. The backward pass gathers: a
// cell asks every window that it is in, so nothing is written twice and the sum has one order, that of the taps.
//
// Layout   x (N,H,W,C), columns (N, C*R*S, P*Q).
// Block    256 threads: 32 windows (or cells) of one image in a row and 32 channels, tap after tap; or 256 windows or
//          cells of any images.
// Warp     of a tile: 32 channels of one window and tap at a time, then 32 windows of one channel: 128 bytes of float32
//          either way. A line of the tile is one word longer than 32 elements: no bank conflicts.
// Limits   what check() in unfold.h asks for; nothing needs to be aligned, and no access is wider than an element.
// Bound    memory: each element of columns once, x from L1 or L2 but for the first time. 3x3 on N8 C64 56x56:
// float32 6.4
//          + 58 MB, 21 us at 3.0 TB/s either way; 16 bits 11 us.
// Measured not run on hardware yet.
#include "common/index.h"
#include "common/pixels.h"
#include "common/window_axis.h"
#include "simt/simt.h"
#include "unfold/unfold.h"

#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kSide = static_cast<int>(kTurned);
constexpr int kThreads = 256;
constexpr int kResident = 4;  // blocks of a multiprocessor: 64 registers a thread, where ptxas would rather spill
constexpr int kWarps = kThreads / kSide;
constexpr int kRounds = kSide / kWarps;  // of a warp over the tile
static_assert(kThreads == kPixelThreads && kSide == 32, "a warp is a line of the tile");

template <typename Word>
constexpr int kLine = kSide + (sizeof(Word) < 4 ? 4 / static_cast<int>(sizeof(Word)) : 1);

struct Unfolding {
  WindowAxis vertical, horizontal;
  Images x, windows;                    // windows: P, Q, C
  std::int64_t images, cells, columns;  // N; H * W, and P * Q, of one image
  Divisor strips, bands;                // tiles along cells or columns, and along channels
};

Unfolding unfolding_of(const UnfoldProblem& p, std::int64_t along) {
  return {window_axis(vertical_axis(p)),
          window_axis(horizontal_axis(p)),
          images_of(p.H, p.W, p.C),
          images_of(p.P, p.Q, p.C),
          p.N,
          p.H * p.W,
          p.P * p.Q,
          divisor_of(blocks_of(kSide, along)),
          divisor_of(blocks_of(kSide, p.C))};
}

// What a block of a tile kernel works on.
struct Tile {
  std::int64_t image, first;  // window or cell of the image
  int channel;                // the first
};

__device__ __forceinline__ Tile tile_of(const Unfolding& u) {
  const Quotient by_band = u.bands.divide(blockIdx.x);
  const Quotient by_strip = u.strips.divide(by_band.whole);
  return {by_strip.whole, std::int64_t{by_strip.rest} * kSide, by_band.rest * kSide};
}

// Row number (c * R + r) * S + s of an image's columns.
__device__ __forceinline__ std::int64_t row_of(const Unfolding& u, int channel, int r, int s) {
  return (std::int64_t{channel} * u.vertical.kernel + r) * u.horizontal.kernel + s;
}

__device__ __forceinline__ std::int64_t rows_of(const Unfolding& u) {
  return row_of(u, u.x.channels.value, 0, 0);
}

template <typename Word>
__global__ void __launch_bounds__(kThreads, kResident)
    unfold_turned_kernel(const Unfolding u, const Word* __restrict__ x, Word* __restrict__ columns) {
  SIMT_SHARED(Word, tile, [2][kSide][kLine<Word>]);
  const Tile mine = tile_of(u);
  const int lane = static_cast<int>(threadIdx.x) % kSide, warp = static_cast<int>(threadIdx.x) / kSide;
  const int channels = u.x.channels.value;
  const Word* const image = x + mine.image * u.cells * channels + mine.channel + lane;
  Word* const target = columns + mine.image * rows_of(u) * u.columns + mine.first + lane;
  int top[kRounds], left[kRounds];  // the cells under the first taps of this warp's windows
#pragma unroll
  for (int i = 0; i < kRounds; ++i) {
    const Pixel window = u.windows.pixel(mine.first + warp + i * kWarps);  // beyond the last one: read, not written
    top[i] = u.vertical.first_cell(window.row);
    left[i] = u.horizontal.first_cell(window.column);
  }
  int turn = 0;
  for (int r = 0; r < u.vertical.kernel; ++r) {
    for (int s = 0; s < u.horizontal.kernel; ++s, turn ^= 1) {  // two tiles in turn: one barrier a tap
#pragma unroll
      for (int i = 0; i < kRounds; ++i) {
        const int row = top[i] + r * u.vertical.dilation, column = left[i] + s * u.horizontal.dilation;
        const bool there = u.vertical.contains(row) && u.horizontal.contains(column) && mine.channel + lane < channels;
        tile[turn][warp + i * kWarps][lane] =
            simt::load_if(there, image + u.x.offset({0, row, column}), static_cast<Word>(0));
      }
      __syncthreads();
#pragma unroll
      for (int i = 0; i < kRounds; ++i) {
        const int channel = warp + i * kWarps;
        if (mine.channel + channel < channels && mine.first + lane < u.columns) {
          target[row_of(u, mine.channel + channel, r, s) * u.columns] = tile[turn][lane][channel];
        }
      }
    }
  }
}

template <typename Word>
__global__ void __launch_bounds__(kThreads, kResident)
    unfold_walked_kernel(const Unfolding u, const Word* __restrict__ x, Word* __restrict__ columns) {
  const std::int64_t index = pack_index();  // of a window
  if (index >= u.images * u.columns) return;
  const Pixel window = u.windows.pixel(index);
  const int top = u.vertical.first_cell(window.row), left = u.horizontal.first_cell(window.column);
  const std::int64_t place = std::int64_t{window.row} * u.windows.columns.value + window.column;
  Word* const target = columns + window.image * rows_of(u) * u.columns + place;
  for (int r = 0; r < u.vertical.kernel; ++r) {
    const int row = top + r * u.vertical.dilation;
    for (int s = 0; s < u.horizontal.kernel; ++s) {
      const int column = left + s * u.horizontal.dilation;
      const bool there = u.vertical.contains(row) && u.horizontal.contains(column);
      const Word* const cell = x + u.x.offset({window.image, row, column});
      for (int channel = 0; channel < u.x.channels.value; ++channel) {
        target[row_of(u, channel, r, s) * u.columns] = simt::load_if(there, cell + channel, static_cast<Word>(0));
      }
    }
  }
}

// Calls body(offset of the tap's row of channel 0 and the window's column, in an image's columns) for each window that
// holds the cell, by rising tap.
template <typename Body>
__device__ __forceinline__ void for_each_window(const Unfolding& u, const Pixel& cell, const Body& body) {
  const WindowAxis &vertical = u.vertical, &horizontal = u.horizontal;
  for (Meeting row = first_meeting(vertical, cell.row); row.holds(vertical); row.next(vertical)) {
    const Quotient r = vertical.by_dilation.divide(row.distance);
    if (r.rest != 0) continue;
    for (Meeting column = first_meeting(horizontal, cell.column); column.holds(horizontal); column.next(horizontal)) {
      const Quotient s = horizontal.by_dilation.divide(column.distance);
      if (s.rest != 0) continue;
      const std::int64_t place = std::int64_t{row.window} * u.windows.columns.value + column.window;
      body(row_of(u, 0, static_cast<int>(r.whole), static_cast<int>(s.whole)) * u.columns + place);
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kResident)
    fold_turned_kernel(const Unfolding u, const T* __restrict__ columns, T* __restrict__ x) {
  SIMT_SHARED(float, tile, [kSide][kLine<float>]);
  const Tile mine = tile_of(u);
  const int lane = static_cast<int>(threadIdx.x) % kSide, warp = static_cast<int>(threadIdx.x) / kSide;
  const int channels = u.x.channels.value;
  const std::int64_t step = row_of(u, 1, 0, 0) * u.columns;  // from one channel to the next
  float sum[kRounds];                                        // of channels warp, warp + 8, ... of this lane's cell
#pragma unroll
  for (int i = 0; i < kRounds; ++i) sum[i] = 0.0f;
  if (mine.first + lane < u.cells) {
    const Pixel cell = u.x.pixel(mine.first + lane);
    const T* const source = columns + mine.image * rows_of(u) * u.columns + (mine.channel + warp) * step;
    for_each_window(u, cell, [&](std::int64_t offset) {
#pragma unroll
      for (int i = 0; i < kRounds; ++i) {
        if (mine.channel + warp + i * kWarps < channels) sum[i] += simt::to_float(source[offset + i * kWarps * step]);
      }
    });
  }
#pragma unroll
  for (int i = 0; i < kRounds; ++i) tile[warp + i * kWarps][lane] = sum[i];
  __syncthreads();
  T* const image = x + (mine.image * u.cells + mine.first) * channels + mine.channel + lane;
#pragma unroll
  for (int i = 0; i < kRounds; ++i) {
    const int cell = warp + i * kWarps;
    if (mine.channel + lane < channels && mine.first + cell < u.cells) {
      image[std::int64_t{cell} * channels] = simt::from_float<T>(tile[lane][cell]);
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kResident)
    fold_walked_kernel(const Unfolding u, const T* __restrict__ columns, T* __restrict__ x) {
  const std::int64_t index = pack_index();  // of a cell
  if (index >= u.images * u.cells) return;
  const Pixel cell = u.x.pixel(index);
  const T* source = columns + cell.image * rows_of(u) * u.columns;
  const std::int64_t step = row_of(u, 1, 0, 0) * u.columns;
  for (int channel = 0; channel < u.x.channels.value; ++channel, source += step) {
    float sum = 0.0f;
    for_each_window(u, cell, [&](std::int64_t offset) { sum += simt::to_float(source[offset]); });
    x[index * u.x.channels.value + channel] = simt::from_float<T>(sum);
  }
}

// A block for each tile over `along` windows or cells of each image.
template <typename... Parameters, typename... Arguments>
simt::Status launch_turned(void (*kernel)(Parameters...), const UnfoldProblem& p, std::int64_t along,
                           simt::Stream stream, const Arguments&... arguments) {
  const auto blocks = static_cast<unsigned>(p.N * blocks_of(kSide, along) * blocks_of(kSide, p.C));
  return simt::launch(kernel, dim3(blocks), dim3(kThreads), 0, stream, unfolding_of(p, along), arguments...);
}

template <typename Word>
simt::Status unfold_words(const UnfoldProblem& p, const void* x, void* columns, simt::Stream stream) {
  const auto* const from = static_cast<const Word*>(x);
  auto* const to = static_cast<Word*>(columns);
  const std::int64_t windows = p.P * p.Q;
  if (p.C >= kTurnedChannels) return launch_turned(unfold_turned_kernel<Word>, p, windows, stream, from, to);
  return launch_packs(unfold_walked_kernel<Word>, p.N * windows, stream, unfolding_of(p, windows), from, to);
}

}  // namespace

simt::Status unfold(const UnfoldProblem& p, int bytes, const void* x, void* columns, simt::Stream stream) {
  if (p.N == 0) return simt::kSuccess;
  return bytes == 4 ? unfold_words<unsigned>(p, x, columns, stream)
                    : unfold_words<unsigned short>(p, x, columns, stream);
}

template <typename T>
simt::Status fold(const UnfoldProblem& p, const T* columns, T* x, simt::Stream stream) {
  if (p.N == 0) return simt::kSuccess;
  const std::int64_t cells = p.H * p.W;
  if (p.C >= kTurnedChannels) return launch_turned(fold_turned_kernel<T>, p, cells, stream, columns, x);
  return launch_packs(fold_walked_kernel<T>, p.N * cells, stream, unfolding_of(p, cells), columns, x);
}

template simt::Status fold(const UnfoldProblem&, const float*, float*, simt::Stream);
template simt::Status fold(const UnfoldProblem&, const simt::half*, simt::half*, simt::Stream);
template simt::Status fold(const UnfoldProblem&, const simt::bfloat16*, simt::bfloat16*, simt::Stream);

}  // namespace gpucnn

// columns[n, (c*R+r)*S+s, p*Q+q] = x[n, p*stride-padding+r*dilation, q*stride-padding+s*dilation, c], 0 outside the
// image; and x[n,h,w,c], the sum of those elements of columns that this reads from there.
//
// Images have their channels beside each other, columns their windows: what goes from one to the other is turned, in
// tiles of 32 x 32 through shared memory. With fewer than 16 channels a block instead has the lines of the image that
// its windows look at in shared memory, from where a thread writes what one window sees; and backward a thread adds up
// all channels of a cell, which are written by way of shared memory. The backward pass gathers: a cell asks every
// window that may hold it, so nothing is written twice and the sum has one order, that of the taps.
//
// Layout   x (N,H,W,C), columns (N, C*R*S, P*Q).
// Block    256 threads: 32 windows (or cells) of one image in a row and 32 channels, tap after tap; or of few
//          channels 256 to 1,024 windows of one image, as many as share 24 KiB of lines, or 256 cells of any images.
// Warp     of a tile: 32 channels of one window and tap at a time, then 32 windows of one channel: 128 bytes of float32
//          either way. A line of the tile is one word longer than 32 elements: no bank conflicts. Of few channels: 32
//          neighbours of a line of cells, then 32 windows of one row of columns.
// Limits   what check() in unfold.h asks for; nothing needs to be aligned, and no access is wider than an element.
//          Lines of few channels that 48 KiB do not hold are turned in tiles, most of whose lanes are idle.
// Bound    memory: each element of columns once, x from L1 or L2 but for the first time. 3x3 on N8 C64 56x56: float32
//          6.4 + 58 MB, 21 us at 3.0 TB/s either way; 16 bits 11 us.
// Measured not run on hardware yet.
#include "common/index.h"
#include "common/window_axis.h"
#include "simt/simt.h"
#include "unfold/unfold.h"

#include <algorithm>
#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kSide = static_cast<int>(kTurned);
constexpr int kThreads = 256;
constexpr int kResident = 4;  // blocks of a multiprocessor: 64 registers a thread, where ptxas would rather spill
constexpr int kWarps = kThreads / kSide;
constexpr int kRounds = kSide / kWarps;  // of a warp over the tile
static_assert(kSide == 32, "a warp is a line of the tile");
constexpr std::int64_t kWords = 6 << 10;       // of lines that a block has in shared memory, 24 KiB
constexpr std::int64_t kMostWords = 12 << 10;  // and at most

template <typename Word>
constexpr int kLine = kSide + (sizeof(Word) < 4 ? 4 / static_cast<int>(sizeof(Word)) : 1);

struct Unfolding {
  WindowAxis vertical, horizontal;
  Images x, windows;                    // windows: P, Q, C
  std::int64_t images, cells, columns;  // N; H * W, and P * Q, of one image
  Divisor strips, bands;                // tiles along cells or columns, and along channels
  int meetings_down, meetings_across;   // windows that may hold a cell, along either axis
};

// `each` windows or cells a tile, of `along` in an image.
Unfolding unfolding_of(const UnfoldProblem& p, std::int64_t along, std::int64_t each = kSide) {
  const auto meetings = [](const Axis& axis) { return (axis.kernel - 1) * axis.dilation / axis.stride + 1; };
  return {window_axis(vertical_axis(p)),
          window_axis(horizontal_axis(p)),
          images_of(p.H, p.W, p.C),
          images_of(p.P, p.Q, p.C),
          p.N,
          p.H * p.W,
          p.P * p.Q,
          divisor_of(blocks_of(each, along)),
          divisor_of(blocks_of(kSide, p.C)),
          meetings(vertical_axis(p)),
          meetings(horizontal_axis(p))};
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

// Of few channels: the lines of cells that `each` windows in a row look at are brought into shared memory as they lie
// in the image, a cell every `channels | 1` words: neighbouring windows then find theirs in different banks.
template <typename Word>
__global__ void __launch_bounds__(kThreads, kResident)
    unfold_staged_kernel(const Unfolding u, int each, const Word* __restrict__ x, Word* __restrict__ columns) {
  SIMT_DYNAMIC_SHARED(unsigned, cells);
  const int thread = static_cast<int>(threadIdx.x), channels = u.x.channels.value, pitch = channels | 1;
  const Quotient strip = u.strips.divide(blockIdx.x);
  const std::int64_t image = strip.whole, first = std::int64_t{strip.rest} * each;
  const std::int64_t end = min(first + each, u.columns);
  const int first_line = u.vertical.first_cell(static_cast<int>(u.windows.columns.divide(first).whole));
  const int last_line = u.vertical.first_cell(static_cast<int>(u.windows.columns.divide(end - 1).whole));
  const int top = max(first_line, 0), lines = min(last_line + u.vertical.reach() + 1, u.vertical.size) - top;
  const Word* const source = x + u.x.offset({image, top, 0});
  for (int i = thread; i < lines * u.horizontal.size * channels; i += kThreads) {
    const Quotient cell = u.x.channels.divide(i);
    cells[static_cast<int>(cell.whole) * pitch + cell.rest] = source[i];
  }
  __syncthreads();
  for (std::int64_t window = first + thread; window < end; window += kThreads) {
    const Quotient at = u.windows.columns.divide(window);
    const int line = u.vertical.first_cell(static_cast<int>(at.whole)), left = u.horizontal.first_cell(at.rest);
    Word* const target = columns + image * rows_of(u) * u.columns + window;
    for (int r = 0; r < u.vertical.kernel; ++r) {
      const int row = line + r * u.vertical.dilation;
      for (int s = 0; s < u.horizontal.kernel; ++s) {
        const int column = left + s * u.horizontal.dilation;
        const bool there = u.vertical.contains(row) && u.horizontal.contains(column);
        const unsigned* const cell = cells + (there ? ((row - top) * u.horizontal.size + column) * pitch : 0);
        for (int channel = 0; channel < channels; ++channel) {
          target[row_of(u, channel, r, s) * u.columns] = static_cast<Word>(simt::load_if(there, cell + channel, 0u));
        }
      }
    }
  }
}

// Calls body(whether there is one, offset of the tap's row of channel 0 and the window's column, in an image's columns)
// for each window that may hold the cell, by rising tap: for all cells equally often, so that neighbours read
// neighbouring windows at the same tap.
template <typename Body>
__device__ __forceinline__ void for_each_window(const Unfolding& u, const Pixel& cell, const Body& body) {
  const WindowAxis &vertical = u.vertical, &horizontal = u.horizontal;
  const Quotient down = vertical.by_stride.divide(cell.row + vertical.padding);
  const Quotient across = horizontal.by_stride.divide(cell.column + horizontal.padding);
  for (int i = 0; i < u.meetings_down; ++i) {
    const std::int64_t p = down.whole - i, distance = down.rest + std::int64_t{i} * vertical.stride;
    const Quotient r = vertical.by_dilation.divide(distance);
    const bool in_rows = p >= 0 && p < vertical.outputs && distance <= vertical.reach() && r.rest == 0;
    for (int j = 0; j < u.meetings_across; ++j) {
      const std::int64_t q = across.whole - j, distance_across = across.rest + std::int64_t{j} * horizontal.stride;
      const Quotient s = horizontal.by_dilation.divide(distance_across);
      const bool there =
          in_rows && q >= 0 && q < horizontal.outputs && distance_across <= horizontal.reach() && s.rest == 0;
      const std::int64_t place = p * u.windows.columns.value + q;
      body(there, row_of(u, 0, static_cast<int>(r.whole), static_cast<int>(s.whole)) * u.columns + place);
    }
  }
}

template <typename T>
__device__ __forceinline__ float value_if(bool there, const T* p) {
  return simt::to_float(simt::load_if(there, p, simt::from_float<T>(0.0f)));
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
  const bool exists = mine.first + lane < u.cells;
  const Pixel cell = u.x.pixel(exists ? mine.first + lane : 0);
  const T* const source = columns + mine.image * rows_of(u) * u.columns + (mine.channel + warp) * step;
  for_each_window(u, cell, [&](bool there, std::int64_t offset) {
#pragma unroll
    for (int i = 0; i < kRounds; ++i) {
      const bool has_channel = mine.channel + warp + i * kWarps < channels;
      sum[i] += value_if(exists && there && has_channel, source + (offset + i * kWarps * step));
    }
  });
#pragma unroll
  for (int i = 0; i < kRounds; ++i) tile[warp + i * kWarps][lane] = sum[i];
  __syncthreads();
  T* const image = x + (mine.image * u.cells + mine.first) * channels + mine.channel + lane;
#pragma unroll
  for (int i = 0; i < kRounds; ++i) {
    const int cell_of_tile = warp + i * kWarps;
    if (mine.channel + lane < channels && mine.first + cell_of_tile < u.cells) {
      image[std::int64_t{cell_of_tile} * channels] = simt::from_float<T>(tile[lane][cell_of_tile]);
    }
  }
}

// Of few channels: a thread has all of a cell, which then leave by way of shared memory, (channels, cells) `pitch`
// floats apart, in the order in which they lie in x.
template <typename T>
__global__ void __launch_bounds__(kThreads, kResident)
    fold_walked_kernel(const Unfolding u, int pitch, const T* __restrict__ columns, T* __restrict__ x) {
  SIMT_DYNAMIC_SHARED(float, sums);
  const std::int64_t first = std::int64_t{blockIdx.x} * kThreads, all = u.images * u.cells;
  const int thread = static_cast<int>(threadIdx.x), channels = u.x.channels.value;
  const bool exists = first + thread < all;
  const Pixel cell = u.x.pixel(exists ? first + thread : 0);
  const T* source = columns + cell.image * rows_of(u) * u.columns;
  const std::int64_t step = row_of(u, 1, 0, 0) * u.columns;
  for (int channel = 0; channel < channels; ++channel, source += step) {
    float sum = 0.0f;
    for_each_window(u, cell,
                    [&](bool there, std::int64_t offset) { sum += value_if(exists && there, source + offset); });
    sums[channel * pitch + thread] = sum;
  }
  __syncthreads();
  const int count = static_cast<int>(min(std::int64_t{kThreads}, all - first)) * channels;
  for (int i = thread; i < count; i += kThreads) {
    const Quotient at = u.x.channels.divide(i);
    x[first * channels + i] = simt::from_float<T>(sums[at.rest * pitch + at.whole]);
  }
}

// Floats from one channel to the next, of kThreads cells each: so many that elements side by side in x are in different
// banks. Of an odd number of channels that is the inverse of it, of a power of 2 an equal share of the banks.
int pitch_of(int channels) {
  int more = 32 / channels;
  while (channels % 2 != 0 && more * channels % 32 != 1) ++more;
  return kThreads + more;
}

// A block for each tile over `along` windows or cells of each image.
template <typename... Parameters, typename... Arguments>
simt::Status launch_turned(void (*kernel)(Parameters...), const UnfoldProblem& p, std::int64_t along,
                           simt::Stream stream, const Arguments&... arguments) {
  const auto blocks = static_cast<unsigned>(p.N * blocks_of(kSide, along) * blocks_of(kSide, p.C));
  return simt::launch(kernel, dim3(blocks), dim3(kThreads), 0, stream, unfolding_of(p, along), arguments...);
}

// The most words that a block of `each` windows in a row has of their lines.
std::int64_t words_of_lines(const UnfoldProblem& p, std::int64_t each) {
  const std::int64_t rows = std::min(p.P, (each - 2) / p.Q + 2);
  const std::int64_t lines = (rows - 1) * p.stride.vertical + (p.R - 1) * p.dilation.vertical + 1;
  return std::min(p.H, lines) * p.W * (p.C | 1);
}

template <typename Word>
simt::Status unfold_words(const UnfoldProblem& p, const void* x, void* columns, simt::Stream stream) {
  const auto* const from = static_cast<const Word*>(x);
  auto* const to = static_cast<Word*>(columns);
  const std::int64_t windows = p.P * p.Q;
  for (int each = 4 * kThreads; p.C < kTurnedChannels && each >= kThreads; each /= 2) {
    const std::int64_t words = words_of_lines(p, each);
    if (words > (each > kThreads ? kWords : kMostWords)) continue;
    return simt::launch(unfold_staged_kernel<Word>, dim3(static_cast<unsigned>(p.N * blocks_of(each, windows))),
                        dim3(kThreads), static_cast<std::size_t>(words) * sizeof(unsigned), stream,
                        unfolding_of(p, windows, each), each, from, to);
  }
  return launch_turned(unfold_turned_kernel<Word>, p, windows, stream, from, to);
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
  const int channels = static_cast<int>(p.C), pitch = pitch_of(channels);
  return simt::launch(fold_walked_kernel<T>, dim3(static_cast<unsigned>(blocks_of(kThreads, p.N * cells))),
                      dim3(kThreads), sizeof(float) * static_cast<std::size_t>(channels * pitch), stream,
                      unfolding_of(p, cells), pitch, columns, x);
}

template simt::Status fold(const UnfoldProblem&, const float*, float*, simt::Stream);
template simt::Status fold(const UnfoldProblem&, const simt::half*, simt::half*, simt::Stream);
template simt::Status fold(const UnfoldProblem&, const simt::bfloat16*, simt::bfloat16*, simt::Stream);

}  // namespace gpucnn

// dw[c,r,s] = sum over n, p, q of dy[n,p,q,c] * x[n, p*stride-padding+r*dilation, q*..., c], each channel with its own
// filter. Stored as float, half or bfloat16, summed in float32.
//
// The N*P rows of windows are cut into splits of equal length. Each split's sums go to a part of `partial` of their
// own; a second kernel adds the parts in order (common/sum_parts.cu). No atomics: the same bits in every run.
//
// Layout   x (N,H,W,C), dy (N,P,Q,C), dw (C,R,S,1), partial (splits,C,R,S,1). A vector is 16 bytes of channels: 4 of
//          float, 8 of half.
// Rows     rows of 3, 5 or 7 taps at horizontal stride 1 or 2, of at most 7 rows, with any vertical stride and
//          dilation. A block owns a slab of at most 16 vectors, all taps, and one split. A thread owns a vector and a
//          row of taps: it goes along rows of windows, each of the block's lanes (threads with the same vector and
//          taps) along every so-many-th row, with the cells under the taps in registers; each step loads one vector of
//          dy and as many of x as the stride. At the end the lanes' sums are added in order, through shared memory, a
//          thread for each channel and row of taps; and leave from there (channels,taps), as in dw: a block writes one
//          run of it.
// Generic  the rest, any filter, stride and dilation: the same, for one tap a thread, and as many blocks as the taps
//          take; channels that are no multiple of a vector or arrays that are not aligned take vectors of one channel.
// Limits   groups = C = K. partial takes less than 16 MiB. Of what is outside an image a 0 is multiplied, which differs
//          from nothing where it meets an infinity or NaN.
// Bound    memory: x once and dy once; of a block's R rows of taps the first that comes to a row of x finds it in
//          memory, the others in the first-level cache. N32 C144 56x56 3x3 stride 1, float: 116 MB, 39 us at an H100's
//          3.0 TB/s; R * (1 + stride) vectors a window from the cache are 24 cycles at 3x3, 56 at 7x7, for what takes
//          76 cycles of memory.
// Measured not run on hardware yet.
#include "common/sum_parts.h"
#include "conv2d/conv2d.h"
#include "conv2d/depthwise.h"
#include "conv2d/geometry.h"

#include <algorithm>
#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocksPerMultiprocessor = 1;  // at least: 255 registers a thread
constexpr std::int64_t kBlocks = 528;        // wanted in a grid: four for each of an H100's 132 multiprocessors
constexpr std::int64_t kUsualSlab = 32;      // channels: splits must not depend on how they are stored
constexpr int kFewestPositions = 512;        // in a split: adding the parts up stays a small share of the work
constexpr std::int64_t kMostSums = 1 << 22;  // of all parts: 16 MiB
constexpr int kAnyStride = 0;

// How a block's threads and a grid's blocks share the sums: rows are R rows of taps or, one tap each, R*S taps.
struct RowGrid {
  Slabs slabs;
  int rows, rows_of_block;
  int row_blocks;  // that one slab takes
  int tap_pitch;   // of a block's sums in shared memory, (taps,channels): floats of a tap
  std::int64_t lines, lines_of_split;
};

// The fewest floats for which `taps` times as many lead to the next bank: sums (channels,taps) that are side by side in
// dw are then in banks side by side. Of an even number of taps there is none; an odd pitch will do.
int tap_pitch_of(int channels, int taps) {
  int pitch = channels | 1;
  while (taps % 2 != 0 && pitch * taps % 32 != 1) pitch += 2;
  return pitch;
}

template <typename T, int kVector, int kTaps, int kStride>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    rows_kernel(const Geometry g, const RowGrid grid, const T* __restrict__ x, const T* __restrict__ dy,
                const Parts<T> parts) {
  static_assert(kTaps == 1 || (kTaps > kStride && kStride != kAnyStride));
  constexpr int kAhead = kTaps == 1 ? 0 : kTaps - kStride;  // cells under the taps before the first step
  constexpr int kNew = kTaps == 1 ? 1 : kStride;            // cells that a step loads
  constexpr int kQuads = kThreads + 4;                      // a vector's quads are 16 banks apart
  SIMT_SHARED(float, exchange, [kQuads * kVector]);
  SIMT_DYNAMIC_SHARED(float, block_sums);  // (rows_of_block * kTaps, tap_pitch)

  const int thread = static_cast<int>(threadIdx.x), shift = grid.slabs.shift, vectors = 1 << shift;
  const int block = static_cast<int>(blockIdx.x), rest = block / grid.slabs.count;
  const int first_channel = (block % grid.slabs.count << shift) * kVector;
  const int first_row = rest % grid.row_blocks * grid.rows_of_block, split = rest / grid.row_blocks;
  const int lanes = (kThreads >> shift) / grid.rows_of_block;
  const int vector = thread & (vectors - 1), number = thread >> shift;
  const int mine = number % grid.rows_of_block, lane = number / grid.rows_of_block;
  const int channel = first_channel + vector * kVector, all_channels = g.x.channels.value;
  const int row = first_row + mine;
  const bool works = channel < all_channels && row < grid.rows && lane < lanes;
  const int r = kTaps == 1 ? row / g.horizontal.kernel : row;
  const int first_tap = kTaps == 1 ? row % g.horizontal.kernel : 0;
  const int stride = kStride == kAnyStride ? g.horizontal.stride : kStride;
  const int first_column = first_tap * g.horizontal.dilation - g.horizontal.padding;

  Floats<kVector> sums[kTaps];
#pragma unroll
  for (int s = 0; s < kTaps; ++s) {
#pragma unroll
    for (int c = 0; c < kVector; ++c) sums[s][c] = 0.0f;
  }

  const std::int64_t begin = split * grid.lines_of_split, end = min(begin + grid.lines_of_split, grid.lines);
  for (std::int64_t line = works ? begin + lane : end; line < end; line += lanes) {
    const auto [image, p] = g.y.rows.divide(line);
    const int h = g.vertical.first_cell(p) + r * g.vertical.dilation;
    if (!g.vertical.contains(h)) continue;
    const T* const gradients = dy + line * g.horizontal.outputs * all_channels + channel;
    const T* const cells = x + g.x.offset({image, h, 0}) + channel;
    const auto cell = [&](int column) {
      const bool inside = g.horizontal.contains(column);
      return load_where<kVector>(inside, cells + (inside ? std::int64_t{column} * all_channels : 0));
    };

    // Of the step for window q, tap s is on window[(q * stride + s) % kTaps]: every kTaps steps it is where it was.
    Floats<kVector> window[kTaps];
#pragma unroll
    for (int s = 0; s < kAhead; ++s) window[s] = cell(first_column + s);
#pragma unroll 1
    for (int first = 0; first < g.horizontal.outputs; first += kTaps) {
#pragma unroll
      for (int step = 0; step < kTaps; ++step) {
        const int q = first + step;
        if (q >= g.horizontal.outputs) break;
#pragma unroll
        for (int i = 0; i < kNew; ++i) {
          window[(step * kNew + kAhead + i) % kTaps] = cell(first_column + q * stride + kAhead + i);
        }
        const Floats<kVector> gradient = load<kVector>(gradients + std::int64_t{q} * all_channels);
#pragma unroll
        for (int s = 0; s < kTaps; ++s) add_product(sums[s], gradient, window[(step * kNew + s) % kTaps]);
      }
    }
  }

  const int slab_channels = kVector << shift, rows = min(grid.rows_of_block, grid.rows - first_row);  // of the block
  const int channels = min(slab_channels, all_channels - first_channel);
#pragma unroll
  for (int s = 0; s < kTaps; ++s) {
    __syncthreads();
    store_quads(exchange, thread, kQuads, sums[s]);
    __syncthreads();
    for (int i = thread; i < rows * slab_channels; i += kThreads) {
      const int own_row = i / slab_channels, own = i % slab_channels;  // channel of the slab
      const auto of_lane = [&](int number) {
        const int first = (number * grid.rows_of_block + own_row) * slab_channels;
        return exchange[place_in_quads<kVector>(first + own, kQuads)];
      };
      float sum = of_lane(0);
      for (int other = 1; other < lanes; ++other) sum += of_lane(other);
      block_sums[(own_row * kTaps + s) * grid.tap_pitch + own] = sum;
    }
  }
  __syncthreads();
  const int taps = rows * kTaps;
  for (int i = thread; i < channels * taps; i += kThreads) {
    const int own = i / taps, tap = i % taps;
    parts.store(split, std::int64_t{first_channel + own} * g.weights.value + first_row * kTaps + tap,
                block_sums[tap * grid.tap_pitch + own]);
  }
}

template <typename T, int kVector, int kTaps, int kStride>
simt::Status launch_rows(const Geometry& g, std::int64_t splits, const T* x, const T* dy, const Parts<T>& parts,
                         simt::Stream stream) {
  const Slabs slabs = slabs_of(g.x.channels.value / kVector);
  const int rows = g.weights.value / kTaps, rows_of_block = std::min(rows, kThreads >> slabs.shift);
  const int row_blocks = static_cast<int>(blocks_of(rows_of_block, rows));
  const std::int64_t lines = g.positions / g.horizontal.outputs;
  const int tap_pitch = tap_pitch_of(kVector << slabs.shift, rows_of_block * kTaps);
  const RowGrid grid{slabs, rows, rows_of_block, row_blocks, tap_pitch, lines, blocks_of(splits, lines)};
  const std::int64_t blocks = splits * slabs.count * row_blocks;
  const std::size_t shared = sizeof(float) * rows_of_block * kTaps * tap_pitch;
  return simt::launch(rows_kernel<T, kVector, kTaps, kStride>, dim3(static_cast<unsigned>(blocks)), dim3(kThreads),
                      shared, stream, g, grid, x, dy, parts);
}

template <typename T>
simt::Status launch(const Geometry& g, std::int64_t splits, const T* x, const T* dy, const Parts<T>& parts,
                    simt::Stream stream) {
  constexpr int kVector = kPack<T>;
  const auto run = [&](auto launcher) { return launcher(g, splits, x, dy, parts, stream); };
  const int channels = g.x.channels.value, S = g.horizontal.kernel;
  const bool aligned = are_aligned(x, dy), once = g.horizontal.stride == 1;
  if (has_short_rows<T>(g.vertical, g.horizontal, channels, aligned)) {
    if (S == 3) return run(once ? launch_rows<T, kVector, 3, 1> : launch_rows<T, kVector, 3, 2>);
    if (S == 5) return run(once ? launch_rows<T, kVector, 5, 1> : launch_rows<T, kVector, 5, 2>);
    return run(once ? launch_rows<T, kVector, 7, 1> : launch_rows<T, kVector, 7, 2>);
  }
  const bool wide = aligned && channels % kVector == 0;
  return run(wide ? launch_rows<T, kVector, 1, kAnyStride> : launch_rows<T, 1, 1, kAnyStride>);
}

}  // namespace

std::int64_t conv2d_depthwise_wgrad_splits(const Conv2dProblem& p) {
  require_depthwise(p);
  const std::int64_t wanted = blocks_of(blocks_of(kUsualSlab, p.C), kBlocks);
  const std::int64_t most = std::min(
      {wanted, p.N * p.P, p.positions() / kFewestPositions, kMostSums / std::max<std::int64_t>(1, p.C * p.R * p.S)});
  return std::max<std::int64_t>(1, most);
}

template <typename T>
simt::Status conv2d_depthwise_wgrad(const Conv2dProblem& p, const T* x, const T* dy, T* dw, float* partial,
                                    simt::Stream stream) {
  const Geometry g = geometry_of(p);
  const std::int64_t splits = conv2d_depthwise_wgrad_splits(p),
                     count = std::int64_t{g.x.channels.value} * g.weights.value;
  const Parts<T> parts{splits > 1 ? partial : nullptr, dw, count};
  const simt::Status status = launch(g, splits, x, dy, parts, stream);
  if (status != simt::kSuccess || splits == 1) return status;
  return sum_parts(partial, dw, splits, count, stream);
}

template simt::Status conv2d_depthwise_wgrad(const Conv2dProblem&, const float*, const float*, float*, float*,
                                             simt::Stream);
template simt::Status conv2d_depthwise_wgrad(const Conv2dProblem&, const simt::half*, const simt::half*, simt::half*,
                                             float*, simt::Stream);
template simt::Status conv2d_depthwise_wgrad(const Conv2dProblem&, const simt::bfloat16*, const simt::bfloat16*,
                                             simt::bfloat16*, float*, simt::Stream);

}  // namespace gpucnn

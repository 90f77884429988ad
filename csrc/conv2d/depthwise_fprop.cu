// y[n,p,q,c] = bias[c] + sum over r, s of x[n, p*stride-padding+r*dilation, q*..., c] * w[c,r,s], each channel with its
// own filter, and max(0, y) where ReLU is asked for. Stored as float, half or bfloat16, summed in float32.
//
// Layout   x (N,H,W,C), w (C,R,S,1), y (N,P,Q,C). A vector is 16 bytes of channels: 4 of float, 8 of half.
// Strips   rows of 3, 5 or 7 taps at stride 1 or 2, of at most 7 rows, with any vertical stride and dilation. A block
//          owns a slab of at most 16 vectors and 128 / (vectors of it) strips of outputs, along the rows and then down
//          the images; its weights lie in shared memory as (R,S,channels), float32. A thread owns a vector of a
//          strip of 2 x 4 outputs (2 x 8 for float and 7 taps): for each row of taps it keeps the row's weights in
//          registers and slides them along the strip's cells, of which it loads each once. So a block asks for a cell R
//          times, once a row of taps, and the first-level cache has it all but the first time.
// Generic  the rest: any filter, stride and dilation; channels that are no multiple of a vector or arrays that are not
//          aligned take vectors of one channel. A block owns a slab of at most 16 vectors and 4 * 256 / (vectors of it)
//          outputs; its weights lie in shared memory likewise, 64 taps at a time. A thread owns a vector of 4 outputs.
// Limits   groups = C = K. Of what is outside an image the strips multiply a 0, the generic kernel nothing.
// Bound    memory: x once and y once. N32 C144 56x56 3x3 stride 1, float: 116 MB, 39 us at an H100's 3.0 TB/s; 0.26
//          GFLOP are 4 us. Loads from the first-level cache and shared memory: (R*(3+S) + R*S/2) / 4 vectors an output
//          at stride 1, 22 cycles of 128 bytes for what takes 76 cycles of memory at 3x3, 61 at 7x7.
// Measured not run on hardware yet.
#include "conv2d/conv2d.h"
#include "conv2d/depthwise.h"
#include "conv2d/geometry.h"

#include <algorithm>
#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kStripThreads = 128;
constexpr int kBlocksPerMultiprocessor = 2;  // at least: 255 registers a thread

template <typename T, int kTaps>
struct Strip {
  static constexpr int kRows = 2;
  static constexpr int kColumns = kTaps == 7 && sizeof(T) == 4 ? 8 : 4;  // else the sums would fill the registers
};

struct StripGrid {
  Slabs slabs;
  Divisor rows, columns;  // strips of an image
  std::int64_t strips;    // of all images
};

template <typename T, int kTaps, int kStride>
__global__ void __launch_bounds__(kStripThreads, kBlocksPerMultiprocessor)
    strips_kernel(const Correlation g, const StripGrid grid, const T* __restrict__ source, const T* __restrict__ w,
                  const Epilogue<T> epilogue, T* __restrict__ out) {
  constexpr int kVector = kPack<T>, kRows = Strip<T, kTaps>::kRows, kColumns = Strip<T, kTaps>::kColumns;
  constexpr int kCells = (kColumns - 1) * kStride + kTaps;  // that a row of a strip meets
  SIMT_DYNAMIC_SHARED(float, taps);                         // TapLines of R * kTaps

  const int thread = static_cast<int>(threadIdx.x), shift = grid.slabs.shift;
  const int slab_channels = kVector << shift;
  const int slab = static_cast<int>(blockIdx.x % static_cast<unsigned>(grid.slabs.count));
  const int first_channel = slab * slab_channels;
  const int channels = min(slab_channels, g.channels - first_channel);
  const int count = g.vertical.kernel * kTaps;
  const TapLines<kVector> lines{1 << shift};
  fill_taps<kStripThreads>(lines, w + std::int64_t{first_channel} * count, taps, channels, 0, count, count, g.flipped);

  const int vector = thread & ((1 << shift) - 1);  // of the slab
  const std::int64_t strip =
      std::int64_t{blockIdx.x / static_cast<unsigned>(grid.slabs.count)} * (kStripThreads >> shift) + (thread >> shift);
  if (vector * kVector >= channels || strip >= grid.strips) return;
  const auto [line, column_strip] = grid.columns.divide(strip);
  const auto [image, row_strip] = grid.rows.divide(line);
  const int p = row_strip * kRows, q = column_strip * kColumns;
  const int first_column = q * kStride - g.horizontal.padding;
  const int channel = first_channel + vector * kVector;
  const T* const cells = source + image * g.vertical.size * g.horizontal.size * g.channels + channel;

  Floats<kVector> sums[kRows][kColumns];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
#pragma unroll
      for (int c = 0; c < kVector; ++c) sums[i][j][c] = 0.0f;
    }
  }

#pragma unroll 1
  for (int r = 0; r < g.vertical.kernel; ++r) {
    Floats<kVector> weights[kTaps];
#pragma unroll
    for (int s = 0; s < kTaps; ++s) {
      weights[s] = load_quads<kVector>(taps + (r * kTaps + s) * lines.floats(), vector, lines.quads());
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int row = g.vertical.first_cell(p + i) + r * g.vertical.dilation;
      if (p + i >= g.vertical.outputs || !g.vertical.contains(row)) continue;
      const std::int64_t first = (std::int64_t{row} * g.horizontal.size + first_column) * g.channels;
#pragma unroll
      for (int cell = 0; cell < kCells; ++cell) {
        const bool inside = g.horizontal.contains(first_column + cell);
        const T* const place = cells + (inside ? first + std::int64_t{cell} * g.channels : 0);
        const Floats<kVector> values = load_where<kVector>(inside, place);
#pragma unroll
        for (int j = 0; j < kColumns; ++j) {
          const int s = cell - j * kStride;
          if (s >= 0 && s < kTaps) add_product(sums[i][j], values, weights[s]);
        }
      }
    }
  }

  const Floats<kVector> offsets = load_where<kVector>(epilogue.bias != nullptr, epilogue.bias + channel);
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      if (p + i >= g.vertical.outputs || q + j >= g.horizontal.outputs) continue;
#pragma unroll
      for (int c = 0; c < kVector; ++c) sums[i][j][c] = epilogue.clip(sums[i][j][c] + offsets[c]);
      const std::int64_t pixel = (image * g.vertical.outputs + p + i) * g.horizontal.outputs + q + j;
      store(out + pixel * g.channels + channel, sums[i][j]);
    }
  }
}

template <typename T, int kVector>
__global__ void __launch_bounds__(AnyTaps::kThreads, AnyTaps::kResident)
    generic_kernel(const Geometry g, const AnyTaps share, const T* __restrict__ x, const T* __restrict__ w,
                   const Epilogue<T> epilogue, T* __restrict__ y) {
  SIMT_DYNAMIC_SHARED(float, taps);  // TapLines of share.together
  const int thread = static_cast<int>(threadIdx.x), shift = share.slabs.shift, count = g.weights.value;
  const int slab = static_cast<int>(blockIdx.x % static_cast<unsigned>(share.slabs.count));
  const int first_channel = slab * kVector << shift, all_channels = g.x.channels.value;
  const int channels = min(kVector << shift, all_channels - first_channel);
  const int vector = thread & ((1 << shift) - 1), channel = first_channel + vector * kVector;
  const TapLines<kVector> lines{1 << shift};
  const std::int64_t first =
      std::int64_t{blockIdx.x / static_cast<unsigned>(share.slabs.count)} * share.pixels() + (thread >> shift);

  Floats<kVector> sums[AnyTaps::kOwn] = {};
  for (int begin = 0; begin < count; begin += share.together) {
    const int some = min(share.together, count - begin);
    fill_taps<AnyTaps::kThreads>(lines, w + std::int64_t{first_channel} * count, taps, channels, begin, some, count,
                                 false);
#pragma unroll
    for (int i = 0; i < AnyTaps::kOwn; ++i) {
      const std::int64_t position = first + i * (AnyTaps::kThreads >> shift);
      if (vector * kVector >= channels || position >= g.positions) continue;
      const Corner corner = corner_of(g, position);
      int r = begin / g.horizontal.kernel, s = begin % g.horizontal.kernel;
      for (int tap = 0; tap < some; ++tap) {
        const Pixel step{0, r * g.vertical.dilation, s * g.horizontal.dilation};
        if (g.vertical.contains(corner.row + step.row) && g.horizontal.contains(corner.column + step.column)) {
          add_product(sums[i], load<kVector>(x + corner.offset + g.x.offset(step) + channel),
                      load_quads<kVector>(taps + tap * lines.floats(), vector, lines.quads()));
        }
        if (++s == g.horizontal.kernel) s = 0, ++r;
      }
    }
    __syncthreads();
  }

  if (vector * kVector >= channels) return;
  const Floats<kVector> offsets = load_where<kVector>(epilogue.bias != nullptr, epilogue.bias + channel);
#pragma unroll
  for (int i = 0; i < AnyTaps::kOwn; ++i) {
    const std::int64_t position = first + i * (AnyTaps::kThreads >> shift);
    if (position >= g.positions) continue;
#pragma unroll
    for (int c = 0; c < kVector; ++c) sums[i][c] = epilogue.clip(sums[i][c] + offsets[c]);
    store(y + (position * all_channels + channel), sums[i]);
  }
}

template <typename T, int kTaps, int kStride>
simt::Status launch_strips(const Correlation& g, const T* source, const T* w, const Epilogue<T>& epilogue, T* out,
                           simt::Stream stream) {
  const Slabs slabs = slabs_of(g.channels / kPack<T>);
  const std::int64_t rows = blocks_of(Strip<T, kTaps>::kRows, g.vertical.outputs);
  const std::int64_t columns = blocks_of(Strip<T, kTaps>::kColumns, g.horizontal.outputs);
  const StripGrid grid{slabs, divisor_of(rows), divisor_of(columns), g.images * rows * columns};
  const std::int64_t blocks = slabs.count * blocks_of(kStripThreads >> slabs.shift, grid.strips);
  const std::size_t shared = TapLines<kPack<T>>{1 << slabs.shift}.bytes(g.vertical.kernel * kTaps);
  return simt::launch(strips_kernel<T, kTaps, kStride>, dim3(static_cast<unsigned>(blocks)), dim3(kStripThreads),
                      shared, stream, g, grid, source, w, epilogue, out);
}

template <typename T, int kVector>
simt::Status launch_generic(const Geometry& g, const T* x, const T* w, const Epilogue<T>& epilogue, T* y,
                            simt::Stream stream) {
  const AnyTaps share = any_taps<kVector>(g.x.channels.value, g.weights.value);
  const std::int64_t blocks = share.slabs.count * blocks_of(share.pixels(), g.positions);
  const std::size_t shared = TapLines<kVector>{1 << share.slabs.shift}.bytes(share.together);
  return simt::launch(generic_kernel<T, kVector>, dim3(static_cast<unsigned>(blocks)), dim3(AnyTaps::kThreads), shared,
                      stream, g, share, x, w, epilogue, y);
}

}  // namespace

template <typename T>
simt::Status depthwise_strips(const Correlation& g, const T* source, const T* w, const Epilogue<T>& epilogue, T* out,
                              simt::Stream stream) {
  const auto run = [&](auto launcher) { return launcher(g, source, w, epilogue, out, stream); };
  const bool once = g.horizontal.stride == 1;
  if (g.horizontal.kernel == 3) return run(once ? launch_strips<T, 3, 1> : launch_strips<T, 3, 2>);
  if (g.horizontal.kernel == 5) return run(once ? launch_strips<T, 5, 1> : launch_strips<T, 5, 2>);
  return run(once ? launch_strips<T, 7, 1> : launch_strips<T, 7, 2>);
}

template <typename T>
simt::Status conv2d_depthwise_fprop(const Conv2dProblem& p, const T* x, const T* w, const T* bias, T* y, bool relu,
                                    simt::Stream stream) {
  require_depthwise(p);
  const Geometry g = geometry_of(p);
  if (g.positions == 0) return simt::kSuccess;
  const Epilogue<T> epilogue{bias, relu};
  const int channels = g.x.channels.value;
  const bool aligned = are_aligned(x, bias, y);
  if (has_short_rows<T>(g.vertical, g.horizontal, channels, aligned)) {
    return depthwise_strips({g.vertical, g.horizontal, p.N, channels, false}, x, w, epilogue, y, stream);
  }
  const bool wide = aligned && channels % kPack<T> == 0;
  return (wide ? launch_generic<T, kPack<T>> : launch_generic<T, 1>)(g, x, w, epilogue, y, stream);
}

#define GPUCNN_INSTANTIATE(T)                                                                                \
  template simt::Status depthwise_strips(const Correlation&, const T*, const T*, const Epilogue<T>&, T*,     \
                                         simt::Stream);                                                      \
  template simt::Status conv2d_depthwise_fprop(const Conv2dProblem&, const T*, const T*, const T*, T*, bool, \
                                               simt::Stream);
GPUCNN_INSTANTIATE(float)
GPUCNN_INSTANTIATE(simt::half)
GPUCNN_INSTANTIATE(simt::bfloat16)
#undef GPUCNN_INSTANTIATE

}  // namespace gpucnn

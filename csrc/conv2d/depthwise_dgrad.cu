// dx[n,h,w,c] = sum over r, s of dy[n,p,q,c] * w[c,r,s], over the taps (r,s) of windows (p,q) that lie on (h,w):
// h = p*stride - padding + r*dilation, and w likewise from q and s. Each channel has its own filter. Stored as float,
// half or bfloat16, summed in float32.
//
// Every element gathers what it takes part in, so nothing is written twice and the sum has one order.
//
// Layout   dy (N,P,Q,C), w (C,R,S,1), dx (N,H,W,C). A vector is 16 bytes of channels: 4 of float, 8 of half.
// Stride 1 rows of 3, 5 or 7 taps: the forward pass over dy with the filters turned by 180 degrees and the padding
//          that is left of the taps (depthwise_fprop.cu).
// Stride 2 horizontally, rows of 3, 5 or 7 taps, of at most 7 rows, with any vertical stride and dilation. A block
//          owns a slab of at most 16 vectors and 128 / (vectors of it) strips of dx, along the rows and then down the
//          images; its weights lie in shared memory as (R,S,channels), float32. A thread owns a vector of a
//          strip of 2 x 4 pixels, the columns in pairs that the same windows begin at: for each row of taps that has a
//          window on its rows it loads the 2 + (S-1)/2 elements of dy that meet the strip once, and adds each to the
//          columns under its taps.
// Generic  the rest: any filter, stride and dilation; channels that are no multiple of a vector or arrays that are not
//          aligned take vectors of one channel. A block owns a slab of at most 16 vectors and 4 * 256 / (vectors of it)
//          pixels; its weights lie in shared memory likewise, 64 taps at a time. A thread owns a vector of 4 pixels.
// Limits   groups = C = K. Beyond the windows the strips multiply a 0, the generic kernel nothing.
// Bound    memory: dy once and dx once. N32 C144 56x56 3x3 stride 1, float: 116 MB, 39 us at an H100's 3.0 TB/s; with
//          stride 2 (dy 28x28) 72 MB, 24 us.
// Measured not run on hardware yet.
#include "conv2d/conv2d.h"
#include "conv2d/depthwise.h"
#include "conv2d/geometry.h"

#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kStripThreads = 128;
constexpr int kBlocksPerMultiprocessor = 2;  // at least: 255 registers a thread
constexpr int kRows = 2, kPairs = 2;         // of a strip: rows, and pairs of columns

struct PairGrid {
  Slabs slabs;
  Divisor rows, columns;  // strips of an image
  std::int64_t strips;    // of all images
};

template <typename T, int kTaps>
__global__ void __launch_bounds__(kStripThreads, kBlocksPerMultiprocessor)
    pairs_kernel(const Geometry g, const PairGrid grid, const T* __restrict__ dy, const T* __restrict__ w,
                 T* __restrict__ dx) {
  constexpr int kVector = kPack<T>, kColumns = 2 * kPairs;
  constexpr int kBefore = (kTaps - 1) / 2;  // windows that begin left of a pair and reach it
  SIMT_DYNAMIC_SHARED(float, taps);         // TapLines of R * kTaps

  const int thread = static_cast<int>(threadIdx.x), shift = grid.slabs.shift;
  const int slab_channels = kVector << shift, all_channels = g.x.channels.value;
  const int slab = static_cast<int>(blockIdx.x % static_cast<unsigned>(grid.slabs.count));
  const int first_channel = slab * slab_channels;
  const int channels = min(slab_channels, all_channels - first_channel);
  const int count = g.weights.value;
  const TapLines<kVector> lines{1 << shift};
  fill_taps<kStripThreads>(lines, w + std::int64_t{first_channel} * count, taps, channels, 0, count, count, false);

  const int vector = thread & ((1 << shift) - 1);  // of the slab
  const std::int64_t strip =
      std::int64_t{blockIdx.x / static_cast<unsigned>(grid.slabs.count)} * (kStripThreads >> shift) + (thread >> shift);
  if (vector * kVector >= channels || strip >= grid.strips) return;
  const auto [line, column_strip] = grid.columns.divide(strip);
  const auto [image, row_strip] = grid.rows.divide(line);
  const int h = row_strip * kRows, padding = g.horizontal.padding;
  const int q = column_strip * kPairs + padding / 2;  // the window that begins at the strip's first column
  const int first_column = 2 * q - padding;           // -1 for the first strip of a row where the padding is odd
  const int channel = first_channel + vector * kVector;
  const T* const gradients = dy + g.y.offset({image, 0, 0}) + channel;

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
      const int p = h + i < g.vertical.size ? g.vertical.window_at(h + i, r) : -1;
      if (p < 0) continue;
      const std::int64_t first = (std::int64_t{p} * g.horizontal.outputs + q - kBefore) * all_channels;
#pragma unroll
      for (int window = 0; window < kBefore + kPairs; ++window) {
        const int place = q - kBefore + window;
        const bool inside = place >= 0 && place < g.horizontal.outputs;
        const T* const source = gradients + (inside ? first + std::int64_t{window} * all_channels : 0);
        const Floats<kVector> values = load_where<kVector>(inside, source);
#pragma unroll
        for (int s = 0; s < kTaps; ++s) {
          const int j = 2 * (window - kBefore) + s;
          if (j >= 0 && j < kColumns) add_product(sums[i][j], values, weights[s]);
        }
      }
    }
  }

#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      const int column = first_column + j;
      if (h + i >= g.vertical.size || !g.horizontal.contains(column)) continue;
      store(dx + g.x.offset({image, h + i, column}) + channel, sums[i][j]);
    }
  }
}

template <typename T, int kVector>
__global__ void __launch_bounds__(AnyTaps::kThreads, AnyTaps::kResident)
    gather_kernel(const Geometry g, const AnyTaps share, const T* __restrict__ dy, const T* __restrict__ w,
                  T* __restrict__ dx) {
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
      const std::int64_t pixel = first + i * (AnyTaps::kThreads >> shift);
      if (vector * kVector >= channels || pixel >= g.pixels) continue;
      const Pixel cell = g.x.pixel(pixel);
      int r = begin / g.horizontal.kernel, s = begin % g.horizontal.kernel, p = g.vertical.window_at(cell.row, r);
      for (int tap = 0; tap < some; ++tap) {
        const int q = p < 0 ? -1 : g.horizontal.window_at(cell.column, s);
        if (q >= 0) {
          add_product(sums[i], load<kVector>(dy + g.y.offset({cell.image, p, q}) + channel),
                      load_quads<kVector>(taps + tap * lines.floats(), vector, lines.quads()));
        }
        if (++s == g.horizontal.kernel) s = 0, p = g.vertical.window_at(cell.row, ++r);
      }
    }
    __syncthreads();
  }

  if (vector * kVector >= channels) return;
#pragma unroll
  for (int i = 0; i < AnyTaps::kOwn; ++i) {
    const std::int64_t pixel = first + i * (AnyTaps::kThreads >> shift);
    if (pixel < g.pixels) store(dx + (pixel * all_channels + channel), sums[i]);
  }
}

template <typename T, int kTaps>
simt::Status launch_pairs(const Geometry& g, const T* dy, const T* w, T* dx, std::int64_t images, simt::Stream stream) {
  const Slabs slabs = slabs_of(g.x.channels.value / kPack<T>);
  const std::int64_t padding = g.horizontal.padding, last = g.horizontal.size - 1 + padding;
  const std::int64_t rows = blocks_of(kRows, g.vertical.size);
  const std::int64_t columns = blocks_of(kPairs, last / 2 - padding / 2 + 1);
  const PairGrid grid{slabs, divisor_of(rows), divisor_of(columns), images * rows * columns};
  const std::int64_t blocks = slabs.count * blocks_of(kStripThreads >> slabs.shift, grid.strips);
  const std::size_t shared = TapLines<kPack<T>>{1 << slabs.shift}.bytes(g.weights.value);
  return simt::launch(pairs_kernel<T, kTaps>, dim3(static_cast<unsigned>(blocks)), dim3(kStripThreads), shared, stream,
                      g, grid, dy, w, dx);
}

template <typename T, int kVector>
simt::Status launch_gather(const Geometry& g, const T* dy, const T* w, T* dx, simt::Stream stream) {
  const AnyTaps share = any_taps<kVector>(g.x.channels.value, g.weights.value);
  const std::int64_t blocks = share.slabs.count * blocks_of(share.pixels(), g.pixels);
  const std::size_t shared = TapLines<kVector>{1 << share.slabs.shift}.bytes(share.together);
  return simt::launch(gather_kernel<T, kVector>, dim3(static_cast<unsigned>(blocks)), dim3(AnyTaps::kThreads), shared,
                      stream, g, share, dy, w, dx);
}

// The axis along which dy is read for dx at stride 1: windows begin as far before a cell as taps reach beyond padding.
Axis turned(const Axis& axis) {
  return {axis.outputs, axis.kernel, axis.size, 1, (axis.kernel - 1) * axis.dilation - axis.padding, axis.dilation};
}

}  // namespace

template <typename T>
simt::Status conv2d_depthwise_dgrad(const Conv2dProblem& p, const T* dy, const T* w, T* dx, simt::Stream stream) {
  require_depthwise(p);
  const Geometry g = geometry_of(p);
  if (g.pixels == 0) return simt::kSuccess;
  const int channels = g.x.channels.value;
  const bool aligned = are_aligned(dy, dx);
  if (has_short_rows<T>(g.vertical, g.horizontal, channels, aligned)) {
    if (g.horizontal.stride == 2) {
      const auto run = [&](auto launcher) { return launcher(g, dy, w, dx, p.N, stream); };
      if (g.horizontal.kernel == 3) return run(launch_pairs<T, 3>);
      return run(g.horizontal.kernel == 5 ? launch_pairs<T, 5> : launch_pairs<T, 7>);
    }
    if (g.vertical.stride == 1) {
      const Correlation back{turned(g.vertical), turned(g.horizontal), p.N, channels, true};
      return depthwise_strips(back, dy, w, Epilogue<T>{nullptr, false}, dx, stream);
    }
  }
  const bool wide = aligned && channels % kPack<T> == 0;
  return (wide ? launch_gather<T, kPack<T>> : launch_gather<T, 1>)(g, dy, w, dx, stream);
}

template simt::Status conv2d_depthwise_dgrad(const Conv2dProblem&, const float*, const float*, float*, simt::Stream);
template simt::Status conv2d_depthwise_dgrad(const Conv2dProblem&, const simt::half*, const simt::half*, simt::half*,
                                             simt::Stream);
template simt::Status conv2d_depthwise_dgrad(const Conv2dProblem&, const simt::bfloat16*, const simt::bfloat16*,
                                             simt::bfloat16*, simt::Stream);

}  // namespace gpucnn

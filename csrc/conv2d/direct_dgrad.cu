// dx[n,h,w,c] = sum over r, s, k of dy[n,p,q,k] * w[k,r,s,c], over the taps (r,s) of windows (p,q) that lie on (h,w):
// h = p*stride - padding + r*dilation, and w likewise from q and s. Stored as float, half or bfloat16, summed in
// float32.
//
// Every element gathers what it takes part in, so nothing is written twice and the sum has one order.
//
// Layout   dy (N,P,Q,K), w (K,R,S,C/groups), dx (N,H,W,C). As a product of matrices, for each group: rows are the
//          N*H*W pixels, columns its channels, and a sum runs over r, s and the group's filters, the filters fastest.
// Wide     groups of 8 channels or more. A block owns 64 pixels x 32 channels of one group and goes through (r,s,k) in
//          strips of 16, gathered into shared memory; a thread owns 4 x 4 of the sums (tile.h). In a fill, 16 threads
//          side by side read 64 contiguous bytes of dy, and a warp 128 of w.
// Narrow   groups of fewer channels. A thread owns one element; neighbours own neighbouring channels of a pixel.
// Limits   what check() in problem.h asks for; nothing needs to be aligned. Of an aligned dx, and groups of a
//          multiple of 4 channels, the wide kernel writes 4 channels at a time.
// Bound    FFMA: 2*N*P*Q*K*R*S*C/groups flops; N32 C64 56x56 K64 3x3 pad 1, 7.4 GFLOP, takes 0.11 ms at an H100's
//          67 TFLOP/s. The wide kernel multiplies N*H*W*C*R*S*K/groups pairs instead, the square of the stride as many,
//          of which the rest are zeros; and it finds each window by a division. A quarter of that rate is the aim here.
// Measured not run on hardware yet.
#include "conv2d/conv2d.h"
#include "conv2d/geometry.h"
#include "conv2d/tile.h"

#include <cstdint>

namespace gpucnn {
namespace {

using DgradTile = Tile<64, 32>;
constexpr int kFewestChannels = 8;  // of a group for the wide kernel: with fewer, most of its columns would be idle
constexpr int kNarrowThreads = 256;
constexpr int kNarrowBlocksPerMultiprocessor = 4;  // 64 registers a thread: left alone, ptxas takes 32 and spills

// Where the filters of the window begin in dy whose tap (r, s) lies on `cell`, or -1 if there is no such window.
__device__ __forceinline__ std::int64_t window_offset(const Geometry& g, const Pixel& cell, int r, int s) {
  const int p = g.vertical.window_at(cell.row, r), q = g.horizontal.window_at(cell.column, s);
  if (p < 0 || q < 0) return -1;
  return g.y.offset({cell.image, p, q});
}

template <typename T>
__global__ void __launch_bounds__(DgradTile::kThreads)
    dgrad_wide_kernel(const Geometry g, const T* __restrict__ dy, const T* __restrict__ w, T* __restrict__ dx,
                      bool wide_dx) {
  constexpr int kTogether = DgradTile::kThreads / DgradTile::kDepth;  // rows that one pass of a fill covers
  constexpr int kPasses = DgradTile::kRows / kTogether;
  constexpr int kLines = DgradTile::kThreads / DgradTile::kColumns;  // of the strip of w that one pass covers
  static_assert(DgradTile::kRows % kTogether == 0 && DgradTile::kDepth % kLines == 0);
  SIMT_SHARED(float, gradients, [DgradTile::kDepth][DgradTile::kRows + DgradTile::kPad]);
  SIMT_SHARED(float, weights, [DgradTile::kDepth][DgradTile::kColumns + DgradTile::kPad]);

  const TilePlace place = tile_place<DgradTile>(static_cast<int>(blockIdx.x), g.groups, g.channels);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % DgradTile::kDepth;   // [0, 16): the line of a strip of dy that it fills
  const int first = thread / DgradTile::kDepth;  // [0, 8): the row that it fills first
  const int channel = place.column + thread % DgradTile::kColumns, first_line = thread / DgradTile::kColumns;
  const int first_filter = place.group * g.filters;
  const int taps = g.vertical.kernel * g.horizontal.kernel;
  const int terms = taps * g.filters;  // of a sum

  Pixel cells[kPasses];  // the rows first, first + 8, ...
#pragma unroll
  for (int i = 0; i < kPasses; ++i) {
    const std::int64_t index = place.row + first + i * kTogether;
    cells[i] = g.x.pixel(index < g.pixels ? index : 0);  // beyond: never stored
  }

  DgradTile tile;
  for (int begin = 0; begin < terms; begin += DgradTile::kDepth) {
    const int term = begin + lane;  // may be beyond the last
    const bool exists = term < terms;
    const int tap = term / g.filters, filter = term % g.filters;
    const int r = tap / g.horizontal.kernel, s = tap % g.horizontal.kernel;
#pragma unroll
    for (int i = 0; i < kPasses; ++i) {
      const std::int64_t offset = exists ? window_offset(g, cells[i], r, s) : -1;
      const bool met = offset >= 0;
      gradients[lane][DgradTile::place(lane, first + i * kTogether)] =
          simt::to_float(simt::load_if(met, dy + (met ? offset + first_filter + filter : 0)));
    }
#pragma unroll
    for (int line = first_line; line < DgradTile::kDepth; line += kLines) {
      const int mine = begin + line;
      const bool inside = mine < terms && channel < g.channels;
      const std::int64_t k = first_filter + mine % g.filters;
      const std::int64_t offset = (k * taps + mine / g.filters) * g.channels + channel;
      weights[line][DgradTile::place(line, thread % DgradTile::kColumns)] =
          simt::to_float(simt::load_if(inside, w + (inside ? offset : 0)));
    }
    __syncthreads();
    tile.add(gradients, weights);
    __syncthreads();
  }

#pragma unroll
  for (int i = 0; i < DgradTile::kOwn; ++i) {
    const std::int64_t pixel = place.row + DgradTile::row() + i;
    if (pixel >= g.pixels) continue;
    const int c = place.column + DgradTile::column();  // of the group
    Floats<4> values;
#pragma unroll
    for (int j = 0; j < DgradTile::kOwn; ++j) values[j] = tile.sums[i][j];
    store_quad(dx + (pixel * g.x.channels.value + place.group * g.channels + c), values, g.channels - c, wide_dx);
  }
}

template <typename T>
__global__ void __launch_bounds__(kNarrowThreads, kNarrowBlocksPerMultiprocessor)
    dgrad_narrow_kernel(const Geometry g, const T* __restrict__ dy, const T* __restrict__ w, T* __restrict__ dx) {
  const std::int64_t index = std::int64_t{blockIdx.x} * kNarrowThreads + threadIdx.x;  // of an element of dx
  if (index >= g.pixels * g.x.channels.value) return;
  const auto [pixel, c] = g.x.channels.divide(index);
  const Pixel cell = g.x.pixel(pixel);
  const int group = c / g.channels;
  const T* const gradients = dy + group * g.filters;  // of the group's filters
  const T* const weights = w + std::int64_t{group} * g.filters * g.weights.value + c % g.channels;

  float sum = 0.0f;
  for (int r = 0; r < g.vertical.kernel; ++r) {
    for (int s = 0; s < g.horizontal.kernel; ++s) {
      const std::int64_t offset = window_offset(g, cell, r, s);
      if (offset < 0) continue;
      const T* const weight = weights + std::int64_t{r * g.horizontal.kernel + s} * g.channels;
      for (int k = 0; k < g.filters; ++k) {
        sum += simt::to_float(gradients[offset + k]) * simt::to_float(weight[std::int64_t{k} * g.weights.value]);
      }
    }
  }
  dx[index] = simt::from_float<T>(sum);
}

}  // namespace

template <typename T>
simt::Status conv2d_direct_dgrad(const Conv2dProblem& p, const T* dy, const T* w, T* dx, simt::Stream stream) {
  const Geometry g = geometry_of(p);
  if (g.pixels == 0) return simt::kSuccess;
  if (g.channels >= kFewestChannels) {
    const std::int64_t blocks = tile_count<DgradTile>(g.pixels, g.groups, g.channels);
    return simt::launch(dgrad_wide_kernel<T>, dim3(static_cast<unsigned>(blocks)), dim3(DgradTile::kThreads), 0, stream,
                        g, dy, w, dx, are_aligned(dx) && g.channels % 4 == 0);
  }
  const std::int64_t blocks = blocks_of(kNarrowThreads, g.pixels * g.x.channels.value);
  return simt::launch(dgrad_narrow_kernel<T>, dim3(static_cast<unsigned>(blocks)), dim3(kNarrowThreads), 0, stream, g,
                      dy, w, dx);
}

template simt::Status conv2d_direct_dgrad(const Conv2dProblem&, const float*, const float*, float*, simt::Stream);
template simt::Status conv2d_direct_dgrad(const Conv2dProblem&, const simt::half*, const simt::half*, simt::half*,
                                          simt::Stream);
template simt::Status conv2d_direct_dgrad(const Conv2dProblem&, const simt::bfloat16*, const simt::bfloat16*,
                                          simt::bfloat16*, simt::Stream);

}  // namespace gpucnn

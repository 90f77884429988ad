// Local response normalisation across channels:
//
//     y[c] = x[c] / base[c]^beta,  base[c] = k + alpha * sum of x[j]^2 over the window of c
//     dx[c] = dy[c] / base[c]^beta - 2 alpha beta x[c] * sum of dy[j] x[j] / base[j]^(beta + 1) over j whose windows
//             hold c
//
// Layout   x, y, dy, dx (rows,channels); the window of c is [c - before, c + after], as far as these are channels.
// Block    256 threads and as many whole rows as make 2,048 elements, in shared memory: memory is read once,
//          windows are added up from shared memory. Rows of more than 2,048 channels: 256 elements, windows from the
//          caches.
// Thread   packs of four on the way in and out, 16 bytes of float32, of shared memory always (elements where the
//          channels are no whole number of packs or memory is not aligned); in between elements 256 apart, so that a
//          warp's are in all banks.
// Limits   channels in [0, 2^31). Work grows with the window; dx of rows above 2,048 channels with its square.
// Sums     in the order of the channels: the bits of a row depend on it alone.
// Bound    memory: forward x and y, 8 bytes an element of float32, backward 12: AlexNet's N128 C96 55x55, 149 MB, takes
//          99 us and 149 us at an H100's copy rate of 3.0 TB/s; a window of 5 is 5 reads of shared memory an element.
// Measured not run on hardware yet.
#include "common/index.h"
#include "common/pack.h"
#include "row_norm/row_norm.h"
#include "simt/simt.h"

#include <algorithm>
#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 2048;  // elements of a block
constexpr int kWide = 4;     // of an access: 16 bytes of shared memory, where all is float32

// Sum over channels [first - before, first + after] of value(channel), as far as they are in [0, channels).
template <typename Value>
__device__ __forceinline__ float window_sum(std::int64_t channel, std::int64_t channels, std::int64_t before,
                                            std::int64_t after, Value value) {
  const std::int64_t last = min(channel + after, channels - 1);
  float sum = 0.0f;
  for (std::int64_t j = max(channel - before, std::int64_t{0}); j <= last; ++j) sum += value(j);
  return sum;
}

// The block's rows: what of x and y begins at `start` and has `count` elements.
struct Rows {
  std::int64_t start;
  int count;

  __device__ __forceinline__ Rows(const LocalResponse& p, int rows_of_block) {
    const std::int64_t first = std::int64_t{blockIdx.x} * rows_of_block;
    start = first * p.channels;
    count = static_cast<int>(min(p.rows - first, std::int64_t{rows_of_block}) * p.channels);
  }
};

template <typename T, int kWidth>
__device__ __forceinline__ void fill(const T* from, float* to, int count) {
  for (int i = static_cast<int>(threadIdx.x) * kWidth; i < count; i += kThreads * kWidth) {
    store(to + i, load<kWidth>(from + i));
  }
}

template <typename T, int kWidth>
__device__ __forceinline__ void drain(const float* from, T* to, int count) {
  for (int i = static_cast<int>(threadIdx.x) * kWidth; i < count; i += kThreads * kWidth) {
    store(to + i, load<kWidth>(from + i));
  }
}

// Where an element's row begins in the tile, and its channel.
struct Cell {
  int row, channel;

  __device__ __forceinline__ Cell(int element, const Divisor& channels) {
    channel = channels.divide(element).rest;
    row = element - channel;
  }
};

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads) local_fprop_kernel(const T* __restrict__ x, T* __restrict__ y,
                                                               LocalResponse p, Divisor channels, int rows_of_block) {
  SIMT_SHARED(float, cells, [kTile]);
  SIMT_SHARED(float, results, [kTile]);
  const Rows mine(p, rows_of_block);
  fill<T, kWidth>(x + mine.start, cells, mine.count);
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < mine.count; i += kThreads) {
    const Cell at(i, channels);
    const float sum = window_sum(at.channel, p.channels, p.before, p.after,
                                 [&](std::int64_t j) { return cells[at.row + j] * cells[at.row + j]; });
    results[i] = cells[i] * powf(p.k + p.alpha * sum, -p.beta);
  }
  __syncthreads();
  drain<T, kWidth>(results, y + mine.start, mine.count);
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    local_dgrad_kernel(const T* __restrict__ dy, const T* __restrict__ x, T* __restrict__ dx, LocalResponse p,
                       Divisor channels, int rows_of_block) {
  SIMT_SHARED(float, cells, [kTile]);
  SIMT_SHARED(float, ratios, [kTile]);
  SIMT_SHARED(float, results, [kTile]);  // dy, then dy / base^beta, then dx
  const Rows mine(p, rows_of_block);
  fill<T, kWidth>(x + mine.start, cells, mine.count);
  fill<T, kWidth>(dy + mine.start, results, mine.count);
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < mine.count; i += kThreads) {
    const Cell at(i, channels);
    const float sum = window_sum(at.channel, p.channels, p.before, p.after,
                                 [&](std::int64_t j) { return cells[at.row + j] * cells[at.row + j]; });
    const float base = p.k + p.alpha * sum, direct = results[i] * powf(base, -p.beta);
    results[i] = direct;
    ratios[i] = direct * cells[i] / base;
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < mine.count; i += kThreads) {
    const Cell at(i, channels);
    const float sum =
        window_sum(at.channel, p.channels, p.after, p.before, [&](std::int64_t j) { return ratios[at.row + j]; });
    results[i] -= cells[i] * sum * (2.0f * p.alpha * p.beta);
  }
  __syncthreads();
  drain<T, kWidth>(results, dx + mine.start, mine.count);
}

// base of one channel of a row in global memory.
template <typename T>
__device__ __forceinline__ float base_of(const LocalResponse& p, const T* row, std::int64_t channel) {
  return p.k + p.alpha * window_sum(channel, p.channels, p.before, p.after,
                                    [&](std::int64_t j) { return simt::to_float(row[j]) * simt::to_float(row[j]); });
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    long_fprop_kernel(const T* __restrict__ x, T* __restrict__ y, LocalResponse p, Divisor channels) {
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index < p.rows * p.channels) {
    const int channel = channels.divide(index).rest;
    const float base = base_of(p, x + index - channel, channel);
    y[index] = simt::from_float<T>(simt::to_float(x[index]) * powf(base, -p.beta));
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) long_dgrad_kernel(const T* __restrict__ dy, const T* __restrict__ x,
                                                              T* __restrict__ dx, LocalResponse p, Divisor channels) {
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index < p.rows * p.channels) {
    const int channel = channels.divide(index).rest;
    const T *const row = x + index - channel, *const gradient = dy + index - channel;
    const float direct = simt::to_float(gradient[channel]) * powf(base_of(p, row, channel), -p.beta);
    const float sum = window_sum(channel, p.channels, p.after, p.before, [&](std::int64_t j) {
      const float base = base_of(p, row, j);
      return simt::to_float(gradient[j]) * powf(base, -p.beta) * simt::to_float(row[j]) / base;
    });
    dx[index] = simt::from_float<T>(direct - simt::to_float(row[channel]) * sum * (2.0f * p.alpha * p.beta));
  }
}

// Calls launch(rows of a block) for rows that fit a tile, else launch(0); blocks accordingly.
dim3 blocks_for(const LocalResponse& p, int* rows_of_block) {
  *rows_of_block = static_cast<int>(kTile / std::max<std::int64_t>(1, p.channels));
  const std::int64_t blocks =
      *rows_of_block ? blocks_of(*rows_of_block, p.rows) : blocks_of(kThreads, p.rows * p.channels);
  return dim3(static_cast<unsigned>(blocks));
}

}  // namespace

template <typename T>
simt::Status local_response_fprop(const LocalResponse& p, const T* x, T* y, simt::Stream stream) {
  if (p.rows == 0 || p.channels == 0) return simt::kSuccess;
  int rows = 0;
  const dim3 blocks = blocks_for(p, &rows), threads(kThreads);
  const Divisor channels = divisor_of(p.channels);
  if (rows == 0) return simt::launch(long_fprop_kernel<T>, blocks, threads, 0, stream, x, y, p, channels);
  const bool wide = p.channels % kWide == 0 && are_aligned(x, y);
  return simt::launch(wide ? local_fprop_kernel<T, kWide> : local_fprop_kernel<T, 1>, blocks, threads, 0, stream, x, y,
                      p, channels, rows);
}

template <typename T>
simt::Status local_response_dgrad(const LocalResponse& p, const T* dy, const T* x, T* dx, simt::Stream stream) {
  if (p.rows == 0 || p.channels == 0) return simt::kSuccess;
  int rows = 0;
  const dim3 blocks = blocks_for(p, &rows), threads(kThreads);
  const Divisor channels = divisor_of(p.channels);
  if (rows == 0) return simt::launch(long_dgrad_kernel<T>, blocks, threads, 0, stream, dy, x, dx, p, channels);
  const bool wide = p.channels % kWide == 0 && are_aligned(dy, x, dx);
  return simt::launch(wide ? local_dgrad_kernel<T, kWide> : local_dgrad_kernel<T, 1>, blocks, threads, 0, stream, dy, x,
                      dx, p, channels, rows);
}

#define GPUCNN_LOCAL(T)                                                                         \
  template simt::Status local_response_fprop(const LocalResponse&, const T*, T*, simt::Stream); \
  template simt::Status local_response_dgrad(const LocalResponse&, const T*, const T*, T*, simt::Stream);
GPUCNN_LOCAL(float)
GPUCNN_LOCAL(simt::half)
GPUCNN_LOCAL(simt::bfloat16)
#undef GPUCNN_LOCAL

}  // namespace gpucnn

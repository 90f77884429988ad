// What simt_speed.py times: switches, barriers and warp operations bare, and a tiled convolution.
#include "simt/fiber.h"
#include "simt/ptx.h"

#include <chrono>
#include <cstdint>

using namespace gpucnn;

namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// ---- fibers alone: each hands over to the next, without a scheduler

constexpr int kFibers = 128;
simt::detail::Fiber fibers[kFibers], launcher;
int rounds_left, current;

void hand_over() {
  simt::detail::begin_fiber(fibers[current], launcher);
  for (;;) {
    const int me = current;
    if (me == kFibers - 1 && --rounds_left == 0) simt::detail::switch_fiber(fibers[me], launcher);
    current = (me + 1) % kFibers;
    simt::detail::switch_fiber(fibers[me], fibers[current]);
  }
}

__global__ void barriers_kernel(int times) {
  for (int i = 0; i < times; ++i) __syncthreads();
}

__global__ void shuffles_kernel(int times, int* result) {
  int value = static_cast<int>(threadIdx.x);
  for (int i = 0; i < times; ++i) value = __shfl_xor_sync(~0u, value, 1);
  result[threadIdx.x] = value;
}

__global__ void products_kernel(int times, float* result) {
  const std::uint32_t a[4] = {}, b[2] = {};
  float d[4] = {};
  for (int i = 0; i < times; ++i) simt::mma_m16n8k16_bf16(d, a, b);
  result[threadIdx.x] = d[0];
}

// ---- y = x * w, 3x3, stride 1, padding 1: x[N][H][W][C], w[K][3][3][C], y[N][H][W][K], float32
//
// Block    64 pixels of y, flat over N, H and W, by 32 filters; 128 threads.
// Thread   4 pixels by 4 filters.

constexpr int kPixels = 64, kFilters = 32, kChannels = 16, kPerThread = 4;
constexpr int kThreads = kPixels / kPerThread * (kFilters / kPerThread);

struct Shape {
  int n, h, w, c, k;
};

__global__ void __launch_bounds__(kThreads) conv_kernel(const float* x, const float* weight, float* y, Shape shape) {
  SIMT_SHARED(float, x_tile, [kChannels][kPixels + 4]);
  SIMT_SHARED(float, weight_tile, [kChannels][kFilters + 4]);
  const int t = static_cast<int>(threadIdx.x), first_filter = kPerThread * (t % (kFilters / kPerThread));
  const int first_pixel = kPerThread * (t / (kFilters / kPerThread)), pixels = shape.n * shape.h * shape.w;
  const int block_pixel = static_cast<int>(blockIdx.x) * kPixels,
            block_filter = static_cast<int>(blockIdx.y) * kFilters;
  float sums[kPerThread][kPerThread] = {};
  for (int tap = 0; tap < 9; ++tap) {
    for (int c0 = 0; c0 < shape.c; c0 += kChannels) {
      for (int i = t; i < kPixels * kChannels; i += kThreads) {
        const int c = i % kChannels, p = i / kChannels, pixel = block_pixel + p;
        const int row = pixel / shape.w % shape.h + tap / 3 - 1, column = pixel % shape.w + tap % 3 - 1;
        const bool inside = pixel < pixels && row >= 0 && row < shape.h && column >= 0 && column < shape.w;
        const int image = pixel / (shape.h * shape.w);
        const std::int64_t at = (std::int64_t{image * shape.h + row} * shape.w + column) * shape.c + c0 + c;
        x_tile[c][p] = simt::load_if(inside && c0 + c < shape.c, x + at);
      }
      for (int i = t; i < kFilters * kChannels; i += kThreads) {
        const int c = i % kChannels, k = i / kChannels;
        const std::int64_t at = (std::int64_t{block_filter + k} * 9 + tap) * shape.c + c0 + c;
        weight_tile[c][k] = simt::load_if(block_filter + k < shape.k && c0 + c < shape.c, weight + at);
      }
      __syncthreads();
      for (int c = 0; c < kChannels; ++c) {
        const float4 a = simt::vload<float4>(&x_tile[c][first_pixel]);
        const float4 b = simt::vload<float4>(&weight_tile[c][first_filter]);
        const float as[] = {a.x, a.y, a.z, a.w}, bs[] = {b.x, b.y, b.z, b.w};
        for (int i = 0; i < kPerThread; ++i) {
          for (int j = 0; j < kPerThread; ++j) sums[i][j] += as[i] * bs[j];
        }
      }
      __syncthreads();
    }
  }
  for (int i = 0; i < kPerThread; ++i) {
    const int pixel = block_pixel + first_pixel + i;
    for (int j = 0; j < kPerThread; ++j) {
      const int k = block_filter + first_filter + j;
      if (pixel < pixels && k < shape.k) y[std::int64_t{pixel} * shape.k + k] = sums[i][j];
    }
  }
}

template <typename Launch>
double seconds(Launch launch) {
  const double begin = now();
  if (launch() != simt::kSuccess) return -1;
  return now() - begin;
}

}  // namespace

#define TIMED extern "C" __attribute__((visibility("default"))) double

// Each answers with seconds for the whole.
TIMED switches(int rounds) {
  simt::detail::provide_stacks(kFibers);
  for (int i = 0; i < kFibers; ++i) simt::detail::prepare_fiber(fibers[i], i, &hand_over);
  rounds_left = rounds;
  current = 0;
  const double begin = now();
  simt::detail::switch_fiber(launcher, fibers[0]);
  return now() - begin;
}
TIMED barriers(int threads, int times) {
  return seconds(
      [=] { return simt::launch(barriers_kernel, dim3(1), dim3(static_cast<unsigned>(threads)), 0, nullptr, times); });
}
TIMED shuffles(int threads, int times, int* result) {
  return seconds([=] {
    return simt::launch(shuffles_kernel, dim3(1), dim3(static_cast<unsigned>(threads)), 0, nullptr, times, result);
  });
}
TIMED products(int times, float* result) {
  return seconds([=] { return simt::launch(products_kernel, dim3(1), dim3(32), 0, nullptr, times, result); });
}
TIMED convolution(const float* x, const float* weight, float* y, int n, int h, int w, int c, int k) {
  const dim3 grid(static_cast<unsigned>((n * h * w + kPixels - 1) / kPixels),
                  static_cast<unsigned>((k + kFilters - 1) / kFilters));
  return seconds(
      [=] { return simt::launch(conv_kernel, grid, dim3(kThreads), 0, nullptr, x, weight, y, Shape{n, h, w, c, k}); });
}

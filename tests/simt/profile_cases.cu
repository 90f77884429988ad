// Kernels whose requests can be counted by hand, for the tests of the profiler (tests/test_simt_profile.py, where the
// expected counts are). One warp each unless the name says otherwise; arrays are large enough for all of them.
#include "cases.h"
#include "simt/ptx.h"

#include <cstdint>

namespace {

using namespace gpucnn;

constexpr int kFloats = 1 << 16;

struct Memory {
  cases::Array<float> a{kFloats}, b{kFloats}, c{kFloats};
};

// Keeps a value that a kernel has computed from being optimised away, without a store.
__device__ __forceinline__ void keep(float value, float* out) {
  if (value == 12345.0f) out[0] = value;
}

template <typename T>
__global__ void copy(const T* __restrict__ from, T* __restrict__ to, int offset) {
  const int i = static_cast<int>(threadIdx.x) + offset;
  simt::vstore(to + i, simt::vload<T>(from + i));
}
__global__ void copy_plain(const float* __restrict__ from, float* __restrict__ to) {
  to[threadIdx.x] = from[threadIdx.x];
}
__global__ void copy_four_scalars(const float* __restrict__ from, float* __restrict__ to) {
  for (int j = 0; j < 4; ++j) to[4 * threadIdx.x + j] = from[4 * threadIdx.x + j];
}
__global__ void strided(const float* __restrict__ from, float* out, int stride) {
  keep(from[threadIdx.x * stride], out);
}
__global__ void same_word(const float* __restrict__ from, float* out, int index) {
  keep(from[index], out);
}
__global__ void half_active(const float* __restrict__ from, float* out) {
  if (threadIdx.x < 16) keep(from[threadIdx.x], out);
}

template <int kPad>
__global__ void transpose(float* out, bool read_back) {
  SIMT_SHARED(float, tile, [32][32 + kPad]);
  for (int row = threadIdx.y; row < 32; row += blockDim.y) tile[row][threadIdx.x] = 1.0f;
  __syncthreads();
  if (!read_back) return;
  float sum = 0.0f;
  for (int row = threadIdx.y; row < 32; row += blockDim.y) sum += tile[threadIdx.x][row];
  keep(sum, out);
}
template <typename T>
__global__ void shared_reads(float* out, int stride) {
  SIMT_DYNAMIC_SHARED(unsigned char, bytes);
  const T value = simt::vload<T>(bytes + threadIdx.x * stride);
  float first;
  __builtin_memcpy(&first, &value, sizeof first);
  keep(first, out);
}
__global__ void matrix_rows(float* out, int stride) {
  SIMT_DYNAMIC_SHARED(unsigned char, bytes);
  std::uint32_t r[4];
  simt::ldmatrix_x4(r, bytes + threadIdx.x * stride);
  keep(static_cast<float>(r[0]), out);
}
// Rows of 128 bytes whose chunks of 16 change places by the row: what makes the same reads free of conflicts.
__global__ void matrix_rows_swizzled(float* out) {
  SIMT_DYNAMIC_SHARED(unsigned char, bytes);
  std::uint32_t r[4];
  const int row = static_cast<int>(threadIdx.x);
  simt::ldmatrix_x4(r, bytes + row * 128 + (row % 8) * 16);
  keep(static_cast<float>(r[0]), out);
}
__global__ void copies(const float* __restrict__ from, float* out, int active) {
  SIMT_SHARED(float, tile, [32][4]);
  const int t = static_cast<int>(threadIdx.x);
  simt::cp_async<16>(tile[t], from + 4 * t, t < active);
  simt::cp_async_wait_all();
  __syncwarp();
  keep(tile[t][0], out);
}

__global__ void trips_by_lane(const float* __restrict__ from, float* out) {
  float sum = 0.0f;
  for (int i = 0; i <= static_cast<int>(threadIdx.x & 3); ++i) sum += from[i * 32 + threadIdx.x];
  keep(sum, out);
}
__global__ void nested_trips(const float* __restrict__ from, float* out, int outer) {
  float sum = 0.0f;
  for (int o = 0; o < outer; ++o) {
    for (int i = 0; i <= static_cast<int>(threadIdx.x & 1); ++i) sum += from[(o * 2 + i) * 32 + threadIdx.x];
  }
  keep(sum, out);
}
__global__ void border_in_loop(const float* __restrict__ from, float* out, int n) {
  float sum = 0.0f;
  for (int i = 0; i < n; ++i) sum += static_cast<int>(threadIdx.x) % n != i ? from[i * 32 + threadIdx.x] : 0.0f;
  keep(sum, out);
}
__global__ void guarded_in_loop(const float* __restrict__ from, float* out, int n) {
  float sum = 0.0f;
  for (int i = 0; i < n; ++i) {
    sum += simt::load_if(static_cast<int>(threadIdx.x) % n != i, from + i * 32 + threadIdx.x);
  }
  keep(sum, out);
}
// A window of 3x3 over two rows of 16, padded with zeros: lanes of the first row skip what lies above it, those at the
// ends what lies beside.
template <bool kGuarded>
__global__ void window(const float* __restrict__ from, float* out, int taps) {
  const int p = static_cast<int>(threadIdx.x) / 16, q = static_cast<int>(threadIdx.x) % 16;
  float sum = 0.0f;
  for (int r = 0; r < taps; ++r) {
    for (int s = 0; s < taps; ++s) {
      const int h = p + r - 1, w = q + s - 1;
      const bool inside = h >= 0 && h < 2 && w >= 0 && w < 16;
      if constexpr (kGuarded) {
        sum += simt::load_if(inside, from + h * 16 + w);
      } else {
        if (inside) sum += from[h * 16 + w];
      }
    }
  }
  keep(sum, out);
}
__global__ void ragged_end(const float* __restrict__ from, float* __restrict__ to, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) to[i] = from[i];
}
__global__ void ragged_rows(const float* __restrict__ from, float* __restrict__ to, int width) {
  const int x = static_cast<int>(threadIdx.x), row = static_cast<int>(blockIdx.x);
  if (x < width) to[row * width + x] = from[row * width + x];
}
__global__ void branches(const float* __restrict__ a, const float* __restrict__ b, float* out) {
  float value;
  if (threadIdx.x & 1) {
    value = a[threadIdx.x] * 2.0f;
  } else {
    value = b[threadIdx.x] + 1.0f;
  }
  keep(value, out);
}
__attribute__((noinline)) __device__ float through_a_call(const float* p) {
  return *p;
}
__global__ void calls(const float* a, float* out) {
  float sum = 0.0f;
  if (threadIdx.x & 1) sum += through_a_call(a + threadIdx.x);
  sum += through_a_call(a + 1024 + threadIdx.x);
  keep(sum, out);
}
__global__ void long_loop(const float* __restrict__ from, float* out, int n) {
  float sum = 0.0f;
  for (int i = 0; i < n; ++i) sum += from[(i & 31) * 32 + threadIdx.x];
  keep(sum, out);
}
__global__ void one_lane_for_long(const float* __restrict__ from, float* out, int n) {
  float sum = 0.0f;
  if (threadIdx.x == 0) {
    for (int i = 0; i < n; ++i) sum += from[i & 1023];
  }
  keep(sum + from[2048 + threadIdx.x], out);
}
__global__ void atomics(int* counter) {
  atomicAdd(counter, 1);
  atomicMax(counter + 32, 7);
}
__global__ void multiplications(const float* __restrict__ from, float* out, int n) {
  float sum = 0.0f;
  const float x = from[threadIdx.x];
  for (int i = 0; i < n; ++i) sum = sum * x + 1.0f;
  out[threadIdx.x] = sum;
}
__global__ void products(float* out) {
  float d[4] = {};
  const std::uint32_t a[4] = {}, b[2] = {};
  for (int i = 0; i < 3; ++i) simt::mma_m16n8k16_bf16(d, a, b);
  simt::mma_m16n8k8_tf32(d, a, b);
  keep(d[0], out);
}
__global__ void warps_of_unlike_work(const float* __restrict__ from, float* out) {
  float sum = 0.0f;
  for (int i = 0; i < static_cast<int>(threadIdx.x / 32) * 10; ++i) sum += from[threadIdx.x];
  keep(sum, out);
}

#define PROFILED(name, ...) \
  CASE(name) {              \
    Memory m;               \
    __VA_ARGS__;            \
    return true;            \
  }
#define ONE_WARP(kernel, ...) cases::launch(kernel, 1, 32, 0, __VA_ARGS__)
#define WITH_SHARED(kernel, ...) cases::launch(kernel, 1, 32, 8192, __VA_ARGS__)

template <typename T>
T* as(cases::Array<float>& array) {
  return reinterpret_cast<T*>(array.data());
}

PROFILED(copy_2, ONE_WARP(copy<unsigned short>, as<unsigned short>(m.a), as<unsigned short>(m.b), 0))
PROFILED(copy_4, ONE_WARP(copy<float>, m.a.data(), m.b.data(), 0))
PROFILED(copy_4_by_one, ONE_WARP(copy<float>, m.a.data(), m.b.data(), 1))
PROFILED(copy_8, ONE_WARP(copy<float2>, as<float2>(m.a), as<float2>(m.b), 0))
PROFILED(copy_8_by_one, ONE_WARP(copy<float2>, as<float2>(m.a), as<float2>(m.b), 1))
PROFILED(copy_16, ONE_WARP(copy<float4>, as<float4>(m.a), as<float4>(m.b), 0))
PROFILED(copy_16_by_one, ONE_WARP(copy<float4>, as<float4>(m.a), as<float4>(m.b), 1))
PROFILED(copy_plain_4, ONE_WARP(copy_plain, m.a.data(), m.b.data()))
PROFILED(copy_scalars, ONE_WARP(copy_four_scalars, m.a.data(), m.b.data()))
PROFILED(stride_2, ONE_WARP(strided, m.a.data(), m.b.data(), 2))
PROFILED(stride_32, ONE_WARP(strided, m.a.data(), m.b.data(), 32))
PROFILED(broadcast, ONE_WARP(same_word, m.a.data(), m.b.data(), 0))
PROFILED(half_a_warp, ONE_WARP(half_active, m.a.data(), m.b.data()))
PROFILED(warp_of_20, cases::launch(copy<float>, 1, 20, 0, m.a.data(), m.b.data(), 0))
PROFILED(rows_written, cases::launch(transpose<0>, 1, dim3(32, 8), 0, m.a.data(), false))
PROFILED(columns_read, cases::launch(transpose<0>, 1, dim3(32, 8), 0, m.a.data(), true))
PROFILED(columns_read_padded, cases::launch(transpose<1>, 1, dim3(32, 8), 0, m.a.data(), true))
PROFILED(shared_4_broadcast, WITH_SHARED(shared_reads<unsigned>, m.a.data(), 0))
PROFILED(shared_4_stride_8, WITH_SHARED(shared_reads<unsigned>, m.a.data(), 8))
PROFILED(shared_8_stride_8, WITH_SHARED(shared_reads<uint2>, m.a.data(), 8))
PROFILED(shared_8_stride_16, WITH_SHARED(shared_reads<uint2>, m.a.data(), 16))
PROFILED(shared_16_stride_16, WITH_SHARED(shared_reads<uint4>, m.a.data(), 16))
PROFILED(shared_16_stride_64, WITH_SHARED(shared_reads<uint4>, m.a.data(), 64))
PROFILED(shared_16_stride_128, WITH_SHARED(shared_reads<uint4>, m.a.data(), 128))
PROFILED(shared_16_stride_144, WITH_SHARED(shared_reads<uint4>, m.a.data(), 144))
PROFILED(matrix_16, WITH_SHARED(matrix_rows, m.a.data(), 16))
PROFILED(matrix_128, WITH_SHARED(matrix_rows, m.a.data(), 128))
PROFILED(matrix_144, WITH_SHARED(matrix_rows, m.a.data(), 144))
PROFILED(matrix_swizzled, WITH_SHARED(matrix_rows_swizzled, m.a.data()))
PROFILED(copies_16, ONE_WARP(copies, m.a.data(), m.b.data(), 32))
PROFILED(copies_16_of_20, ONE_WARP(copies, m.a.data(), m.b.data(), 20))
PROFILED(trips_1_to_4, ONE_WARP(trips_by_lane, m.a.data(), m.b.data()))
PROFILED(trips_nested, ONE_WARP(nested_trips, m.a.data(), m.b.data(), 2))
PROFILED(border, ONE_WARP(border_in_loop, m.a.data(), m.b.data(), 8))
PROFILED(border_guarded, ONE_WARP(guarded_in_loop, m.a.data(), m.b.data(), 8))
PROFILED(window, ONE_WARP(window<false>, m.a.data(), m.b.data(), 3))
PROFILED(window_guarded, ONE_WARP(window<true>, m.a.data(), m.b.data(), 3))
PROFILED(ragged_end, cases::launch(ragged_end, 4, 32, 0, m.a.data(), m.b.data(), 100))
PROFILED(ragged_rows, cases::launch(ragged_rows, 4, 32, 0, m.a.data(), m.b.data(), 21))
PROFILED(if_else, ONE_WARP(branches, m.a.data(), m.b.data(), m.c.data()))
PROFILED(two_calls, ONE_WARP(calls, m.a.data(), m.b.data()))
PROFILED(loop_20000, ONE_WARP(long_loop, m.a.data(), m.b.data(), 20000))
PROFILED(loop_200000, ONE_WARP(long_loop, m.a.data(), m.b.data(), 200000))
PROFILED(lane_0_10000, ONE_WARP(one_lane_for_long, m.a.data(), m.b.data(), 10000))
PROFILED(atomics_one_word, ONE_WARP(atomics, as<int>(m.a)))
PROFILED(multiply_add_50, ONE_WARP(multiplications, m.a.data(), m.b.data(), 50))
PROFILED(matrix_products, ONE_WARP(products, m.a.data()))
PROFILED(unlike_warps, cases::launch(warps_of_unlike_work, 3, 128, 0, m.a.data(), m.b.data()))
PROFILED(blocks_of_one_read, cases::launch(copy_plain, 40, 32, 0, m.a.data(), m.b.data()))

}  // namespace

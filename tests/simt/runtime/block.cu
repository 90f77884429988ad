// Blocks, threads and their order; atomics; shared memory; global access.
#include "runtime.h"

#include <chrono>
#include <thread>

namespace {

// Everything a thread is told about where it is.
__global__ void indices_kernel(unsigned* told) {
  const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  unsigned* mine = told + 12 * (block * threads + static_cast<unsigned>(linear_thread()));
  __syncthreads();  // as much for a thread that others ran in between
  const unsigned values[12] = {threadIdx.x, threadIdx.y, threadIdx.z, blockIdx.x, blockIdx.y, blockIdx.z,
                               blockDim.x,  blockDim.y,  blockDim.z,  gridDim.x,  gridDim.y,  gridDim.z};
  for (int i = 0; i < 12; ++i) mine[i] = values[i];
}

// log[i] = (block, thread) of the i-th to pass: once before a barrier, once between that and a shuffle, once after it.
__global__ void order_kernel(int* count, int* log) {
  const int me = static_cast<int>(blockIdx.x) * 1024 + linear_thread();
  log[atomicAdd(count, 1)] = me;
  __syncthreads();
  log[atomicAdd(count, 1)] = me;
  __shfl_sync(~0u, me, 0);
  log[atomicAdd(count, 1)] = me;
}

template <typename T>
__global__ void atomic_kernel(int operation, T* place, const T* operands, T* returned) {
  const int t = static_cast<int>(blockIdx.x * blockDim.x) + linear_thread();
  const T operand = operands[t];
  T old = 0;
  if constexpr (!std::is_same_v<T, long long>) {
    if (operation == 0) old = atomicAdd(place, operand);
  }
  if (operation == 1) old = atomicMin(place, operand);
  if (operation == 2) old = atomicMax(place, operand);
  if (operation == 3) old = atomicAnd(place, operand);
  if (operation == 4) old = atomicOr(place, operand);
  if (operation == 5) old = atomicXor(place, operand);
  if (operation == 6) old = atomicExch(place, operand);
  if (operation == 7) old = atomicCAS(place, static_cast<T>(t), static_cast<T>(t + 1));
  if constexpr (sizeof(T) == 4) {
    if (operation == 8) old = atomicSub(place, operand);
  }
  returned[t] = old;
}

struct Triple {
  float a, b, c;
};

template <int kInstance>
__device__ float* own_array() {
  SIMT_SHARED(float, own, [5]);
  return own;
}

// What shared memory holds when nobody has written it, and that a block's arrays are apart and aligned.
__global__ void shared_kernel(unsigned* bits, std::uintptr_t* places) {
  SIMT_SHARED(float, tile, [7][3]);
  SIMT_SHARED(Triple, total, );
  SIMT_SHARED(unsigned char, byte, );
  SIMT_DYNAMIC_SHARED(unsigned, buffer);
  const int t = linear_thread();
  if (t == 0) {
    for (int i = 0; i < 21; ++i) bits[i] = __float_as_uint(tile[i / 3][i % 3]);
    bits[21] = __float_as_uint(total.b);
    bits[22] = byte;
    bits[23] = buffer[0];
    bits[24] = buffer[15];
  }
  const std::uintptr_t found[] = {
      reinterpret_cast<std::uintptr_t>(&tile),          reinterpret_cast<std::uintptr_t>(&total),
      reinterpret_cast<std::uintptr_t>(&byte),          reinterpret_cast<std::uintptr_t>(buffer),
      reinterpret_cast<std::uintptr_t>(own_array<0>()), reinterpret_cast<std::uintptr_t>(own_array<1>()),
      reinterpret_cast<std::uintptr_t>(own_array<0>())};
  for (int i = 0; i < 7; ++i) places[7 * t + i] = found[i];
  __syncthreads();
  tile[t % 7][t % 3] = 1.0f;
  buffer[t % 16] = 1;
  byte = 1;
  if (t == 0) total = {1, 2, 3};
}

__global__ void static_kernel(float* result) {
  SIMT_SHARED(float, all, [12 * 1024]);
  SIMT_DYNAMIC_SHARED(float, rest);
  const int t = linear_thread();
  if (t == 0) all[12 * 1024 - 1] = 2, rest[0] = 3;
  __syncthreads();
  result[t] = all[12 * 1024 - 1] + rest[0];
}

__global__ void wide_kernel(const float* x, float* y, int n) {
  const int t = linear_thread();
  if (4 * t < n) simt::vstore(y + 4 * t, simt::vload<float4>(x + 4 * t));
  if (2 * t < n) simt::vstore(y + n + 2 * t, simt::vload<float2>(x + 2 * t));
  if (t < n) simt::vstore(y + 2 * n + t, simt::vload<float>(x + t));
  y[3 * n + t] = simt::load_if(t < n, x + t, -1.0f);
  y[3 * n + blockDim.x + t] = simt::load_if(t < n, t < n ? x + t : nullptr);
}

// Takes its time, and says how many launches it saw at work at once.
__global__ void slow_kernel(int* running, int* most) {
  const int now = __atomic_add_fetch(running, 1, __ATOMIC_SEQ_CST);
  if (now > *most) *most = now;
  std::this_thread::sleep_for(std::chrono::microseconds(500));
  __atomic_sub_fetch(running, 1, __ATOMIC_SEQ_CST);
}

__global__ void numbers_kernel(const float* x, float* results) {
  const float a = x[0], b = x[1];
  results[0] = min(a, b), results[1] = max(a, b), results[2] = rsqrtf(4.0f);
  results[3] = static_cast<float>(min(3, -2)), results[4] = static_cast<float>(max(3u, 5u));
  results[5] = static_cast<float>(__popc(0xf0f0u)), results[6] = static_cast<float>(__ffs(8));
  results[7] = static_cast<float>(__clz(1)), results[8] = static_cast<float>(__clz(0));
  results[9] = __int_as_float(__float_as_int(2.5f)), results[10] = __uint_as_float(__float_as_uint(-0.5f));
  results[11] = __ldg(x + 2);
}

}  // namespace

TEST_FUNCTION indices(const unsigned* grid, const unsigned* block, unsigned* told) {
  return fault_of(indices_kernel, dim3(grid[0], grid[1], grid[2]), dim3(block[0], block[1], block[2]), 0, told);
}
TEST_FUNCTION order(int blocks, int threads, int* count, int* log) {
  return fault_of(order_kernel, dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(threads)), 0, count,
                  log);
}
#define ATOMIC(name, T)                                                                             \
  TEST_FUNCTION name(int operation, T* place, const T* operands, T* returned) {                     \
    return fault_of(atomic_kernel<T>, dim3(2), dim3(128), 0, operation, place, operands, returned); \
  }
ATOMIC(atomic_int32, int)
ATOMIC(atomic_uint32, unsigned)
ATOMIC(atomic_int64, long long)
ATOMIC(atomic_uint64, unsigned long long)
TEST_FUNCTION shared(int threads, unsigned* bits, std::uintptr_t* places) {
  return fault_of(shared_kernel, dim3(3), dim3(static_cast<unsigned>(threads)), 64, bits, places);
}
TEST_FUNCTION static_shared(std::size_t dynamic_bytes, float* result) {
  return fault_of(static_kernel, dim3(1), dim3(32), dynamic_bytes, result);
}
TEST_FUNCTION wide(const float* x, float* y, int n) {
  return fault_of(wide_kernel, dim3(1), dim3(64), 0, x, y, n);
}
TEST_FUNCTION slow(int* running, int* most) {
  return fault_of(slow_kernel, dim3(4), dim3(1), 0, running, most);
}
TEST_FUNCTION numbers(const float* x, float* results) {
  return fault_of(numbers_kernel, dim3(1), dim3(1), 0, x, results);
}

__global__ void nothing_kernel() {}
TEST_FUNCTION limits(const unsigned* grid, const unsigned* block, std::size_t shared_bytes) {
  return fault_of(nothing_kernel, dim3(grid[0], grid[1], grid[2]), dim3(block[0], block[1], block[2]), shared_bytes);
}

extern "C" __attribute__((visibility("default"))) const char* set_order(const char* order) {
  static std::string text;
  try {
    simt::set_order(order);
    return nullptr;
  } catch (const simt::Fault& fault) {
    text = fault.what();
    return text.c_str();
  }
}

// The layer of simt.h under nvcc: CUDA itself, and what it spells otherwise.
#pragma once

#include "simt/float16.h"
#include "simt/status.h"

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#define SIMT_SHARED(T, name, ...) __shared__ __align__(16) T name __VA_ARGS__
// One extern array serves every kernel of a file, whatever its type.
#define SIMT_DYNAMIC_SHARED(T, name)                                            \
  extern __shared__ __align__(1024) unsigned char gpucnn_simt_dynamic_memory[]; \
  T* const name = reinterpret_cast<T*>(gpucnn_simt_dynamic_memory)

namespace gpucnn::simt {

inline constexpr std::size_t kSharedBytesByDefault = 48 * 1024;  // above it, a kernel has to ask

// Launches kernel(arguments...) on `stream` and says whether the launch was accepted. An error is taken off CUDA's
// record, so that the next library to look there does not find ours; what the kernel itself does wrong while it runs
// is reported by a later call, as always with CUDA.
template <typename... Parameters, typename... Arguments>
[[nodiscard]] Status launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
                            Stream stream, Arguments&&... arguments) {
  Status status = kSuccess;
  if (shared_bytes > kSharedBytesByDefault) {
    status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
  }
  if (status == kSuccess) {
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    status = cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
  }
  if (status != kSuccess) cudaGetLastError();
  return status;
}

// Multiprocessors of the current device.
[[nodiscard]] inline Status multiprocessors(int* count) {
  int device = 0;
  if (const Status status = cudaGetDevice(&device); status != kSuccess) return status;
  return cudaDeviceGetAttribute(count, cudaDevAttrMultiProcessorCount, device);
}

template <typename T>
__device__ __forceinline__ T vload(const void* p) {
  static_assert(sizeof(T) <= 16 && (sizeof(T) & (sizeof(T) - 1)) == 0 && alignof(T) == sizeof(T), "one access");
  return *static_cast<const T*>(p);
}

template <typename T>
__device__ __forceinline__ void vstore(void* p, const T& value) {
  static_assert(sizeof(T) <= 16 && (sizeof(T) & (sizeof(T) - 1)) == 0 && alignof(T) == sizeof(T), "one access");
  *static_cast<T*>(p) = value;
}

template <typename T>
__device__ __forceinline__ T load_if(bool ok, const T* p, T otherwise = T{}) {
  return ok ? *p : otherwise;
}

__device__ __forceinline__ float to_float(float value) {
  return value;
}
__device__ __forceinline__ float to_float(half value) {
  return __half2float(value);
}
__device__ __forceinline__ float to_float(bfloat16 value) {
  return __bfloat162float(value);
}

template <typename T>
__device__ __forceinline__ T from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ half from_float<half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ __forceinline__ bfloat16 from_float<bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

}  // namespace gpucnn::simt

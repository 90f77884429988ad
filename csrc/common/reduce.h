// Sums and maxima over the threads of a warp or a block, always in the same order. For .cu files.
#pragma once

#include "simt/simt.h"

namespace gpucnn {

// combine(...) over kLanes neighbouring lanes, a power of two, in each of them, as warp_reduce() has it. All 32 lanes
// call it.
template <int kLanes, typename T, typename Combine>
__device__ __forceinline__ T lanes_reduce(T value, Combine combine) {
  static_assert(kLanes >= 1 && kLanes <= 32 && (kLanes & (kLanes - 1)) == 0, "a power of two");
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    value = combine(value, __shfl_xor_sync(0xffffffffu, value, distance));
  }
  return value;
}

// combine(...) over the warp, in every lane: a butterfly, so all lanes have the same bits if combine(a, b) and
// combine(b, a) are the same. All 32 lanes call it.
template <typename T, typename Combine>
__device__ __forceinline__ T warp_reduce(T value, Combine combine) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    value = combine(value, __shfl_xor_sync(0xffffffffu, value, distance));
  }
  return value;
}

__device__ __forceinline__ float warp_sum(float value) {
  return warp_reduce(value, [](float a, float b) { return a + b; });
}

// Neighbours of shared memory in one access.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Together {
  T of[kCount];
};

// Of kCount neighbours of type T, those that go together, in 16 bytes at most.
template <typename T, int kCount>
inline constexpr int kOfTogether = (sizeof(T) & (sizeof(T) - 1)) != 0 || sizeof(T) >= 16 ? 1
                                   : kCount % (16 / sizeof(T)) == 0                      ? 16 / sizeof(T)
                                   : kCount == 2                                         ? 2
                                                                                         : 1;

// As warp_reduce() over a block of kThreads threads, a multiple of 32, in every thread. All threads of the block call
// it; it begins and ends with a barrier's order, so calls may follow one another.
template <int kThreads, typename T, typename Combine>
__device__ __forceinline__ T block_reduce(T value, Combine combine) {
  static_assert(kThreads % 32 == 0 && kThreads <= 1024, "whole warps");
  constexpr int kWarps = kThreads / 32;
  value = warp_reduce(value, combine);
  if constexpr (kWarps > 1) {
    SIMT_SHARED(T, partial, [kWarps]);
    __syncthreads();  // an earlier call's readers are done
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
    __syncthreads();
    constexpr int kTogether = kOfTogether<T, kWarps>;
#pragma unroll
    for (int warp = 0; warp < kWarps; warp += kTogether) {
      const auto several = simt::vload<Together<T, kTogether>>(partial + warp);
#pragma unroll
      for (int j = 0; j < kTogether; ++j) value = warp + j == 0 ? several.of[0] : combine(value, several.of[j]);
    }
  }
  return value;
}

template <int kThreads>
__device__ __forceinline__ float block_sum(float value) {
  return block_reduce<kThreads>(value, [](float a, float b) { return a + b; });
}

}  // namespace gpucnn

// Sums over a whole launch, finished by the block that comes last, in the order of the blocks. For .cu files.
//
// A launch of blocks as shares_of() has them needs 1 + kSums * blocks words of memory that are 0 before it: how many
// blocks are done, and what each has. Which block adds up is a matter of chance, the sum is not.
#pragma once

#include "common/pack.h"
#include "common/reduce.h"
#include "common/shares.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {

// Adds up `sums`, of which each thread has its part, over the launch. True in all threads of the last block, which have
// the whole in `sums` then. All threads of every block call it.
template <int kThreads, int kSums>
__device__ __forceinline__ bool sum_in_order(unsigned* memory, Floats<kSums>& sums) {
  SIMT_SHARED(unsigned, done_before, );
#pragma unroll
  for (int i = 0; i < kSums; ++i) sums[i] = block_sum<kThreads>(sums[i]);
  if (threadIdx.x == 0) {
    // As bits and by atomics: other blocks read them in this launch.
#pragma unroll
    for (int i = 0; i < kSums; ++i) atomicExch(memory + 1 + blockIdx.x * kSums + i, __float_as_uint(sums[i]));
    __threadfence();
    done_before = atomicAdd(memory, 1u);
  }
  __syncthreads();
  const bool is_last = done_before + 1 == gridDim.x;
  if (is_last) {
    __threadfence();
#pragma unroll
    for (int i = 0; i < kSums; ++i) sums[i] = 0.0f;
    for (unsigned block = threadIdx.x; block < gridDim.x; block += kThreads) {
#pragma unroll
      for (int i = 0; i < kSums; ++i) sums[i] += __uint_as_float(atomicOr(memory + 1 + block * kSums + i, 0u));
    }
#pragma unroll
    for (int i = 0; i < kSums; ++i) sums[i] = block_sum<kThreads>(sums[i]);
  }
  return is_last;
}

}  // namespace gpucnn

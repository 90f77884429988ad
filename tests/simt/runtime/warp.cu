// Warp shuffles, votes and reductions, with a mask for every lane; lanes whose mask is 0 take no part.
#include "runtime.h"

namespace {

template <typename T>
__global__ void shuffle_kernel(int operation, const unsigned* masks, const T* values, const int* parameters, int width,
                               T* results) {
  const int t = linear_thread(), parameter = parameters[t];
  const unsigned mask = masks[t];
  if (mask == 0) return;
  T result = values[t];
  if (operation == 0) result = __shfl_sync(mask, result, parameter, width);
  if (operation == 1) result = __shfl_up_sync(mask, result, static_cast<unsigned>(parameter), width);
  if (operation == 2) result = __shfl_down_sync(mask, result, static_cast<unsigned>(parameter), width);
  if (operation == 3) result = __shfl_xor_sync(mask, result, parameter, width);
  results[t] = result;
}

template <typename T>
__global__ void reduce_kernel(int operation, const unsigned* masks, const T* values, T* results) {
  const int t = linear_thread();
  const unsigned mask = masks[t];
  if (mask == 0) return;
  T result = values[t];
  if (operation == 0) result = __reduce_add_sync(mask, result);
  if (operation == 1) result = __reduce_min_sync(mask, result);
  if (operation == 2) result = __reduce_max_sync(mask, result);
  results[t] = result;
}

__global__ void bits_kernel(int operation, const unsigned* masks, const unsigned* values, unsigned* results) {
  const int t = linear_thread();
  const unsigned mask = masks[t];
  if (mask == 0) return;
  unsigned result = values[t];
  const int predicate = static_cast<int>(result);
  if (operation == 0) result = __reduce_and_sync(mask, result);
  if (operation == 1) result = __reduce_or_sync(mask, result);
  if (operation == 2) result = __reduce_xor_sync(mask, result);
  if (operation == 3) result = __ballot_sync(mask, predicate);
  if (operation == 4) result = static_cast<unsigned>(__any_sync(mask, predicate));
  if (operation == 5) result = static_cast<unsigned>(__all_sync(mask, predicate));
  results[t] = result;
}

// A sum over the block: shuffles within a warp, shared memory between warps, a barrier before and after.
__global__ void block_sum_kernel(const float* x, float* sums) {
  SIMT_SHARED(float, partial, [32]);
  const int t = linear_thread(), threads = static_cast<int>(blockDim.x * blockDim.y * blockDim.z);
  const int block = static_cast<int>(blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z));
  float sum = x[block * threads + t];
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (t % 32 == 0) partial[t / 32] = sum;
  __syncthreads();
  float total = 0;
  for (int i = 0; i < threads / 32; ++i) total += partial[i];
  __syncthreads();
  if (t % 32 == 0) partial[t / 32] = total + static_cast<float>(t / 32);
  __syncthreads();
  sums[block * threads + t] = partial[(t / 32 + 1) % (threads / 32)];
}

// Lanes hand a value round through shared memory, ordered by __syncwarp() alone.
__global__ void relay_kernel(int* results) {
  SIMT_SHARED(int, box, [1024]);
  const int t = linear_thread(), lane = t % 32, first = t - lane;
  box[t] = t;
  for (int i = 0; i < 5; ++i) {
    __syncwarp();
    const int value = box[first + (lane + 1) % 32];
    __syncwarp();
    box[t] = value;
  }
  __syncwarp();
  results[t] = box[t];
}

}  // namespace

#define SHUFFLE(name, T)                                                                                           \
  TEST_FUNCTION name(int threads, int operation, const unsigned* masks, const T* values, const int* parameters,    \
                     int width, T* results) {                                                                      \
    return fault_of(shuffle_kernel<T>, dim3(1), dim3(static_cast<unsigned>(threads)), 0, operation, masks, values, \
                    parameters, width, results);                                                                   \
  }
SHUFFLE(shuffle_int32, int)
SHUFFLE(shuffle_float32, float)
SHUFFLE(shuffle_int64, long long)
SHUFFLE(shuffle_float16, simt::half)

TEST_FUNCTION reduce_int32(int threads, int operation, const unsigned* masks, const int* values, int* results) {
  return fault_of(reduce_kernel<int>, dim3(1), dim3(static_cast<unsigned>(threads)), 0, operation, masks, values,
                  results);
}
TEST_FUNCTION reduce_uint32(int threads, int operation, const unsigned* masks, const unsigned* values,
                            unsigned* results) {
  return fault_of(reduce_kernel<unsigned>, dim3(1), dim3(static_cast<unsigned>(threads)), 0, operation, masks, values,
                  results);
}
TEST_FUNCTION bits_uint32(int threads, int operation, const unsigned* masks, const unsigned* values,
                          unsigned* results) {
  return fault_of(bits_kernel, dim3(1), dim3(static_cast<unsigned>(threads)), 0, operation, masks, values, results);
}
TEST_FUNCTION block_sum(const unsigned* grid, const unsigned* block, const float* x, float* sums) {
  return fault_of(block_sum_kernel, dim3(grid[0], grid[1], grid[2]), dim3(block[0], block[1], block[2]), 0, x, sums);
}
TEST_FUNCTION relay(int threads, int* results) {
  return fault_of(relay_kernel, dim3(1), dim3(static_cast<unsigned>(threads)), 0, results);
}

// Planted bugs: barriers and warp operations to which not all come. The runtime itself finds them, in every flavour.
#include "cases.h"

namespace {

using cases::Array;
namespace simt = gpucnn::simt;

constexpr int kThreads = 64;
constexpr unsigned kAll = 0xffffffffu;

__global__ void return_early(float* y, int n) {
  const int t = threadIdx.x;
  if (t >= n) return;
  y[t] = 1.0f;
  __syncthreads();  // @early_return
  y[t] += y[(t + 1) % n];
}
CASE(early_return_before_barrier) {
  Array<float> y(kThreads);
  cases::launch(return_early, 1, kThreads, 0, y.data(), 40);
  return true;
}

__global__ void barrier_in_both_branches(float* y) {
  const int t = threadIdx.x;
  if (t < 32) {
    __syncthreads();  // @divergent.one
  } else {
    __syncthreads();  // @divergent.other
  }
  y[t] = 1.0f;
}
CASE(divergent_barrier) {
  Array<float> y(kThreads);
  cases::launch(barrier_in_both_branches, 1, kThreads, 0, y.data());
  return true;
}

// Half of the threads wait for the other half, which waits for a lane of the first.
__global__ void barrier_against_shuffle(int* y) {
  const int t = threadIdx.x;
  if (t % 2 == 0) __syncthreads();     // @deadlock.barrier
  y[t] = __shfl_xor_sync(kAll, t, 1);  // @deadlock.shuffle
}
CASE(barrier_and_shuffle_deadlock) {
  Array<int> y(kThreads);
  cases::launch(barrier_against_shuffle, 1, kThreads, 0, y.data());
  return true;
}

// The mask names lanes that never come.
__global__ void shuffle_of_half(int* y) {
  const int t = threadIdx.x;
  if (t % 32 < 16) y[t] = __shfl_xor_sync(kAll, t, 1);  // @mask.too_many
}
CASE(mask_with_lanes_that_do_not_come) {
  Array<int> y(kThreads);
  cases::launch(shuffle_of_half, 1, kThreads, 0, y.data());
  return true;
}

// The mask lacks lanes that come.
__global__ void shuffle_by_outsiders(int* y) {
  const int t = threadIdx.x;
  y[t] = __shfl_xor_sync(0x0000ffffu, t, 1);  // @mask.too_few
}
CASE(mask_without_the_own_lane) {
  Array<int> y(kThreads);
  cases::launch(shuffle_by_outsiders, 1, kThreads, 0, y.data());
  return true;
}

__global__ void overlapping_masks(int* y) {
  const int t = threadIdx.x;
  y[t] = __any_sync(t < 16 ? 0x0000ffffu : 0xffff8000u, t);  // @mask.overlap
}
CASE(masks_that_overlap) {
  Array<int> y(32);
  cases::launch(overlapping_masks, 1, 32, 0, y.data());
  return true;
}

__global__ void different_operations(int* y) {
  const int t = threadIdx.x;
  if (t % 2 == 0) {
    y[t] = __any_sync(kAll, t == 3);  // @operations.any
  } else {
    y[t] = __all_sync(kAll, t == 3);  // @operations.all
  }
}
CASE(lanes_in_different_operations) {
  Array<int> y(32);
  cases::launch(different_operations, 1, 32, 0, y.data());
  return true;
}

}  // namespace

// Planted bugs: threads that touch the same bytes with nothing between them that orders them. For the race flavour.
#include "cases.h"

#include <cstring>

namespace {

using cases::Array;
namespace simt = gpucnn::simt;

constexpr int kThreads = 64;
constexpr unsigned kAll = 0xffffffffu;

// y[t] = x[n - 1 - t], through shared memory.
__global__ void reverse_without_barrier(const float* x, float* y) {
  SIMT_SHARED(float, tile, [kThreads]);
  const int t = threadIdx.x;
  tile[t] = x[t];                 // @before_read.write
  y[t] = tile[kThreads - 1 - t];  // @before_read.read
}
CASE(barrier_missing_before_read) {
  Array<float> x(kThreads), y(kThreads);
  cases::launch(reverse_without_barrier, 1, kThreads, 0, x.data(), y.data());
  return true;
}

// Two tiles, one after the other, through the same shared memory.
__global__ void reverse_tiles_without_second_barrier(const float* x, float* y) {
  SIMT_SHARED(float, tile, [kThreads]);
  const int t = threadIdx.x;
  for (int i = 0; i < 2; ++i) {
    tile[t] = x[i * kThreads + t];  // @after_read.write
    __syncthreads();
    y[i * kThreads + t] = tile[kThreads - 1 - t];  // @after_read.read
  }
}
CASE(barrier_missing_after_read) {
  Array<float> x(2 * kThreads), y(2 * kThreads);
  cases::launch(reverse_tiles_without_second_barrier, 1, kThreads, 0, x.data(), y.data());
  return true;
}

// One barrier a tile is enough for two buffers, but not none on every second tile.
__global__ void double_buffer(const float* x, float* y, int tiles) {
  SIMT_SHARED(float, tile, [2][kThreads]);
  const int t = threadIdx.x;
  for (int i = 0; i < tiles; ++i) {
    tile[i % 2][t] = x[i * kThreads + t];  // @double_buffer.write
    if (i % 2 == 0) __syncthreads();
    y[i * kThreads + t] = tile[i % 2][kThreads - 1 - t];  // @double_buffer.read
  }
}
CASE(barrier_missing_in_double_buffer) {
  Array<float> x(4 * kThreads), y(4 * kThreads);
  cases::launch(double_buffer, 1, kThreads, 0, x.data(), y.data(), 4);
  return true;
}

// Lanes of a warp exchange values as if they ran in lockstep.
__global__ void exchange_in_warp(int* y, bool shuffles) {
  SIMT_SHARED(int, slots, [kThreads]);
  const int t = threadIdx.x;
  slots[t] = t;
  __syncthreads();
  slots[t] = 2 * t;  // @syncwarp.write
  int sum = 0;
  if (shuffles) sum = __shfl_xor_sync(kAll, t, 1);
  y[t] = sum + slots[t ^ 1];  // @syncwarp.read
}
CASE(syncwarp_missing) {
  Array<int> y(kThreads);
  cases::launch(exchange_in_warp, 1, kThreads, 0, y.data(), false);
  return true;
}
CASE(shuffle_taken_for_syncwarp) {
  Array<int> y(kThreads);
  cases::launch(exchange_in_warp, 1, kThreads, 0, y.data(), true);
  return true;
}

// Both halves of a missing pair of barriers; the shuffles see to it that the threads really come in this order.
__global__ void write_read_write(int* y) {
  SIMT_SHARED(int, slot, [1]);
  const int t = threadIdx.x;
  int sum = 0;
  if (t == 0) slot[0] = 1;  // @pair.first
  sum += __shfl_sync(kAll, t, 0);
  if (t == 5) sum += slot[0];  // @pair.read
  sum += __shfl_sync(kAll, t, 0);
  if (t == 0) slot[0] = 2;  // @pair.second
  y[t] = sum;
}
CASE(read_between_two_writes) {
  Array<int> y(32);
  cases::launch(write_read_write, 1, 32, 0, y.data());
  return true;
}

// Lane 0 collects what all lanes wrote, and only half of them have come to the __syncwarp().
__global__ void collect_with_half_a_mask(int* y) {
  SIMT_SHARED(int, slots, [32]);
  const int t = threadIdx.x;
  slots[t] = t;  // @half_mask.write
  if (t < 16) __syncwarp(0x0000ffffu);
  if (t == 0) {
    for (int i = 0; i < 32; ++i) y[0] += slots[i];  // @half_mask.read
  }
}
CASE(syncwarp_with_half_a_mask) {
  Array<int> y(1);
  cases::launch(collect_with_half_a_mask, 1, 32, 0, y.data());
  return true;
}

// What 16 lanes have read is overwritten after a __syncwarp() of the other 16 with the writer.
__global__ void overwrite_with_half_a_mask(int* y) {
  SIMT_SHARED(int, slot, [1]);
  const int t = threadIdx.x;
  if (t == 0) slot[0] = 1;
  __syncwarp();
  y[t] = slot[0];  // @half_mask_after.read
  if (t < 16) __syncwarp(0x0000ffffu);
  if (t == 0) slot[0] = 2;  // @half_mask_after.write
}
CASE(syncwarp_with_half_a_mask_after_read) {
  Array<int> y(32);
  cases::launch(overwrite_with_half_a_mask, 1, 32, 0, y.data());
  return true;
}

__global__ void warps_with_syncwarp(int* y) {
  SIMT_SHARED(int, slot, [1]);
  const int t = threadIdx.x;
  if (t == 0) slot[0] = 1;
  __syncthreads();
  if (t == 0) slot[0] = 2;  // @other_warp.write
  __syncwarp();
  if (t == 32) y[0] = slot[0];  // @other_warp.read
}
CASE(syncwarp_taken_for_barrier) {
  Array<int> y(1);
  cases::launch(warps_with_syncwarp, 1, kThreads, 0, y.data());
  return true;
}

// Every block adds its number to the same element, as if alone.
__global__ void blocks_add(int* y) {
  if (threadIdx.x == 0) y[0] += 1 + static_cast<int>(blockIdx.x);  // @two_blocks
}
CASE(two_blocks_write_one_address) {
  Array<int> y(1);
  cases::launch(blocks_add, 3, 32, 0, y.data());
  return true;
}

// The same value from every block: harmless to the result, and still a race.
__global__ void blocks_write_the_same(int* y) {
  if (threadIdx.x == 5) y[7] = 1;  // @same_value
}
CASE(two_blocks_write_the_same_value) {
  Array<int> y(8);
  cases::launch(blocks_write_the_same, 4, 32, 0, y.data());
  return true;
}

// Blocks read what their neighbours write.
__global__ void blocks_read_neighbours(int* y) {
  const int b = blockIdx.x, t = threadIdx.x, n = blockDim.x;
  const int left = b > 0 ? y[b * n + t - n] : 0;  // @neighbour.read
  y[b * n + t] = left + 1;                        // @neighbour.write
}
CASE(block_reads_what_another_writes) {
  Array<int> y(4 * 32);
  cases::launch(blocks_read_neighbours, 4, 32, 0, y.data());
  return true;
}

// A counter that is read without an atomic while others still add to it.
__global__ void count_and_look(int* count, int* y, int reader) {
  const int t = threadIdx.x;
  atomicAdd(&count[0], 1);           // @atomic.change
  if (t == reader) y[0] = count[0];  // @atomic.read
}
CASE(atomic_and_plain_read_by_first) {
  Array<int> count(1), y(1);
  cases::launch(count_and_look, 1, 32, 0, count.data(), y.data(), 0);
  return true;
}
CASE(atomic_and_plain_read_by_last) {
  Array<int> count(1), y(1);
  cases::launch(count_and_look, 1, 32, 0, count.data(), y.data(), 31);
  return true;
}

__global__ void count_and_set(int* y) {
  SIMT_SHARED(int, count, [1]);
  const int t = threadIdx.x;
  if (t == 0) count[0] = 0;  // @atomic_shared.write
  atomicMax(&count[0], t);   // @atomic_shared.change
  __syncthreads();
  if (t == 0) y[0] = count[0];
}
CASE(atomic_and_plain_write_in_shared) {
  Array<int> y(1);
  cases::launch(count_and_set, 1, kThreads, 0, y.data());
  return true;
}

// Two threads write the two bytes of one half: each one of its bytes alone would be right.
__global__ void overlapping_widths(unsigned char* y) {
  const int t = threadIdx.x;
  if (t == 3) y[5] = 1;                                           // @widths.byte
  if (t == 40) simt::vstore<float4>(y, make_float4(1, 2, 3, 4));  // @widths.wide
}
CASE(byte_store_in_a_wide_one) {
  Array<unsigned char> y(16);
  cases::launch(overlapping_widths, 1, kThreads, 0, y.data());
  return true;
}

// One thread copies a struct by memcpy over what another one writes.
struct Record {
  int values[10];
};
__global__ void copy_a_record(Record* records) {
  const int t = threadIdx.x;
  if (t == 1) records[1].values[9] = 1;                                // @memcpy.write
  if (t == 33) std::memcpy(&records[1], &records[0], sizeof(Record));  // @memcpy.copy
}
CASE(memcpy_over_a_store) {
  Array<Record> records(2);
  cases::launch(copy_a_record, 1, kThreads, 0, records.data());
  return true;
}

}  // namespace

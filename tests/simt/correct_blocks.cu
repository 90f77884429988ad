// Correct kernels of one block or of blocks that share memory: no checker may say anything. Results are checked too.
#include "cases.h"

#include <cstring>

namespace {

using cases::Array;
namespace simt = gpucnn::simt;

constexpr unsigned kAll = 0xffffffffu;

// Sums of 256 integers by a tree in shared memory.
__global__ void tree_sum(const int* x, int* y) {
  SIMT_SHARED(int, part, [256]);
  const int t = threadIdx.x;
  part[t] = x[256 * blockIdx.x + t];
  __syncthreads();
  for (int step = 128; step > 0; step /= 2) {
    if (t < step) part[t] += part[t + step];
    __syncthreads();
  }
  if (t == 0) y[blockIdx.x] = part[0];
}
CASE(correct_tree_sum) {
  Array<int> x(3 * 256), y(3);
  for (int i = 0; i < 3 * 256; ++i) x[i] = i % 17;
  cases::launch(tree_sum, 3, 256, 0, x.data(), y.data());
  for (int b = 0; b < 3; ++b) {
    int sum = 0;
    for (int i = 0; i < 256; ++i) sum += x[256 * b + i];
    if (y[b] != sum) return false;
  }
  return true;
}

// Sums of whole blocks by shuffles, one value a warp through shared memory. The last warp is not whole.
__global__ void warp_sum(const int* x, int* y, int n) {
  SIMT_SHARED(int, part, [32]);
  const int t = threadIdx.x, lane = t % 32, warps = (blockDim.x + 31) / 32;
  int sum = t < n ? x[t] : 0;
  for (int step = 16; step > 0; step /= 2) {
    const int other = __shfl_down_sync(kAll, sum, step);
    if (lane + step < 32 && t + step < static_cast<int>(blockDim.x)) sum += other;
  }
  if (lane == 0) part[t / 32] = sum;
  __syncthreads();
  if (t < 32) {
    sum = t < warps ? part[t] : 0;
    sum = __reduce_add_sync(kAll, sum);
    if (t == 0) y[0] = sum;
  }
}
CASE(correct_warp_sum) {
  Array<int> x(100), y(1);
  for (int i = 0; i < 100; ++i) x[i] = i;
  cases::launch(warp_sum, 1, 128, 0, x.data(), y.data(), 100);
  return y[0] == 4950;
}

// A transpose in tiles of 32 x 32 with a padded row, 8 rows of threads.
__global__ void transpose(const float* x, float* y, int rows, int columns) {
  SIMT_SHARED(float, tile, [32][33]);
  const int r = 32 * blockIdx.y, c = 32 * blockIdx.x, tx = threadIdx.x;
  for (int i = threadIdx.y; i < 32; i += 8) {
    if (r + i < rows && c + tx < columns) tile[i][tx] = x[(r + i) * columns + c + tx];
  }
  __syncthreads();
  for (int i = threadIdx.y; i < 32; i += 8) {
    if (c + i < columns && r + tx < rows) y[(c + i) * rows + r + tx] = tile[tx][i];
  }
}
CASE(correct_transpose) {
  const int rows = 45, columns = 70;
  Array<float> x(rows * columns), y(rows * columns);
  for (int i = 0; i < rows * columns; ++i) x[i] = static_cast<float>(i);
  cases::launch(transpose, dim3(3, 2), dim3(32, 8), 0, x.data(), y.data(), rows, columns);
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < columns; ++j) {
      if (y[j * rows + i] != x[i * columns + j]) return false;
    }
  }
  return true;
}

// Inclusive prefix sums by doubling steps, between two buffers: one barrier a step.
__global__ void scan(const int* x, int* y) {
  SIMT_SHARED(int, sums, [2][128]);
  const int t = threadIdx.x;
  int from = 0;
  sums[0][t] = x[t];
  __syncthreads();
  for (int step = 1; step < 128; step *= 2, from ^= 1) {
    sums[from ^ 1][t] = sums[from][t] + (t >= step ? sums[from][t - step] : 0);
    __syncthreads();
  }
  y[t] = sums[from][t];
}
CASE(correct_scan) {
  Array<int> x(128), y(128);
  for (int i = 0; i < 128; ++i) x[i] = i % 5;
  cases::launch(scan, 1, 128, 0, x.data(), y.data());
  int sum = 0;
  for (int i = 0; i < 128; ++i) {
    sum += x[i];
    if (y[i] != sum) return false;
  }
  return true;
}

// Lanes hand values to their neighbours through shared memory with __syncwarp() before and after.
__global__ void rotate_in_warps(int* y, int times) {
  SIMT_SHARED(int, slots, [96]);
  const int t = threadIdx.x;
  int value = t;
  for (int i = 0; i < times; ++i) {
    slots[t] = value;
    __syncwarp();
    value = slots[t / 32 * 32 + (t + 1) % 32];
    __syncwarp();
  }
  y[t] = value;
}
CASE(correct_rotation_in_warps) {
  Array<int> y(96);
  cases::launch(rotate_in_warps, 1, 96, 0, y.data(), 5);
  for (int t = 0; t < 96; ++t) {
    if (y[t] != t / 32 * 32 + (t + 5) % 32) return false;
  }
  return true;
}

// Halves of a warp by themselves, with masks of their own.
__global__ void rotate_in_half_warps(int* y) {
  SIMT_SHARED(int, slots, [64]);
  const int t = threadIdx.x;
  const unsigned mask = t % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
  slots[t] = t;
  __syncwarp(mask);
  y[t] = slots[t ^ 15] + __shfl_xor_sync(mask, t, 1);
}
CASE(correct_half_warps) {
  Array<int> y(64);
  cases::launch(rotate_in_half_warps, 1, 64, 0, y.data());
  for (int t = 0; t < 64; ++t) {
    if (y[t] != (t ^ 15) + (t ^ 1)) return false;
  }
  return true;
}

// Counts in shared memory, added to global memory by all blocks.
__global__ void histogram(const unsigned char* x, int* counts, int n) {
  SIMT_SHARED(int, mine, [16]);
  const int t = threadIdx.x;
  if (t < 16) mine[t] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + t; i < n; i += gridDim.x * blockDim.x) atomicAdd(&mine[x[i] % 16], 1);
  __syncthreads();
  if (t < 16) atomicAdd(&counts[t], mine[t]);
}
CASE(correct_histogram) {
  Array<unsigned char> x(1000);
  Array<int> counts(16);
  for (int i = 0; i < 1000; ++i) x[i] = static_cast<unsigned char>(i * 7);
  cases::launch(histogram, 3, 64, 0, x.data(), counts.data(), 1000);
  int expected[16] = {};
  for (int i = 0; i < 1000; ++i) ++expected[x[i] % 16];
  return std::memcmp(expected, counts.data(), sizeof expected) == 0;
}

// The largest value and how often a thread had it, by atomics on 64 bits from all blocks.
__global__ void largest(const int* x, unsigned long long* best, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) atomicMax(best, (static_cast<unsigned long long>(x[i]) << 32) + static_cast<unsigned>(i));
}
CASE(correct_largest_of_all_blocks) {
  Array<int> x(300);
  Array<unsigned long long> best(1);
  for (int i = 0; i < 300; ++i) x[i] = i * 37 % 101;
  cases::launch(largest, 5, 64, 0, x.data(), best.data(), 300);
  int at = 0;
  for (int i = 0; i < 300; ++i) at = x[i] >= x[at] ? i : at;
  return best[0] == (static_cast<unsigned long long>(x[at]) << 32) + static_cast<unsigned>(at);
}

// Every thread stores single bytes and single halves next to those of others, in both memories.
__global__ void narrow_stores(unsigned char* bytes, simt::half* halves) {
  SIMT_SHARED(unsigned char, mine, [96]);
  SIMT_SHARED(simt::half, pairs, [96]);
  const int t = threadIdx.x, n = blockDim.x, at = blockIdx.x * n + t;
  mine[t] = static_cast<unsigned char>(t);
  pairs[t] = simt::from_float<simt::half>(static_cast<float>(t));
  bytes[at] = static_cast<unsigned char>(at);
  halves[at] = simt::from_float<simt::half>(static_cast<float>(at));
  __syncthreads();
  bytes[at] = static_cast<unsigned char>(bytes[at] + mine[n - 1 - t]);
  halves[at] = simt::from_float<simt::half>(simt::to_float(halves[at]) + simt::to_float(pairs[n - 1 - t]));
}
CASE(correct_narrow_stores) {
  Array<unsigned char> bytes(3 * 96);
  Array<simt::half> halves(3 * 96);
  cases::launch(narrow_stores, 3, 96, 0, bytes.data(), halves.data());
  for (int i = 0; i < 3 * 96; ++i) {
    if (bytes[i] != (i + 95 - i % 96) % 256 || simt::to_float(halves[i]) != static_cast<float>(i + 95 - i % 96))
      return false;
  }
  return true;
}

// Wide accesses, a struct parameter, a table of constants, an array of a thread's own.
struct Filter {
  float taps[5];
  int size;
};
__global__ void filter_rows(const float* x, float* y, int n, Filter filter) {
  static constexpr float kScale[4] = {1.0f, 2.0f, 4.0f, 8.0f};
  const int first = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
  if (first >= n) return;
  float sum[4] = {};
  for (int k = 0; k < filter.size; ++k) {
    for (int j = 0; j < 4; ++j) {
      const int i = first + j + k - filter.size / 2;
      sum[j] += filter.taps[k] * simt::load_if(i >= 0 && i < n, x + i, 0.0f);
    }
  }
  const float scale = kScale[threadIdx.x % 4];
  simt::vstore(y + first, make_float4(scale * sum[0], scale * sum[1], scale * sum[2], scale * sum[3]));
}
CASE(correct_filter) {
  const int n = 84;
  Array<float> x(n), y(n);
  for (int i = 0; i < n; ++i) x[i] = static_cast<float>(i % 7);
  const Filter filter{{1, 2, 3, 2, 1}, 5};
  cases::launch(filter_rows, 2, 16, 0, x.data(), y.data(), n, filter);
  for (int i = 0; i < n; ++i) {
    float sum = 0;
    for (int k = 0; k < 5; ++k) {
      if (i + k - 2 >= 0 && i + k - 2 < n) sum += filter.taps[k] * x[i + k - 2];
    }
    const float scale[] = {1, 2, 4, 8};
    if (y[i] != scale[i / 4 % 16 % 4] * sum) return false;
  }
  return true;
}

// A second launch reads what other blocks of the first one wrote.
__global__ void shift_blocks(const int* x, int* y) {
  const int n = blockDim.x * gridDim.x, i = blockIdx.x * blockDim.x + threadIdx.x;
  y[i] = x[(i + n / 2 + 3) % n] + 1;
}
CASE(correct_launches_in_a_row) {
  Array<int> x(128), y(128);
  for (int i = 0; i < 128; ++i) x[i] = i;
  for (int times = 0; times < 2; ++times) {
    cases::launch(shift_blocks, 4, 32, 0, x.data(), y.data());
    cases::launch(shift_blocks, 4, 32, 0, y.data(), x.data());
  }
  for (int i = 0; i < 128; ++i) {
    if (x[i] != (i + 4 * 67) % 128 + 4) return false;
  }
  return true;
}

// Dynamic shared memory used for one thing and, after a barrier, for another type; all three dimensions.
__global__ void reuse_dynamic(int* y) {
  SIMT_DYNAMIC_SHARED(float, floats);
  int* const ints = reinterpret_cast<int*>(floats);
  const int t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const int n = blockDim.x * blockDim.y * blockDim.z;
  const int b = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  floats[t] = static_cast<float>(t);
  __syncthreads();
  const float other = floats[n - 1 - t];
  __syncthreads();
  ints[(t + 1) % n] = static_cast<int>(other);
  __syncthreads();
  y[b * n + t] = ints[t];
}
CASE(correct_reuse_of_dynamic_shared) {
  const int n = 4 * 3 * 5, blocks = 2 * 2 * 3;
  Array<int> y(blocks * n);
  cases::launch(reuse_dynamic, dim3(2, 2, 3), dim3(4, 3, 5), n * sizeof(float), y.data());
  for (int i = 0; i < blocks * n; ++i) {
    if (y[i] != n - 1 - (i + n - 1) % n) return false;
  }
  return true;
}

}  // namespace

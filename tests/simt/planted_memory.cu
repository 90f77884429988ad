// Planted bugs: memory that is not there, not yet there, or at an address that hardware refuses.
#include "cases.h"

namespace {

using cases::Array;
namespace simt = gpucnn::simt;

constexpr int kThreads = 64;

// ---- global memory, off by one at both ends
// --------------------------------------------------------------------------

enum End { kBefore, kPast };

__global__ void shift(const float* x, float* y, int n, End end) {
  const int t = threadIdx.x;
  if (t < n) y[t] = x[end == kPast ? t + 1 : t - 1];  // @global.read
}
CASE(global_read_past_the_end) {
  Array<float> x(50), y(50);
  cases::launch(shift, 1, kThreads, 0, x.data(), y.data(), 50, kPast);
  return true;
}
CASE(global_read_before_the_start) {
  Array<float> x(50), y(50);
  cases::launch(shift, 1, kThreads, 0, x.data(), y.data(), 50, kBefore);
  return true;
}

__global__ void fill(float* y, int n, End end) {
  const int t = threadIdx.x;
  if (end == kPast ? t <= n : t < n) y[end == kPast ? t : t - 1] = 1.0f;  // @global.write
}
CASE(global_write_past_the_end) {
  Array<float> y(50);
  cases::launch(fill, 1, kThreads, 0, y.data(), 50, kPast);
  return true;
}
CASE(global_write_before_the_start) {
  Array<float> y(50);
  cases::launch(fill, 1, kThreads, 0, y.data(), 50, kBefore);
  return true;
}

// The last of the wide loads reaches beyond an array whose length 4 does not divide.
__global__ void wide_copy(const float* x, float* y, int n) {
  const int i = 4 * static_cast<int>(threadIdx.x);
  if (i < n) simt::vstore<float4>(y + i, simt::vload<float4>(x + i));  // @global.wide
}
CASE(global_wide_read_across_the_end) {
  Array<float> x(50), y(52);
  cases::launch(wide_copy, 1, kThreads, 0, x.data(), y.data(), 50);
  return true;
}

__global__ void copy_past(const float* x, float* y, int n) {
  SIMT_SHARED(float, tile, [4 * 32]);
  const int i = 4 * static_cast<int>(threadIdx.x);
  simt::cp_async<16>(tile + i, x + i);  // @global.copy
  simt::cp_async_wait_all();
  __syncthreads();
  if (i < n) y[i] = tile[i];
}
CASE(global_copy_past_the_end) {
  Array<float> x(64), y(64);
  cases::launch(copy_past, 1, 32, 0, x.data(), y.data(), 64);
  return true;
}

// ---- shared memory, off by one at both ends
// --------------------------------------------------------------------------

enum Which { kReadStatic, kWriteStatic, kReadDynamic, kWriteDynamic };

__global__ void shared_end(float* y, Which which, End end) {
  SIMT_SHARED(float, tile, [40]);
  SIMT_DYNAMIC_SHARED(float, buffer);
  const int t = threadIdx.x, n = 40;
  if (t < n) tile[t] = buffer[t] = 1.0f;
  __syncthreads();
  if (t >= n) return;
  const int i = end == kPast ? t + 1 : t - 1;
  if (which == kReadStatic) y[t] = tile[i];  // @shared.read_static
  if (which == kWriteStatic) {
    if (t == (end == kPast ? n - 1 : 0)) tile[i] = 2.0f;  // @shared.write_static
  }
  if (which == kReadDynamic) y[t] = buffer[i];  // @shared.read_dynamic
  if (which == kWriteDynamic) {
    if (t == (end == kPast ? n - 1 : 0)) buffer[i] = 2.0f;  // @shared.write_dynamic
  }
}
void run_shared_end(Which which, End end) {
  Array<float> y(kThreads);
  cases::launch(shared_end, 1, kThreads, 40 * sizeof(float), y.data(), which, end);
}
#define SHARED_CASE(name, which, end) \
  CASE(name) {                        \
    run_shared_end(which, end);       \
    return true;                      \
  }
SHARED_CASE(shared_read_past_the_end, kReadStatic, kPast)
SHARED_CASE(shared_read_before_the_start, kReadStatic, kBefore)
SHARED_CASE(shared_write_past_the_end, kWriteStatic, kPast)
SHARED_CASE(shared_write_before_the_start, kWriteStatic, kBefore)
SHARED_CASE(dynamic_shared_read_past_the_end, kReadDynamic, kPast)
SHARED_CASE(dynamic_shared_read_before_the_start, kReadDynamic, kBefore)
SHARED_CASE(dynamic_shared_write_past_the_end, kWriteDynamic, kPast)
SHARED_CASE(dynamic_shared_write_before_the_start, kWriteDynamic, kBefore)

// ---- shared memory that nobody has written
// ---------------------------------------------------------------------------

__global__ void read_unwritten(float* y) {
  SIMT_SHARED(float, tile, [kThreads]);
  const int t = threadIdx.x;
  if (t < kThreads - 1) tile[t] = 1.0f;
  __syncthreads();
  y[t] = tile[t];  // @uninitialised
}
CASE(uninitialised_shared_read) {
  Array<float> y(kThreads);
  cases::launch(read_unwritten, 1, kThreads, 0, y.data());
  return true;
}

__global__ void add_to_unwritten(int* y) {
  SIMT_SHARED(int, count, [1]);
  atomicAdd(&count[0], 1);  // @uninitialised_atomic
  __syncthreads();
  if (threadIdx.x == 0) y[0] = count[0];
}
CASE(uninitialised_shared_atomic) {
  Array<int> y(1);
  cases::launch(add_to_unwritten, 1, kThreads, 0, y.data());
  return true;
}

// The first block's values are not there for the second.
__global__ void write_in_one_block(float* y, unsigned writer) {
  SIMT_SHARED(float, kept, [1]);
  if (blockIdx.x == writer && threadIdx.x == 0) kept[0] = 1.0f;
  __syncthreads();
  if (threadIdx.x == 1) y[blockIdx.x] = kept[0];  // @uninitialised_block
}
CASE(shared_kept_from_the_block_before) {
  Array<float> y(3);
  cases::launch(write_in_one_block, 3, 32, 0, y.data(), 1u);
  return true;
}

// ---- cp.async
// ----------------------------------------------------------------------------------------------------------

// Two stages in flight, and the wait leaves too many of them.
template <int kPending>
__global__ void copy_in_stages(const float* x, float* y, int stages) {
  SIMT_SHARED(float, tile, [2][kThreads]);
  const int t = threadIdx.x;
  simt::cp_async<4>(&tile[0][t], x + t);  // @wait.first
  simt::cp_async_commit();
  for (int i = 0; i < stages; ++i) {
    if (i + 1 < stages) simt::cp_async<4>(&tile[(i + 1) % 2][t], x + (i + 1) * kThreads + t);  // @wait.copy
    simt::cp_async_commit();
    simt::cp_async_wait_group<kPending>();
    __syncthreads();
    y[i * kThreads + t] = tile[i % 2][kThreads - 1 - t];  // @wait.read
    __syncthreads();
  }
}
CASE(cp_async_wait_too_weak) {
  Array<float> x(4 * kThreads), y(4 * kThreads);
  cases::launch(copy_in_stages<2>, 1, kThreads, 0, x.data(), y.data(), 4);
  return y[0] == 0.0f;
}

__global__ void copy_without_commit(const float* x, float* y) {
  SIMT_SHARED(float, tile, [kThreads]);
  const int t = threadIdx.x;
  simt::cp_async<4>(&tile[t], x + t);  // @uncommitted.copy
  simt::cp_async_wait_group<0>();
  __syncthreads();
  y[t] = tile[t ^ 1];  // @uncommitted.read
}
CASE(cp_async_not_committed) {
  Array<float> x(kThreads), y(kThreads);
  cases::launch(copy_without_commit, 1, kThreads, 0, x.data(), y.data());
  return y[0] == 0.0f;
}

// Every thread waits for its own copies alone, and reads another one's.
__global__ void copy_without_barrier(const float* x, float* y) {
  SIMT_SHARED(float, tile, [kThreads]);
  const int t = threadIdx.x;
  simt::cp_async<4>(&tile[t], x + t);  // @own_wait.copy
  simt::cp_async_wait_all();
  y[t] = tile[kThreads - 1 - t];  // @own_wait.read
}
CASE(cp_async_without_barrier) {
  Array<float> x(kThreads), y(kThreads);
  cases::launch(copy_without_barrier, 1, kThreads, 0, x.data(), y.data());
  return true;
}

// ---- misaligned addresses
// ------------------------------------------------------------------------------------------------

enum Access { kWideLoad, kWideStore, kGuardedLoad, kCopy, kMatrix, kPlainPointer };

__global__ void misaligned(const float* x, float* y, Access access) {
  SIMT_SHARED(float, tile, [4 * 32 + 4]);
  const int t = threadIdx.x;
  for (int i = t; i < 4 * 32 + 4; i += 32) tile[i] = 0.0f;
  __syncthreads();
  if (access == kWideLoad) y[t] = simt::vload<float4>(x + 4 * t + 1).x;              // @misaligned.vload
  if (access == kWideStore) simt::vstore<float2>(y + 2 * t + 1, make_float2(1, 2));  // @misaligned.vstore
  if (access == kGuardedLoad) {
    const auto pair = reinterpret_cast<const float2*>(x + 1);
    y[t] = simt::load_if(t % 2 == 0, pair + t).x;  // @misaligned.load_if
  }
  if (access == kCopy) simt::cp_async<8>(tile + 2 * t + 1, x + 2 * t);  // @misaligned.cp_async
  if (access == kMatrix) {
    std::uint32_t r[4];
    simt::ldmatrix_x4(r, tile + 4 * t + 1);  // @misaligned.ldmatrix
    y[t] = static_cast<float>(r[0]);
  }
  if (access == kPlainPointer) y[t] = reinterpret_cast<const float4*>(x + 1)[t].y;  // @misaligned.plain
}
void run_misaligned(Access access) {
  Array<float> x(256), y(256);
  cases::launch(misaligned, 1, 32, 0, x.data(), y.data(), access);
}
#define MISALIGNED_CASE(name, access) \
  CASE(name) {                        \
    run_misaligned(access);           \
    return true;                      \
  }
MISALIGNED_CASE(misaligned_vload, kWideLoad)
MISALIGNED_CASE(misaligned_vstore, kWideStore)
MISALIGNED_CASE(misaligned_load_if, kGuardedLoad)
MISALIGNED_CASE(misaligned_cp_async, kCopy)
MISALIGNED_CASE(misaligned_ldmatrix, kMatrix)
MISALIGNED_CASE(misaligned_plain_pointer, kPlainPointer)

// ---- a thread's own memory and arithmetic: what the memory checker and its companion see in any C++ program --------

__global__ void own_array(float* y, int n) {
  float own[8];
  for (int i = 0; i < n; ++i) own[i] = static_cast<float>(i);  // @own_array
  y[threadIdx.x] = own[threadIdx.x % 8];
}
CASE(local_array_past_the_end) {
  Array<float> y(32);
  cases::launch(own_array, 1, 32, 0, y.data(), 9);
  return true;
}

__device__ __attribute__((noinline)) void write_through(float* p, int i) {
  p[i] = 1.0f;  // @own_pointer
}
__global__ void own_array_by_pointer(float* y, int n) {
  float own[8] = {};
  __syncthreads();
  for (int i = 0; i < n; ++i) write_through(own, i);
  y[threadIdx.x] = own[threadIdx.x % 8];
}
CASE(local_pointer_past_the_end) {
  Array<float> y(32);
  cases::launch(own_array_by_pointer, 1, 32, 0, y.data(), 9);
  return true;
}

__global__ void overflow(int* y, int large) {
  y[threadIdx.x] = large * static_cast<int>(threadIdx.x);  // @overflow
}
CASE(signed_overflow) {
  Array<int> y(32);
  cases::launch(overflow, 1, 32, 0, y.data(), 1 << 30);
  return true;
}

}  // namespace

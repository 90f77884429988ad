// cp.async as a sequence of steps, ldmatrix, mma.sync and 16-bit floats, each driven by arrays from Python.
#include "runtime.h"
#include "simt/store_shared.h"

namespace {

// A step is {what, argument, bytes}: 0 copies (16 bytes to and from place `argument`), 1 commits, 2 waits for all but
// `argument` groups, 3 waits for everything. After each, what thread 0's shared memory holds goes to `seen`.
constexpr int kPlaces = 8;
__global__ void copies_kernel(const int* steps, int count, const unsigned* source, unsigned* seen) {
  SIMT_DYNAMIC_SHARED(uint4, all);
  unsigned* const mine = reinterpret_cast<unsigned*>(all + kPlaces * linear_thread());
  for (int i = 0; i < 4 * kPlaces; ++i) mine[i] = 7;
  for (int s = 0; s < count; ++s) {
    const int what = steps[3 * s], argument = steps[3 * s + 1], bytes = steps[3 * s + 2];
    const unsigned* const from = source + 4 * argument;
    unsigned* const to = mine + 4 * argument;
    if (what == 0 && bytes == 16) simt::cp_async<16>(to, from);
    if (what == 0 && bytes == 8) simt::cp_async<8>(to, from);
    if (what == 0 && bytes == 4) simt::cp_async<4>(to, from);
    if (what == 0 && bytes == 0) simt::cp_async<16>(to, nullptr, false);
    if (what == 1) simt::cp_async_commit();
    if (what == 2 && argument == 0) simt::cp_async_wait_group<0>();
    if (what == 2 && argument == 1) simt::cp_async_wait_group<1>();
    if (what == 2 && argument == 2) simt::cp_async_wait_group<2>();
    if (what == 3) simt::cp_async_wait_all();
    __syncthreads();  // every thread does the same in its own place
    for (int i = 0; i < 4 * kPlaces; ++i) seen[(linear_thread() * count + s) * 4 * kPlaces + i] = mine[i];
  }
}

template <int kMatrices, bool kTransposed>
__global__ void ldmatrix_kernel(const std::uint16_t* elements, const int* rows, std::uint32_t* fragments) {
  SIMT_SHARED(std::uint16_t, tile, [64 * 8]);
  const int t = linear_thread();
  for (int i = t; i < 64 * 8; i += 32) tile[i] = elements[i];
  __syncthreads();
  std::uint32_t r[kMatrices];
  const std::uint16_t* const row = tile + 8 * rows[t];
  if constexpr (kMatrices == 1) kTransposed ? simt::ldmatrix_x1_trans(r, row) : simt::ldmatrix_x1(r, row);
  if constexpr (kMatrices == 2) kTransposed ? simt::ldmatrix_x2_trans(r, row) : simt::ldmatrix_x2(r, row);
  if constexpr (kMatrices == 4) kTransposed ? simt::ldmatrix_x4_trans(r, row) : simt::ldmatrix_x4(r, row);
  for (int i = 0; i < kMatrices; ++i) fragments[t * kMatrices + i] = r[i];
}

// Two warps, so that what one does is seen not to touch the other.
template <int kType>
__global__ void mma_kernel(const std::uint32_t* a, const std::uint32_t* b, float* d) {
  const int t = linear_thread();
  std::uint32_t fa[4], fb[2];
  float fd[4];
  for (int i = 0; i < 4; ++i) fa[i] = a[4 * t + i];
  for (int i = 0; i < 2; ++i) fb[i] = b[2 * t + i];
  for (int i = 0; i < 4; ++i) fd[i] = d[4 * t + i];
  if constexpr (kType == 0) simt::mma_m16n8k16_bf16(fd, fa, fb);
  if constexpr (kType == 1) simt::mma_m16n8k16_fp16(fd, fa, fb);
  if constexpr (kType == 2) simt::mma_m16n8k8_tf32(fd, fa, fb);
  for (int i = 0; i < 4; ++i) d[4 * t + i] = fd[i];
}

template <typename Word>
__global__ void store_global_kernel(const Word* x, Word* y) {
  simt::store_global(y + linear_thread(), x[linear_thread()]);
}

// Each lane's word goes `apart` bytes after the one before.
__global__ void store_shared_kernel(const uint4* x, uint4* y, int apart) {
  SIMT_SHARED(uint4, words, [33]);
  simt::store_shared(reinterpret_cast<char*>(words) + linear_thread() * apart, x[linear_thread()]);
  __syncthreads();
  y[linear_thread()] = words[linear_thread()];
}

__global__ void anew_kernel(const unsigned* x, unsigned* y) {
  y[linear_thread()] = simt::anew(x[linear_thread()]);
}

template <typename T>
__global__ void from_float_kernel(const float* x, T* y, int n) {
  for (int i = linear_thread(); i < n; i += static_cast<int>(blockDim.x)) y[i] = simt::from_float<T>(x[i]);
}
template <typename T>
__global__ void to_float_kernel(const T* x, float* y, int n) {
  for (int i = linear_thread(); i < n; i += static_cast<int>(blockDim.x)) y[i] = simt::to_float(x[i]);
}

}  // namespace

TEST_FUNCTION copies(const int* steps, int count, const unsigned* source, unsigned* seen, int eager) {
  simt::set_eager_copies(eager != 0);
  const char* const fault = fault_of(copies_kernel, dim3(1), dim3(3), 3 * kPlaces * 16, steps, count, source, seen);
  simt::set_eager_copies(false);
  return fault;
}
TEST_FUNCTION store_global(int bytes, const void* x, void* y) {
  const dim3 one(1), warp(32);
  if (bytes == 16) {
    return fault_of(store_global_kernel<uint4>, one, warp, 0, static_cast<const uint4*>(x), static_cast<uint4*>(y));
  }
  return fault_of(store_global_kernel<uint2>, one, warp, 0, static_cast<const uint2*>(x), static_cast<uint2*>(y));
}
TEST_FUNCTION store_shared(const uint4* x, uint4* y, int apart) {
  return fault_of(store_shared_kernel, dim3(1), dim3(32), 0, x, y, apart);
}
TEST_FUNCTION anew(const unsigned* x, unsigned* y) {
  return fault_of(anew_kernel, dim3(1), dim3(32), 0, x, y);
}
TEST_FUNCTION ldmatrix(int matrices, int transposed, const std::uint16_t* elements, const int* rows,
                       std::uint32_t* fragments) {
  const dim3 one(1), warp(32);
  if (transposed) {
    if (matrices == 1) return fault_of(ldmatrix_kernel<1, true>, one, warp, 0, elements, rows, fragments);
    if (matrices == 2) return fault_of(ldmatrix_kernel<2, true>, one, warp, 0, elements, rows, fragments);
    return fault_of(ldmatrix_kernel<4, true>, one, warp, 0, elements, rows, fragments);
  }
  if (matrices == 1) return fault_of(ldmatrix_kernel<1, false>, one, warp, 0, elements, rows, fragments);
  if (matrices == 2) return fault_of(ldmatrix_kernel<2, false>, one, warp, 0, elements, rows, fragments);
  return fault_of(ldmatrix_kernel<4, false>, one, warp, 0, elements, rows, fragments);
}
TEST_FUNCTION mma(int type, const std::uint32_t* a, const std::uint32_t* b, float* d) {
  if (type == 0) return fault_of(mma_kernel<0>, dim3(1), dim3(64), 0, a, b, d);
  if (type == 1) return fault_of(mma_kernel<1>, dim3(1), dim3(64), 0, a, b, d);
  return fault_of(mma_kernel<2>, dim3(1), dim3(64), 0, a, b, d);
}
TEST_FUNCTION to_half(const float* x, simt::half* y, int n) {
  return fault_of(from_float_kernel<simt::half>, dim3(1), dim3(4), 0, x, y, n);
}
TEST_FUNCTION to_bfloat16(const float* x, simt::bfloat16* y, int n) {
  return fault_of(from_float_kernel<simt::bfloat16>, dim3(1), dim3(4), 0, x, y, n);
}
TEST_FUNCTION from_half(const simt::half* x, float* y, int n) {
  return fault_of(to_float_kernel<simt::half>, dim3(1), dim3(4), 0, x, y, n);
}
TEST_FUNCTION from_bfloat16(const simt::bfloat16* x, float* y, int n) {
  return fault_of(to_float_kernel<simt::bfloat16>, dim3(1), dim3(4), 0, x, y, n);
}

// The instructions of ptx.h for a host compiler. Kernels' reads and writes of memory happen here, in the kernel's own
// file, where its instrumentation sees them; what is computed from them is in models.cpp.
#pragma once

#include <cstdint>

namespace gpucnn::simt {

namespace detail {

void issue_copy(void* shared, const void* global, int bytes, Site site);  // global null: zeros
void commit_copies();
void finish_copies(int pending_groups);
void finish_all_copies();

extern const WarpOperation kLoadMatrix1, kLoadMatrix2, kLoadMatrix4;
extern const WarpOperation kLoadMatrix1Transposed, kLoadMatrix2Transposed, kLoadMatrix4Transposed;
extern const WarpOperation kMmaBfloat16, kMmaHalf, kMmaTf32;

// Whether this lane's row counts: that of the first 8, 16 or all 32. If so it has to be aligned and in shared memory.
bool takes_row(const WarpOperation& operation, int matrices, const void* row, Site site);
uint4 load_matrices(const WarpOperation& operation, uint4 row, Site site);  // as many words as matrices
float4 multiply(const WarpOperation& operation, float4 d, uint4 a, uint2 b, Site site);

void check_shared(const char* what, const void* p, int bytes, Site site);  // that it lies in the block's arrays

template <int kMatrices>
__forceinline__ void ldmatrix(const WarpOperation& operation, std::uint32_t (&r)[kMatrices], const void* row,
                              Site site) {
  const bool takes = takes_row(operation, kMatrices, row, site);
  const uint4 mine = read_if(takes, "ldmatrix", row, uint4{}, Purpose::matrix_row, site);
  const uint4 loaded = load_matrices(operation, mine, site);
  const std::uint32_t words[] = {loaded.x, loaded.y, loaded.z, loaded.w};
  for (int i = 0; i < kMatrices; ++i) r[i] = words[i];
}

__forceinline__ void mma(const WarpOperation& operation, float (&d)[4], const std::uint32_t (&a)[4],
                         const std::uint32_t (&b)[2], Site site) {
  const float4 sum = multiply(operation, {d[0], d[1], d[2], d[3]}, {a[0], a[1], a[2], a[3]}, {b[0], b[1]}, site);
  d[0] = sum.x, d[1] = sum.y, d[2] = sum.z, d[3] = sum.w;
}

// What a copy's destination holds until it is waited for: NaN in every floating-point type.
template <int kBytes>
struct Unfinished;
template <>
struct Unfinished<4> {
  unsigned bits = ~0u;
};
template <>
struct alignas(8) Unfinished<8> {
  unsigned bits[2] = {~0u, ~0u};
};
template <>
struct alignas(16) Unfinished<16> {
  unsigned bits[4] = {~0u, ~0u, ~0u, ~0u};
};

// What happens at the issue of a copy: both addresses are checked, and seen by the instrumentation with the kernel's
// line. The bytes that are copied are read at the end.
template <int kBytes>
__forceinline__ void begin_copy(void* shared, const void* global, bool valid, Site site) {
#if defined(GPUCNN_SIMT_PROFILE)
  announce(valid ? global : nullptr, kBytes, Purpose::copy_load, "cp_async", site);
  check_shared("cp_async", shared, kBytes, site);
  write("cp_async", shared, Unfinished<kBytes>{}, Purpose::copy_store, site);
#else
  if (reinterpret_cast<std::uintptr_t>(shared) % kBytes != 0) misaligned("cp_async", shared, kBytes, site);
  if (valid && reinterpret_cast<std::uintptr_t>(global) % kBytes != 0) misaligned("cp_async", global, kBytes, site);
  check_shared("cp_async", shared, kBytes, site);
  if (valid) {
    for (int i = 0; i < kBytes / 4; ++i) static_cast<void>(static_cast<const volatile unsigned*>(global)[i]);
  }
  *static_cast<Unfinished<kBytes>*>(shared) = {};
#endif
}

}  // namespace detail

template <typename Word>
__forceinline__ void store_global(void* p, const Word& word, Site site = Site::here()) {
  vstore(p, word, site);
}

__forceinline__ unsigned anew(unsigned number) {
  return number;
}

__forceinline__ std::uint32_t pack_bfloat16(float low, float high) {
  return from_float<bfloat16>(low).bits | static_cast<std::uint32_t>(from_float<bfloat16>(high).bits) << 16;
}

__forceinline__ std::uint32_t to_tf32(float value) {
  const std::uint32_t bits = __float_as_uint(value);
  const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
  return (finite ? bits + 0x1000u : bits) & 0xffffe000u;
}

template <int kBytes>
__forceinline__ void cp_async(void* shared, const void* global, bool valid = true, Site site = Site::here()) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "cp.async copies 4, 8 or 16 bytes");
  detail::begin_copy<kBytes>(shared, global, valid, site);
  detail::issue_copy(shared, valid ? global : nullptr, kBytes, site);
}
__forceinline__ void cp_async_commit() {
  detail::commit_copies();
}
template <int kPending>
__forceinline__ void cp_async_wait_group() {
  static_assert(kPending >= 0, "a number of groups");
  detail::finish_copies(kPending);
}
__forceinline__ void cp_async_wait_all() {
  detail::finish_all_copies();
}

#define GPUCNN_SIMT_LDMATRIX(function, matrices, operation)                                                \
  __forceinline__ void function(std::uint32_t (&r)[matrices], const void* row, Site site = Site::here()) { \
    detail::ldmatrix<matrices>(detail::operation, r, row, site);                                           \
  }
GPUCNN_SIMT_LDMATRIX(ldmatrix_x1, 1, kLoadMatrix1)
GPUCNN_SIMT_LDMATRIX(ldmatrix_x2, 2, kLoadMatrix2)
GPUCNN_SIMT_LDMATRIX(ldmatrix_x4, 4, kLoadMatrix4)
GPUCNN_SIMT_LDMATRIX(ldmatrix_x1_trans, 1, kLoadMatrix1Transposed)
GPUCNN_SIMT_LDMATRIX(ldmatrix_x2_trans, 2, kLoadMatrix2Transposed)
GPUCNN_SIMT_LDMATRIX(ldmatrix_x4_trans, 4, kLoadMatrix4Transposed)
#undef GPUCNN_SIMT_LDMATRIX

#define GPUCNN_SIMT_MMA(function, operation)                                                             \
  __forceinline__ void function(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], \
                                Site site = Site::here()) {                                              \
    detail::mma(detail::operation, d, a, b, site);                                                       \
  }
GPUCNN_SIMT_MMA(mma_m16n8k16_bf16, kMmaBfloat16)
GPUCNN_SIMT_MMA(mma_m16n8k16_fp16, kMmaHalf)
GPUCNN_SIMT_MMA(mma_m16n8k8_tf32, kMmaTf32)
#undef GPUCNN_SIMT_MMA

}  // namespace gpucnn::simt

// Products of matrices: the menu of its launchers. 1x1 convolutions and linear layers are these; kernels in matmul.cu.
//
// Pointers are C-contiguous memory of the device (of the process, in a simt module) of T: float, simt::half or
// simt::bfloat16; sums are float32, rounded once. Launchers return what the launch said. Any size may be 0; each is
// below 2^38, and so is any product of two that is an array's.
//
//   x, dx (M,K)   w, dw (N,K)   y, dy (M,N)   bias (N,)
//
// `configuration` is a number of configurations.h, or kAny. Addresses that are multiples of 16 and sizes along memory
// that are multiples of a pack (4, or 8 of 16 bits) take the wide path; other ones the narrow one, in one
// configuration. Same inputs, same bits; y's and dx's rows have the same bits in any M, configuration and path.
#pragma once

#include "gemm/configurations.h"
#include "simt/float16.h"
#include "simt/status.h"

#include <cstdint>

namespace gpucnn::gemm {

struct Sizes {
  std::int64_t M, N, K;
};

// y = x * transposed(w) + bias, where bias may be null; at least 0 with `relu`.
template <typename T>
[[nodiscard]] simt::Status matmul_nt(const Sizes& s, const T* x, const T* w, const T* bias, bool relu, T* y,
                                     simt::Stream stream, int configuration = kAny);

// dx = dy * w.
template <typename T>
[[nodiscard]] simt::Status matmul_nn(const Sizes& s, const T* dy, const T* w, T* dx, simt::Stream stream,
                                     int configuration = kAny);

// dw = transposed(dy) * x. The sum over M is cut into `parts`, which are then added in order.
// partial: float32 (parts,N,K), at most 64 MiB; null where there is one part.
template <typename T>
[[nodiscard]] simt::Status matmul_tn(const Sizes& s, const T* x, const T* dy, T* dw, float* partial,
                                     simt::Stream stream, int configuration = kAny);
[[nodiscard]] std::int64_t matmul_tn_parts(const Sizes& s, int configuration = kAny);

}  // namespace gpucnn::gemm

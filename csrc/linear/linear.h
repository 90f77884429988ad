// Fully connected layers and products of batches of matrices, where csrc/gemm's plain products do not do: the menu of
// its launchers.
//
// Pointers are C-contiguous memory of the device (of the process, in a simt module) of T: float, simt::half or
// simt::bfloat16; sums are float32, rounded once. Launchers return what the launch said. Same inputs, same bits.
//
//   x, dx (M,K)   w (N,K)   y, dy (M,N)   bias, db (N,)
#pragma once

#include "common/index.h"
#include "gemm/gemm.h"
#include "simt/float16.h"
#include "simt/status.h"

#include <cstdint>

namespace gpucnn {

// ------------------------------------------------------------- split: few rows, whose sums are cut into parts in depth
//
// Of sums over `depth` (K forward, N backward), `width` a row (N forward, K backward). A row has the same bits in any
// M. partial: float32 (parts, M, width).

[[nodiscard]] std::int64_t linear_split_parts(std::int64_t width, std::int64_t depth);

// y = x * transposed(w) + bias, where bias may be null; at least 0 with `relu`.
template <typename T>
[[nodiscard]] simt::Status linear_split_fprop(const gemm::Sizes& s, const T* x, const T* w, const T* bias, bool relu,
                                              T* y, float* partial, simt::Stream stream);

// dx = dy * w.
template <typename T>
[[nodiscard]] simt::Status linear_split_dgrad(const gemm::Sizes& s, const T* dy, const T* w, T* dx, float* partial,
                                              simt::Stream stream);

// -------------------------------------------------------------------------------------------- sums over a matrix's
// rows

// sums[n] = sum over m of x[m][n].   x (rows, columns), sums (columns,); partial: float32 (parts, columns), less than 4
// MiB, or null where there is one part.
template <typename T>
[[nodiscard]] simt::Status column_sums(std::int64_t rows, std::int64_t columns, const T* x, T* sums, float* partial,
                                       simt::Stream stream);
[[nodiscard]] std::int64_t column_sums_parts(std::int64_t rows, std::int64_t columns);

// ------------------------------------------------------------------------------------------------- batches of products

inline constexpr int kBatchAxes = 4;

// The matrices of a batch: number i, as digits of `sizes`, the last of which is the fastest, times the operands' steps.
struct Batch {
  std::int64_t matrices;
  Divisor sizes[kBatchAxes];         // 1 where there are fewer axes
  std::int64_t a_steps[kBatchAxes];  // in elements; 0 where a matrix serves many
  std::int64_t b_steps[kBatchAxes];
};

// y[i] = a[i] * b[i] for all matrices of a batch.   y (matrices,M,N); a's matrices are (M,K) in memory, or (K,M) where
// transposed_a; b's (K,N), or (N,K) where transposed_b. Throws std::invalid_argument where that takes 2^31 blocks.
template <typename T>
[[nodiscard]] simt::Status matmul_batched(const gemm::Sizes& s, const Batch& batch, const T* a, bool transposed_a,
                                          const T* b, bool transposed_b, T* y, simt::Stream stream);

}  // namespace gpucnn

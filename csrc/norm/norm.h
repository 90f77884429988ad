// Batch, instance and group norm over arrays (B,M,C); layer and local response norm are in row_norm/. The menu of the
// launchers.
//
// Pointers are C-contiguous memory of the machine that the kernels are built for; T is float, half or bfloat16, and
// what belongs to channels is float, or double where it is a mean. Outputs share no memory with inputs.
#pragma once

#include "simt/status.h"

#include <cstdint>

namespace gpucnn {

// B sets of M positions with C channels each; a statistic is that of a set and of C / groups adjacent channels. Batch
// norm has one set, of all images; instance and group norm have a set an image.
struct NormProblem {
  std::int64_t B, M, C, groups;
  float eps;
  bool own;        // normalise by the sets' own statistics, not by running ones, of which there is one set
  float momentum;  // share of the own ones in the new running ones
  bool cut;        // to [0, limit], behind the normalisation: limit inf makes a ReLU, 6 a ReLU6
  float limit;

  bool empty() const { return B == 0 || M == 0 || C == 0; }
};

// 1. Partial statistics of x: for each channel of each split of a set, of the differences from the set's first row,
// mean and sum of squared differences from that mean.
// x (B,M,C), partial (B, 2 * splits + 1, C): mean and squares of split 0, of split 1, ..., the first row.
template <typename T>
[[nodiscard]] simt::Status norm_moments(const NormProblem& p, const T* x, float* partial, simt::Stream stream);

// Splits of norm_moments and norm_gradient_sums: of M and C alone, so that an image's bits don't depend on the batch.
[[nodiscard]] std::int64_t norm_splits(const NormProblem& p, int bytes_of_element);

// Of the partial statistics of a batch norm that something else has taken, in `splits` of `rows_of_split` positions,
// the last of those that are left: taken (2 * splits + 1, C) as partial (2 * norm_condensed_splits(splits) + 1, C),
// whose splits are the quotient's neighbours together. Fewer than 529 are enough, and stay as many.
[[nodiscard]] simt::Status norm_condense(const NormProblem& p, std::int64_t splits, std::int64_t rows_of_split,
                                         const float* taken, float* partial, simt::Stream stream);
[[nodiscard]] std::int64_t norm_condensed_splits(std::int64_t splits);

// Blocks of the largest launch, which must be fewer than 2^31.
[[nodiscard]] std::int64_t norm_blocks(const NormProblem& p);

// What statistics become: coefficients of y = (x - coefficients[0]) * coefficients[1] + coefficients[2].
struct NormParameters {
  const float* weight;  // (C,) or null for 1
  const float* bias;    // (C,) or null for 0
  float* running_mean;  // (C,) or null; both or neither
  float* running_var;
};

// 2. Mean and 1 / deviation (B,C) each from the partial statistics of `splits` of `rows_of_split` positions, the last
// of those that are left, and with own statistics the running ones moved, in place; or from the running ones. partial
// (B, 2 * splits + 1, C); `work` of the same size, which may be the same memory, is written to unless the problem is a
// batch norm; coefficients (3,B,C).
[[nodiscard]] simt::Status norm_statistics(const NormProblem& p, std::int64_t splits, std::int64_t rows_of_split,
                                           const float* partial, float* work, const NormParameters& of, double* mean,
                                           double* inverse, float* coefficients, simt::Stream stream);

// 3. y = (x - coefficients[0]) * coefficients[1] + coefficients[2] + residual, cut as the problem says; residual
// (B,M,C) or null.
template <typename T>
[[nodiscard]] simt::Status norm_scale_shift(const NormProblem& p, const T* x, const T* residual,
                                            const float* coefficients, T* y, simt::Stream stream);

// 4. Partial sums of the gradient: of what of dy gets through the cut, g, and of g * (x - mean rounded to float).
// dy, x, y, passed (B,M,C), mean (B,C), partial (B, 2 * splits, C). x null: the second sums are 0. y is read where the
// problem cuts; passed, where g is written, may be null.
template <typename T>
[[nodiscard]] simt::Status norm_gradient_sums(const NormProblem& p, const T* dy, const T* x, const T* y,
                                              const double* mean, T* passed, float* partial, simt::Stream stream);

// 5. From the partial sums of `splits` (0: none were taken): dweight and dbias (C,), each or null; and coefficients
// (4,B,C) of dx = g * coefficients[0] + (x - coefficients[1]) * coefficients[2] + coefficients[3]. partial is written
// over; weight (C,) or null for 1.
[[nodiscard]] simt::Status norm_gradient_coefficients(const NormProblem& p, std::int64_t splits, float* partial,
                                                      const float* weight, const double* mean, const double* inverse,
                                                      float* coefficients, float* dweight, float* dbias,
                                                      simt::Stream stream);

// 6. dx as in 5, and g to `passed`; either may be null. x null: dx = g * coefficients[0]. y null: dy is g.
template <typename T>
[[nodiscard]] simt::Status norm_dgrad(const NormProblem& p, const T* dy, const T* x, const T* y,
                                      const float* coefficients, T* dx, T* passed, simt::Stream stream);

}  // namespace gpucnn

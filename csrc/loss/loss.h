// Cross-entropies of rows (M,C) with class indices or class probabilities: the menu of launchers.
//
// Pointers are C-contiguous memory of the machine that the kernels are built for. T: float, simt::half, simt::bfloat16.
// The formulas are in gpucnn/reference/loss.py.
#pragma once

#include "simt/float16.h"
#include "simt/status.h"

#include <cstdint>

namespace gpucnn {

enum class Reduction { none, mean, sum };

struct CrossEntropy {
  std::int64_t rows;          // M, [0, 2^38)
  std::int64_t classes;       // C, [0, 2^31)
  std::int64_t ignore_index;  // rows with this label take no part
  float label_smoothing;      // [0, 1]
  Reduction reduction;
};

// What the loss of a row needs.
template <typename T>
struct Rows {
  const T* scores;              // (M,C): logits, or log-probabilities for nll_loss
  const std::int64_t* targets;  // (M,) class indices; or null, and
  const T* probabilities;       // (M,C)
  const T* weight;              // (C,) factor of each class; may be null
};

// loss () or, unreduced, (M,).   statistics (2,M): each row's maximum and log of its sum of exp(logit - maximum); with
// probabilities (3,M): their mass too.   total (): what a mean divides by; sums of the kind that is reduced take
// memory (kSummingWords of common/shares.h), which must be 0 before.   flag: of common/flag.h, may be null; a reduced
// loss that is not finite is noted there if check_loss, a label outside [0, C) always.
template <typename T>
[[nodiscard]] simt::Status cross_entropy_fprop(const CrossEntropy& p, const Rows<T>& rows, T* loss, float* statistics,
                                               float* total, unsigned* memory, std::int64_t* flag, bool check_loss,
                                               simt::Stream stream);

// The gradient (M,C) with respect to the logits, or to the probabilities, given dy () or (M,).
template <typename T>
[[nodiscard]] simt::Status cross_entropy_dgrad(const CrossEntropy& p, const Rows<T>& rows, const T* dy,
                                               const float* statistics, const float* total, T* gradient,
                                               bool by_probabilities, simt::Stream stream);

// As cross_entropy_fprop, of -scores[target]; no label smoothing, no probabilities.
template <typename T>
[[nodiscard]] simt::Status nll_loss_fprop(const CrossEntropy& p, const Rows<T>& rows, T* loss, float* total,
                                          unsigned* memory, std::int64_t* flag, bool check_loss, simt::Stream stream);

// The gradient (M,C) with respect to the log-probabilities, of which rows.scores may be null.
template <typename T>
[[nodiscard]] simt::Status nll_loss_dgrad(const CrossEntropy& p, const Rows<T>& rows, const T* dy, const float* total,
                                          T* gradient, simt::Stream stream);

}  // namespace gpucnn

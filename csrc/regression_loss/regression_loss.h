// Losses between an input and a target of one shape, element by element: the menu of launchers.
//
// Pointers are flat memory of the machine that the kernels are built for, all arrays in one order. T: float,
// simt::half, simt::bfloat16. The formulas are in formulas.h.
#pragma once

#include "simt/float16.h"
#include "simt/status.h"

#include <cstdint>

namespace gpucnn {

enum class Loss { mse, l1, huber, bce, bce_with_logits, kl_div, kl_div_log };

template <typename T>
struct LossOperands {
  const T* x;            // input
  const T* t;            // target
  const T* w;            // factor of the positive part, for bce_with_logits; may be null
  std::int64_t count;    // of x and t, [0, 2^38)
  std::int64_t w_count;  // of w, which is repeated: element i has factor w[i % w_count]
  float delta, scale;    // of huber
  float divisor;         // of the sum
};

// loss[i], or with `reduce` loss[0] = sum / divisor, for which memory (kSummingWords of common/shares.h) must be 0
// before. flag: of common/flag.h, may be null; a reduced loss that is not finite is noted there if check_loss, and for
// bce an x or t outside [0, 1].
template <typename T>
[[nodiscard]] simt::Status regression_loss_fprop(Loss kind, const LossOperands<T>& operands, bool reduce, T* loss,
                                                 unsigned* memory, std::int64_t* flag, bool check_loss,
                                                 simt::Stream stream);

// The gradient with respect to x, or to t: slope * dy / divisor.   dy: as many elements, or one.
template <typename T>
[[nodiscard]] simt::Status regression_loss_dgrad(Loss kind, const LossOperands<T>& operands, const T* dy,
                                                 bool dy_is_one, bool by_target, T* gradient, simt::Stream stream);

}  // namespace gpucnn

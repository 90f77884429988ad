// 2-D pooling to a given size: the menu of its launchers.
//
// Output p sees the rows floor(p * H / P) up to, not including, ceil((p + 1) * H / P), and columns likewise.
//
// Pointers are C-contiguous memory of the device (of the process, in a simt module); launchers return what the launch
// said. Problems must have been through check(). T is float, half or bfloat16; what is added up is float32.
//
//   x, dx (N,H,W,C) T   y, dy (N,P,Q,C) T   indices (N,P,Q,C) int64, h * W + w
#pragma once

#include "common/problem.h"
#include "simt/float16.h"
#include "simt/status.h"

#include <cstdint>

namespace gpucnn {

// N, C, P and Q may be 0.
struct AdaptivePool2dProblem {
  std::int64_t N, H, W, C, P, Q;
};

// Throws std::invalid_argument for a problem that no kernel could be trusted with.
inline void check(const char* op, const AdaptivePool2dProblem& p) {
  detail::require_range(op, {{"N", p.N}, {"C", p.C}, {"P", p.P}, {"Q", p.Q}}, 0);
  detail::require_range(op, {{"H", p.H}, {"W", p.W}}, 1);
  detail::require_countable(op, "the input (N,H,W,C)", {p.N, p.H, p.W, p.C});
  detail::require_countable(op, "the output (N,P,Q,C)", {p.N, p.P, p.Q, p.C});
}

// y: each window's average.
template <typename T>
[[nodiscard]] simt::Status adaptive_avg_pool2d_fprop(const AdaptivePool2dProblem& p, const T* x, T* y,
                                                     simt::Stream stream);

// dx: each window's gradient over the number of its cells, given to all of them.
template <typename T>
[[nodiscard]] simt::Status adaptive_avg_pool2d_dgrad(const AdaptivePool2dProblem& p, const T* dy, T* dx,
                                                     simt::Stream stream);

// y: each window's maximum; indices: where it lies. Of equal maxima the first; a NaN is larger than any number, and of
// several the last.
template <typename T>
[[nodiscard]] simt::Status adaptive_max_pool2d_fprop(const AdaptivePool2dProblem& p, const T* x, T* y,
                                                     std::int64_t* indices, simt::Stream stream);

// dx: each cell's sum of the gradients of the windows whose index it is.
template <typename T>
[[nodiscard]] simt::Status adaptive_max_pool2d_dgrad(const AdaptivePool2dProblem& p, const T* dy,
                                                     const std::int64_t* indices, T* dx, simt::Stream stream);

}  // namespace gpucnn

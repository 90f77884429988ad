// Maximum unpooling: the menu of its launchers.
//
// Pointers are C-contiguous memory of the device (of the process, in a simt module); launchers return what the launch
// said. Problems must have been through check(). Values are moved and none is changed: T is the unsigned integer of
// their size, 16 or 32 bits.
//
//   x, dx, indices (N,P,Q,C)   y, dy (N,H,W,C)   an index is a position h * W + w
#pragma once

#include "common/problem.h"
#include "simt/status.h"

#include <cstdint>

namespace gpucnn {

struct Unpool2dProblem {
  std::int64_t N, P, Q, C, H, W;
};

// Throws std::invalid_argument for a problem that no kernel could be trusted with.
inline void check(const char* op, const Unpool2dProblem& p) {
  detail::require_range(op, {{"N", p.N}}, 0);
  detail::require_range(op, {{"P", p.P}, {"Q", p.Q}, {"C", p.C}, {"H", p.H}, {"W", p.W}}, 1);
  detail::require_countable(op, "the input (N,P,Q,C)", {p.N, p.P, p.Q, p.C});
  detail::require_countable(op, "the output (N,H,W,C)", {p.N, p.H, p.W, p.C});
  if (p.P * p.Q >= kMostCells) detail::refuse(op, "P*Q must be below 2^31 - 1, so that an int numbers the values");
}

// y: x at its indices, 0 elsewhere; of several values the last, by p, then q. An index outside the image is passed
// over.   numbers (N,H,W,C): scratch memory, which may be y itself where T has 32 bits.   flag: of common/flag.h, may
// be null: where it is noted.
template <typename T>
[[nodiscard]] simt::Status max_unpool2d_fprop(const Unpool2dProblem& p, const T* x, const std::int64_t* indices,
                                              std::int32_t* numbers, T* y, std::int64_t* flag, simt::Stream stream);

// dx: dy at the indices; 0 for an index outside the image.
template <typename T>
[[nodiscard]] simt::Status max_unpool2d_dgrad(const Unpool2dProblem& p, const T* dy, const std::int64_t* indices, T* dx,
                                              simt::Stream stream);

}  // namespace gpucnn

// Windows of images as columns, and columns summed into images: the menu of the launchers.
//
// Pointers are C-contiguous memory of the device (of the process, in a simt module); launchers return what the launch
// said. Problems must have been through check().
//
//   x (N,H,W,C)   columns (N, C*R*S, P*Q), rows in the order c, r, s
#pragma once

#include "common/problem.h"
#include "simt/float16.h"
#include "simt/status.h"

#include <cstdint>

namespace gpucnn {

struct UnfoldProblem : Windows {};

// From so many channels on, always tiles of 32 windows or cells and 32 channels are turned in shared memory.
inline constexpr std::int64_t kTurnedChannels = 16;
inline constexpr std::int64_t kTurned = 32;

// Throws std::invalid_argument for a problem that no kernel could be trusted with.
inline void check(const char* op, const UnfoldProblem& p) {
  check(op, static_cast<const Windows&>(p));
  detail::require_countable(op, "the columns (N,C*R*S,P*Q)", {p.N, p.C, p.R, p.S, p.P, p.Q});
  if (p.R * p.S > kMostTerms) detail::refuse(op, "R*S must be at most 2^30");
  const std::int64_t bands = (p.C + kTurned - 1) / kTurned;
  const std::int64_t tiles = (p.P * p.Q > p.H * p.W ? p.P * p.Q : p.H * p.W) / kTurned + 1;
  detail::require_countable(op, "the tiles of all images", {p.N, tiles, bands, std::int64_t{1} << 8});  // below 2^31
}

// columns: what each window sees, zeros outside the image. Elements of `bytes`, 2 or 4.
[[nodiscard]] simt::Status unfold(const UnfoldProblem& p, int bytes, const void* x, void* columns, simt::Stream stream);

// x: each element the sum of what the windows that see it have for it, by rising tap; added up in float32.
template <typename T>
[[nodiscard]] simt::Status fold(const UnfoldProblem& p, const T* columns, T* x, simt::Stream stream);

}  // namespace gpucnn

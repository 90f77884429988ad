// How many blocks a launch takes. For .cu files.
#pragma once

#include "simt/simt.h"

#include <algorithm>
#include <cstdint>

namespace gpucnn {

// Blocks of `threads` for `items`, one a thread and pass: as many as there are items for, and no more than one full
// wave of multiprocessors that hold 2,048 threads each. The kernel goes over the grid in passes.
[[nodiscard]] inline simt::Status one_wave(std::int64_t items, int threads, unsigned* blocks) {
  int multiprocessors = 0;
  if (const simt::Status status = simt::multiprocessors(&multiprocessors); status != simt::kSuccess) return status;
  const std::int64_t wave = std::int64_t{multiprocessors} * (2048 / threads);
  *blocks = static_cast<unsigned>(std::max<std::int64_t>(1, std::min((items + threads - 1) / threads, wave)));
  return simt::kSuccess;
}

}  // namespace gpucnn

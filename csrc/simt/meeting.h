// Lanes of a warp that come together for an operation. Internal to the runtime.
#pragma once

#include "simt/host_types.h"

#include <cstdint>

namespace gpucnn::simt::detail {

// combine() runs once, when the last lane has come: lane l of `lanes` brought what brought[l] points at, and finds its
// result there. Null where there is nothing to compute.
struct WarpOperation {
  const char* name;
  void (*combine)(void* const* brought, std::uint32_t lanes, Site site);
  bool orders_memory;
};

// The running thread waits until all lanes of `mask` have come to the same operation at the same line.
void meet(const WarpOperation& operation, void* brought, std::uint32_t mask, Site site);

}  // namespace gpucnn::simt::detail

// The second stage of a split sum.
#pragma once

#include "simt/status.h"

#include <cstdint>

namespace gpucnn {

// sums[i] = parts[0][i] + parts[1][i] + ... in this order.   parts (splits, count), sums (count,), splits >= 1.
[[nodiscard]] simt::Status sum_parts(const float* parts, float* sums, std::int64_t splits, std::int64_t count,
                                     simt::Stream stream);

}  // namespace gpucnn

// Split sums: each split's sums of their own in float32, then one sum of them, in an order of its own. For .cu files.
#pragma once

#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {

// Where the first stage of a split sum puts its results: with several splits in parts (splits, count), each split in
// its own; with one, where `parts` is null, in the sums themselves.
template <typename T>
struct Parts {
  float* parts;
  T* sums;
  std::int64_t count;

  __device__ __forceinline__ void store(std::int64_t split, std::int64_t index, float value) const {
    if (parts != nullptr) {
      parts[split * count + index] = value;
    } else {
      sums[index] = simt::from_float<T>(value);
    }
  }
};

// sums[i] = parts[0][i] + parts[1][i] + ..., always added in the same order, rounded to T at the end.
// parts (splits, count) float32, sums (count,) of float, half or bfloat16; splits >= 1, count in [0, 2^36).
template <typename T>
[[nodiscard]] simt::Status sum_parts(const float* parts, T* sums, std::int64_t splits, std::int64_t count,
                                     simt::Stream stream);

}  // namespace gpucnn

// The device flag: what the host can't see without waiting for the GPU, noted by the kernel that meets it. For .cu
// files; gpucnn/flags.py is its other end.
//
// Two 64-bit words. flag[1] counts the steps of the optimisers. flag[0] is kNoTrouble, or the least of what was raised:
// by step, then by kind, then by place, so that the order of threads does not matter and the first step stays.
// While it is set, the optimisers' kernels change nothing (optim/).
#pragma once

#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {

enum class Trouble : std::int64_t {
  kLabel = 1,        // a class index that is neither a class nor to be ignored; the place is its row
  kProbability = 2,  // a number outside [0, 1]; the place is its element
  kIndex = 3,        // a position outside the array it points into; the place is its element
  kLoss = 4,         // a loss that is infinite or NaN
};

inline constexpr int kFlagWords = 2;
inline constexpr std::int64_t kNoTrouble = 0x7fffffffffffffff;
inline constexpr int kPlaceBits = 36, kKindBits = 3, kStepBits = 24;
static_assert(kPlaceBits + kKindBits + kStepBits == 63, "the sign stays 0");

// A step or a place that does not fit is told as the largest that does. Nothing happens where flag is null.
__device__ __forceinline__ void raise_flag(std::int64_t* flag, Trouble trouble, std::int64_t place) {
  if (flag == nullptr) return;
  constexpr std::int64_t kLastPlace = (std::int64_t{1} << kPlaceBits) - 1, kLastStep = (1 << kStepBits) - 1;
  const std::int64_t step = flag[1] < kLastStep ? flag[1] : kLastStep;
  const std::int64_t note = step << (kPlaceBits + kKindBits) | static_cast<std::int64_t>(trouble) << kPlaceBits |
                            (place < kLastPlace ? place : kLastPlace);
  atomicMin(reinterpret_cast<long long*>(flag), static_cast<long long>(note));
}

// For the kernels of optimisers, which run after those that raise it.
__device__ __forceinline__ bool is_raised(const std::int64_t* flag) {
  return flag != nullptr && flag[0] != kNoTrouble;
}

__device__ __forceinline__ bool is_finite(float value) {
  return fabsf(value) < INFINITY;
}

}  // namespace gpucnn

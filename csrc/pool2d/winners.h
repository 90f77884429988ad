// Winners of neighbouring channels, in one access. For .cu files.
#pragma once

#include "common/pack.h"
#include "simt/simt.h"

namespace gpucnn {

template <int kCount>
struct Winners {
  int tap[kCount];
};

template <int kCount, typename Winner>
__device__ __forceinline__ Winners<kCount> load_winners(const Winner* p) {
  Winners<kCount> result;
  if constexpr (kCount == 1) {
    result.tap[0] = static_cast<int>(*p);
  } else {
    detail::Access<Winner, kCount> access;
    access.word = simt::vload<decltype(access.word)>(p);
#pragma unroll
    for (int i = 0; i < kCount; ++i) result.tap[i] = static_cast<int>(access.elements[i]);
  }
  return result;
}

template <int kCount, typename Winner>
__device__ __forceinline__ void store_winners(Winner* p, const Winners<kCount>& winners) {
  if constexpr (kCount == 1) {
    *p = static_cast<Winner>(winners.tap[0]);
  } else {
    detail::Access<Winner, kCount> access;
#pragma unroll
    for (int i = 0; i < kCount; ++i) access.elements[i] = static_cast<Winner>(winners.tap[i]);
    simt::vstore(p, access.word);
  }
}

}  // namespace gpucnn

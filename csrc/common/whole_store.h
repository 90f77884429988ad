// Stores that nvcc can't take apart. For .cu files.
//
// Where a value comes from different branches, nvcc may store each by itself and leave four stores of 4 bytes of one of
// 16: tests/test_profile_widths.py says where.
#pragma once

#include "common/pack.h"
#include "simt/ptx.h"

namespace gpucnn {

// As store() of pack.h, to global memory.
template <int kCount, typename T>
__device__ __forceinline__ void store_whole(T* p, const Floats<kCount>& values) {
  constexpr int kTogether = detail::kTogether<T, kCount>;
  static_assert(kCount % kTogether == 0, "whole accesses");
#pragma unroll
  for (int i = 0; i < kCount; i += kTogether) {
    detail::Access<T, kTogether> access;
#pragma unroll
    for (int j = 0; j < kTogether; ++j) access.elements[j] = simt::from_float<T>(values[i + j]);
    simt::store_global(p + i, access.word);
  }
}

}  // namespace gpucnn

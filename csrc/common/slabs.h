// How blocks share channels: in slabs of 2^shift vectors, along which a block's threads lie side by side. For .cu
// files.
#pragma once

#include "common/index.h"
#include "common/pack.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {

inline constexpr int kWidestSlab = 4;  // shift: 16 vectors, which are 256 contiguous bytes of a pixel

struct Slabs {
  int shift;  // a power of two, so that the vectors that neighbouring threads have of shared memory do not share banks
  int count;
};

// The widest slabs of which an eighth or less lies beyond the last channel.
inline Slabs slabs_of(int vectors) {
  int shift = kWidestSlab;
  while (shift > 0 && (blocks_of(1 << shift, vectors) << shift) * 7 > std::int64_t{vectors} * 8) --shift;
  return {shift, static_cast<int>(blocks_of(1 << shift, vectors))};
}

// The vector of number `index` among `count` in shared memory, where they lie by quads: the first four elements of all
// vectors, then the next four. Neighbouring threads that access neighbouring vectors so do not share banks.
template <int kCount>
__device__ __forceinline__ Floats<kCount> load_quads(const float* vectors, int index, int count) {
  constexpr int kQuad = kCount < 4 ? kCount : 4;
  static_assert(kCount % kQuad == 0);
  Floats<kCount> values;
#pragma unroll
  for (int first = 0; first < kCount; first += kQuad) {
    const Floats<kQuad> quad = load<kQuad>(vectors + first * count + index * kQuad);
#pragma unroll
    for (int i = 0; i < kQuad; ++i) values[first + i] = quad[i];
  }
  return values;
}

template <int kCount>
__device__ __forceinline__ void store_quads(float* vectors, int index, int count, const Floats<kCount>& values) {
  constexpr int kQuad = kCount < 4 ? kCount : 4;
  static_assert(kCount % kQuad == 0);
#pragma unroll
  for (int first = 0; first < kCount; first += kQuad) {
    Floats<kQuad> quad;
#pragma unroll
    for (int i = 0; i < kQuad; ++i) quad[i] = values[first + i];
    store(vectors + first * count + index * kQuad, quad);
  }
}

// Where element number `element` of such vectors lies.
template <int kCount>
__device__ __forceinline__ int place_in_quads(int element, int count) {
  constexpr int kQuad = kCount < 4 ? kCount : 4;
  const int index = element / kCount, rest = element % kCount;
  return rest / kQuad * kQuad * count + index * kQuad + rest % kQuad;
}

}  // namespace gpucnn

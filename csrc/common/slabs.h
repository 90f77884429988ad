// How blocks share channels: in slabs of 2^shift vectors, along which a block's threads lie side by side. For .cu
// files.
#pragma once

#include "common/index.h"

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

}  // namespace gpucnn

// Philox 4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). For .cu
// files; gpucnn/random.py has the same in array code, and every backend draws the same numbers.
#pragma once

#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {

// A draw: the key, and the upper half of the counters.
struct Philox {
  std::uint64_t seed, call;
};

// Word 0 of the four at counter (place low, place high, call low, call high).
__device__ __forceinline__ std::uint32_t philox_word(const Philox& draw, std::uint64_t place) {
  std::uint32_t c0 = static_cast<std::uint32_t>(place), c1 = static_cast<std::uint32_t>(place >> 32),
                c2 = static_cast<std::uint32_t>(draw.call), c3 = static_cast<std::uint32_t>(draw.call >> 32),
                k0 = static_cast<std::uint32_t>(draw.seed), k1 = static_cast<std::uint32_t>(draw.seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * c0, b = std::uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<std::uint32_t>(b >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(b);
    c2 = static_cast<std::uint32_t>(a >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(a);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c0;
}

}  // namespace gpucnn

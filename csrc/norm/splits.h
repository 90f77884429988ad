// How the partial sums of splits are put together: blocks of 32 channels, a warp for every so many splits. For .cu
// files.
#pragma once

#include "norm/norm.h"
#include "simt/simt.h"

#include <algorithm>
#include <cstdint>

namespace gpucnn {

inline constexpr int kMostWarps = 32;  // of a block

// Warps for so many splits: a power of 2.
inline int warps_for(std::int64_t splits) {
  int warps = 1;
  while (warps < std::min<std::int64_t>(splits, kMostWarps)) warps *= 2;
  return warps;
}

// A thread's channel, and its place among those who share it.
struct Strand {
  std::int64_t set;
  std::int64_t channel;  // where it is not mine, the last one
  bool is_mine;
  int lane, warp, warps;

  __device__ __forceinline__ explicit Strand(std::int64_t channels) {
    const unsigned tiles = static_cast<unsigned>((channels + 31) / 32);
    set = blockIdx.x / tiles;
    lane = static_cast<int>(threadIdx.x % 32);
    warp = static_cast<int>(threadIdx.x / 32);
    warps = static_cast<int>(blockDim.x / 32);
    const std::int64_t wanted = std::int64_t{blockIdx.x % tiles} * 32 + lane;
    is_mine = wanted < channels;
    channel = min(wanted, channels - 1);
  }

  __device__ __forceinline__ std::int64_t in(std::int64_t channels) const { return set * channels + channel; }
};

inline dim3 strand_blocks(const NormProblem& p) {
  return dim3(static_cast<unsigned>(p.B * ((p.C + 31) / 32)));
}

}  // namespace gpucnn

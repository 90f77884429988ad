// What one request of a warp costs, from the addresses of its lanes: pure functions of them. Part of the profiler.
//
// Global memory is moved in sectors of 32 bytes, four to a line of 128 that the first-level cache looks up at once
// (NVIDIA, "CUDA C++ Best Practices Guide", coalesced access; Nsight Compute's documentation, memory tables). Shared
// memory has 32 banks of 4 bytes: lanes that want different words of one bank take turns, called wavefronts; one word
// that many want is read once. Accesses of 8 bytes go by half-warps and of 16 by quarters ("CUDA C++ Programming
// Guide", shared memory).
#pragma once

#include <cstdint>

namespace gpucnn::simt::profile {

// A warp's lanes at one instruction: those of `lanes` have an address each and access `bytes` there.
struct Request {
  std::uint32_t lanes;
  std::uint32_t bytes;
  std::uint64_t address[32];
};

struct GlobalCost {
  std::uint32_t sectors;
  std::uint32_t lines;
  std::uint32_t unique_bytes;   // that the lanes ask for together
  std::uint32_t ideal_sectors;  // if those lay side by side
};

constexpr int kMostSectors = 32 * 2;  // a lane's 16 bytes or fewer lie in two sectors at most

// `sector` receives the numbers (address / 32) of the sectors, in order, each once.
GlobalCost global_cost(const Request& request, std::uint64_t (&sector)[kMostSectors]);

struct SharedCost {
  std::uint32_t wavefronts;
  std::uint32_t ideal_wavefronts;  // one for each part of the warp that has lanes
};

// Addresses are counted from any multiple of 128 bytes.
SharedCost shared_cost(const Request& request);

}  // namespace gpucnn::simt::profile

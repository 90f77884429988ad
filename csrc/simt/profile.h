// The profile flavour: exact counts of what a launch asks of the memories and of the arithmetic units.
//
// Kernels are compiled with -fsanitize=thread and -fsanitize-coverage=trace-pc and linked with these files in the place
// of their runtimes: every access and every entry of a basic block becomes an event of its lane, a replay
// (profile_replay.h) pairs the lanes of a warp, and profile_metrics.h says what a request costs. What is made of the
// counts, lines, multiplications, bounds and tables, is Python's business (gpucnn/profile).
//
// Addresses are as if every array began at a multiple of 256 bytes, as cudaMalloc() gives them, with what it lacks to a
// multiple of 16 kept: so counts are the same in every run. Not counted: what lies on a thread's own stack (registers,
// if ptxas reports no local memory), the kernel's parameters and the module's tables of constants.
#pragma once

#include "simt/host_types.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace gpucnn::simt::profile {

// What warps did at one place of the code. Bytes are those that lanes asked for, each as often as it did.
struct AccessCounts {
  std::uintptr_t counter;  // a distance from the start of the module: a return address
  std::string purpose;
  std::uint32_t bytes;                                                         // of a lane's access
  std::uint64_t requests, lanes, sectors, ideal_sectors, lines, unique_bytes;  // of global memory
  std::uint64_t shared_requests, shared_lanes, wavefronts, ideal_wavefronts;
  // The request that cost most: its lanes, and their addresses, from the start of the arrays' own space.
  std::uint32_t worst_lanes;
  bool is_worst_shared;
  std::uint64_t worst_cost;
  std::uint64_t worst_address[32];
};

// How often lanes and warps entered a basic block.
struct BlockCounts {
  std::uintptr_t counter;  // the return address of the call that says so, at the block's start
  std::uint64_t lanes, warps;
};

struct OperationCounts {  // of whole warps: shuffles, votes, ldmatrix, mma
  std::string name, file;
  int line;
  std::uint64_t warps;
};

struct LaunchCounts {
  std::string file, kernel;  // as kernels.h names it
  const void* address;
  dim3 grid, block;
  std::size_t shared_bytes;  // dynamic
  std::size_t static_shared_bytes;
  std::uint64_t blocks, sampled_blocks;  // the counts are those of the sampled ones
  std::uint64_t barriers;                // that a block came to
  // Sectors of global memory: each once for the launch; each once for a block that reads it through the first-level
  // cache, and every time it passes by that (stores, atomics, cp.async of 16 bytes): the least that the second level
  // can be asked for. All that is requested is the most.
  std::uint64_t sectors_read, sectors_written, least_l2_sectors;
  std::uint64_t global_wavefronts;  // of the first-level cache: a line, or four sectors, at a time
  std::uint64_t steps, longest_warp_steps, longest_block_steps, warps;  // basic blocks entered, by warps
  std::vector<AccessCounts> accesses;
  std::vector<BlockCounts> basic_blocks;
  std::vector<OperationCounts> operations;
};

// From now on launches are counted, every `sample`-th block of each (the first, and so on); 0: no more. With
// `only_sampled` the other blocks do not even run, and what they would have written is undefined. Forgets what has not
// been taken.
void start(int sample, bool only_sampled);

// The launches since start() or the last call.
std::vector<LaunchCounts> take();

}  // namespace gpucnn::simt::profile

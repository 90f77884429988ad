// The profiler for ctypes: counts of a case as the tests of the checkers run them, summed over a launch, and its pure
// functions.
#include "cases.h"
#include "simt/profile.h"
#include "simt/profile_metrics.h"
#include "simt/profile_order.h"

#include <cstdint>
#include <cstring>

namespace profile = gpucnn::simt::profile;

extern "C" {

__attribute__((visibility("default"))) void start_profile(int sample, int only_sampled) {
  profile::start(sample, only_sampled != 0);
}

// Of the last launch since the last call: requests, lanes, sectors, ideal, lines, unique bytes; shared requests, lanes,
// wavefronts, ideal; sectors read, written, least of L2; barriers, steps, longest warp, longest block, warps, blocks,
// sampled, operations of name `operation`. Whether there was exactly one launch.
__attribute__((visibility("default"))) int take_totals(const char* operation, std::uint64_t (&totals)[21]) {
  const auto launches = profile::take();
  std::memset(totals, 0, sizeof totals);
  if (launches.size() != 1) return 0;
  const profile::LaunchCounts& launch = launches[0];
  for (const auto& access : launch.accesses) {
    const std::uint64_t parts[] = {access.requests,        access.lanes,        access.sectors,
                                   access.ideal_sectors,   access.lines,        access.unique_bytes,
                                   access.shared_requests, access.shared_lanes, access.wavefronts,
                                   access.ideal_wavefronts};
    for (int i = 0; i < 10; ++i) totals[i] += parts[i];
  }
  const std::uint64_t rest[] = {
      launch.sectors_read, launch.sectors_written,    launch.least_l2_sectors,    launch.barriers,
      launch.steps,        launch.longest_warp_steps, launch.longest_block_steps, launch.warps,
      launch.blocks,       launch.sampled_blocks};
  std::memcpy(totals + 10, rest, sizeof rest);
  for (const auto& of : launch.operations) {
    if (of.name == operation) totals[20] += of.warps;
  }
  return 1;
}

__attribute__((visibility("default"))) void cost_of(std::uint32_t lanes, std::uint32_t bytes,
                                                    const std::uint64_t* addresses, std::uint32_t (&cost)[6]) {
  profile::Request request{lanes, bytes, {}};
  std::memcpy(request.address, addresses, sizeof request.address);
  std::uint64_t sectors[profile::kMostSectors];
  const profile::GlobalCost global = profile::global_cost(request, sectors);
  const profile::SharedCost shared = profile::shared_cost(request);
  const std::uint32_t all[] = {global.sectors,       global.lines,      global.unique_bytes,
                               global.ideal_sectors, shared.wavefronts, shared.ideal_wavefronts};
  std::memcpy(cost, all, sizeof all);
}

// Ranks of `places` places, whose counters are their numbers, after `steps` steps given as pairs.
__attribute__((visibility("default"))) void ranks_of(int places, int steps, const std::uint32_t* pairs,
                                                     std::uint32_t* ranks) {
  profile::ProgramOrder order;
  for (int i = 0; i < places; ++i) order.add(static_cast<std::uintptr_t>(i));
  for (int i = 0; i < steps; ++i) order.step(pairs[2 * i], pairs[2 * i + 1]);
  order.sort();
  for (int i = 0; i < places; ++i) ranks[i] = order.rank(static_cast<std::uint32_t>(i));
}

}  // extern "C"

#include "simt/profile_metrics.h"

#include <algorithm>

namespace gpucnn::simt::profile {
namespace {

constexpr std::uint32_t kSectorBytes = 32, kSectorsOfLine = 4, kBanks = 32, kWordBytes = 4;

// Bytes of [address, address + bytes) of all lanes together, given their addresses in order.
std::uint32_t together(const std::uint64_t* address, int count, std::uint32_t bytes) {
  std::uint32_t sum = 0;
  std::uint64_t reached = 0;
  for (int i = 0; i < count; ++i) {
    const std::uint64_t begin = std::max(address[i], reached), end = address[i] + bytes;
    if (end <= begin) continue;
    sum += static_cast<std::uint32_t>(end - begin);
    reached = end;
  }
  return sum;
}

// Turns that the lanes of `part` take: the largest number of different words in one bank.
std::uint32_t turns(const Request& request, std::uint32_t part) {
  std::uint64_t words[kBanks][32];  // different ones, by bank: a lane has at most one word in each
  std::uint32_t count[kBanks] = {}, most = 0;
  for (std::uint32_t rest = part; rest != 0; rest &= rest - 1) {
    const std::uint64_t address = request.address[__builtin_ctz(rest)];
    const std::uint64_t last = (address + request.bytes - 1) / kWordBytes;
    for (std::uint64_t word = address / kWordBytes; word <= last; ++word) {
      const std::uint32_t bank = word % kBanks;
      if (std::find(words[bank], words[bank] + count[bank], word) != words[bank] + count[bank]) continue;
      words[bank][count[bank]++] = word;
      most = std::max(most, count[bank]);
    }
  }
  return most;
}

}  // namespace

GlobalCost global_cost(const Request& request, std::uint64_t (&sector)[kMostSectors]) {
  std::uint64_t address[32];
  int lanes = 0;
  for (std::uint32_t rest = request.lanes; rest != 0; rest &= rest - 1) {
    address[lanes++] = request.address[__builtin_ctz(rest)];
  }
  if (!std::is_sorted(address, address + lanes)) std::sort(address, address + lanes);
  GlobalCost cost{};
  for (int i = 0; i < lanes; ++i) {
    const std::uint64_t last = (address[i] + request.bytes - 1) / kSectorBytes;
    for (std::uint64_t s = address[i] / kSectorBytes; s <= last; ++s) {
      if (cost.sectors > 0 && s <= sector[cost.sectors - 1]) continue;
      if (cost.sectors == 0 || s / kSectorsOfLine != sector[cost.sectors - 1] / kSectorsOfLine) ++cost.lines;
      sector[cost.sectors++] = s;
    }
  }
  cost.unique_bytes = together(address, lanes, request.bytes);
  cost.ideal_sectors = (cost.unique_bytes + kSectorBytes - 1) / kSectorBytes;
  return cost;
}

SharedCost shared_cost(const Request& request) {
  const int together = request.bytes <= 4 ? 32 : request.bytes == 8 ? 16 : 8;
  SharedCost cost{};
  for (int first = 0; first < 32; first += together) {
    const std::uint32_t all = together == 32 ? ~0u : (1u << together) - 1;
    const std::uint32_t part = request.lanes & all << first;
    if (part == 0) continue;
    cost.wavefronts += turns(request, part);
    ++cost.ideal_wavefronts;
  }
  return cost;
}

}  // namespace gpucnn::simt::profile

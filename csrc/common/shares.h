// How many items are shared among the blocks of a launch that sums over them (ordered_sum.h), and the memory it takes.
#pragma once

#include <algorithm>
#include <cstdint>

namespace gpucnn {

inline constexpr int kSummingBlocks = 1024;
inline constexpr int kSummingWords = 1 + 2 * kSummingBlocks;  // for one or two sums

struct Shares {
  std::int64_t each;  // items of a block, a multiple of what it does at a time
  unsigned blocks;    // [1, kSummingBlocks]
};

// By the number of items alone: the sum's bits are the same on every device. No items are one block's.
constexpr Shares shares_of(std::int64_t items, std::int64_t at_a_time) {
  const std::int64_t passes = (items + at_a_time - 1) / at_a_time;
  const std::int64_t each = std::max<std::int64_t>(1, (passes + kSummingBlocks - 1) / kSummingBlocks) * at_a_time;
  return {each, static_cast<unsigned>(std::max<std::int64_t>(1, (items + each - 1) / each))};
}

}  // namespace gpucnn

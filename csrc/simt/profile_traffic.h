// Which sectors of global memory a launch, and a block of it, has touched. Part of the profiler.
#pragma once

#include <cstdint>
#include <unordered_map>

namespace gpucnn::simt::profile {

class Traffic {
 public:
  void begin_launch() {
    pages_.clear();
    recent_ = nullptr;
  }
  void begin_block() { ++block_; }

  // Sector number (address / 32). Whether it is the first read, or write, of it.
  bool reads(std::uint64_t sector) { return first(page(sector).read, sector); }
  bool writes(std::uint64_t sector) { return first(page(sector).written, sector); }
  // Whether it is the block's first through the first-level cache.
  bool is_cached(std::uint64_t sector) {
    Page& of = page(sector);
    if (of.block != block_) of = {of.read, of.written, {}, block_};
    return !first(of.cached, sector);
  }

 private:
  static constexpr std::uint64_t kSectors = 128;  // of 4 KiB

  struct Bits {
    std::uint64_t word[kSectors / 64];
  };
  struct Page {
    Bits read, written, cached;
    std::uint64_t block;  // that `cached` is of
  };

  static bool first(Bits& bits, std::uint64_t sector) {
    std::uint64_t& word = bits.word[sector % kSectors / 64];
    const std::uint64_t bit = std::uint64_t{1} << sector % 64;
    const bool is_first = (word & bit) == 0;
    word |= bit;
    return is_first;
  }

  Page& page(std::uint64_t sector) {
    const std::uint64_t number = sector / kSectors;
    if (recent_ == nullptr || number != recent_number_) {
      recent_ = &pages_[number];
      recent_number_ = number;
    }
    return *recent_;
  }

  std::unordered_map<std::uint64_t, Page> pages_;  // 56 bytes for 4 KiB of the arrays
  Page* recent_ = nullptr;
  std::uint64_t recent_number_ = 0, block_ = 0;
};

}  // namespace gpucnn::simt::profile

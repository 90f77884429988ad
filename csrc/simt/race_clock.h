// Which accesses of a block are ordered before what a thread does now: happens-before by vector clocks.
//
// A stamp is a moment of the whole process. A thread's clock stands at the stamp of the last meeting it took part in,
// and its accesses bear it. __syncthreads() orders all pairs, so one stamp for the block says what lies before it. Only
// __syncwarp() orders less than a block, and then lanes of one warp: each thread has a vector of 32 stamps, one for
// each lane of its warp, up to which it knows what that lane has done.
#pragma once

#include "simt/race_shadow.h"

#include <algorithm>
#include <cstdint>

namespace gpucnn::simt::race {

class Clocks {
 public:
  // Later than all that was; what bears an earlier stamp belongs to an earlier block, and is not looked at here.
  Stamp begin_block() { return met_ = ++latest_; }
  Stamp begin_launch() { return ++latest_; }

  void block_met() { met_ = ++latest_; }

  void warp_met(int warp, std::uint32_t lanes) {
    Stamp known[kLanes] = {};
    for (int lane = 0; lane < kLanes; ++lane) {
      if (!(lanes >> lane & 1)) continue;
      const int thread = warp * kLanes + lane;
      for (int i = 0; i < kLanes; ++i) known[i] = std::max(known[i], known_[thread][i]);
      known[lane] = std::max(known[lane], now(thread));
    }
    ++latest_;
    for (int lane = 0; lane < kLanes; ++lane) {
      if (!(lanes >> lane & 1)) continue;
      const int thread = warp * kLanes + lane;
      std::copy(std::begin(known), std::end(known), known_[thread]);
      own_[thread] = latest_;
    }
  }

  // Moves every thread to a stamp of its own time, which is returned; nothing becomes ordered by that.
  Stamp advance() {
    std::fill(std::begin(own_), std::end(own_), ++latest_);
    return latest_;
  }

  Stamp now(int thread) const { return std::max(own_[thread], met_); }

  // Whether an access of this block comes before what `thread` does now.
  bool ordered(const Access& earlier, int thread) const {
    return earlier.thread == thread || earlier.stamp < met_ ||
           (earlier.thread / kLanes == thread / kLanes && known_[thread][earlier.thread % kLanes] >= earlier.stamp);
  }

  // Lanes of the group, of this block, that are not ordered before what `thread` does now.
  std::uint32_t unordered(const Group& group, int thread) const {
    if (group.stamp < met_) return 0;
    if (static_cast<int>(group.warp) != thread / kLanes) return group.lanes;
    std::uint32_t lanes = group.lanes & ~(1u << thread % kLanes);
    for (std::uint32_t rest = lanes; rest != 0; rest &= rest - 1) {
      const int lane = __builtin_ctz(rest);
      if (known_[thread][lane] >= group.stamp) lanes &= ~(1u << lane);
    }
    return lanes;
  }

 private:
  static constexpr int kThreads = 1024, kLanes = 32;

  Stamp latest_ = 0;
  Stamp met_ = 0;  // of the last __syncthreads(), or the block's start
  Stamp own_[kThreads] = {};
  Stamp known_[kThreads][kLanes] = {};  // stamps before the block's start mean nothing and need no clearing
};

}  // namespace gpucnn::simt::race

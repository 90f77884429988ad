// Which thread of a block runs next, and which block of a grid. Internal to the runtime.
//
// A correct kernel's result does not depend on either; a kernel that lacks a barrier may be right under one order by
// luck and is wrong under another. All are deterministic.
#pragma once

#include "simt/fiber.h"

#include <array>
#include <cstdint>
#include <string>

namespace gpucnn::simt::detail {

struct Order {
  enum Kind { kForward, kReverse, kRandom, kPriority } kind = kForward;
  std::uint64_t seed = 0;
};

// "fwd", "rev", "rand:N" or "prio:N". Throws Fault, which names `where` the text came from.
Order parse_order(const std::string& text, const char* where);

class Random {  // splitmix64
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next();
  std::uint64_t below(std::uint64_t limit) { return next() % limit; }

 private:
  std::uint64_t state_;
};

// The threads of the running block that can go on.
class ReadyThreads {
 public:
  void begin_launch(Order order);
  void begin_block(int threads);  // all of them, in the order's sense of first
  void push(int thread);
  int pop();  // -1 where there is none

  bool is_reversed() const { return order_.kind == Order::kReverse; }

 private:
  static constexpr unsigned kRing = kMaxThreads;  // a power of two

  int pop_by_priority();

  Order order_;
  Random random_{0};
  std::array<std::uint16_t, kRing> ring_{};
  unsigned first_ = 0, last_ = 0;  // ever popped, ever pushed
  // By priority: the warp of rank r is warps_[r], with the ready lanes lanes_[warp]; ready_ranks_ says which have any.
  std::array<std::uint8_t, kMaxThreads / 32> warps_{}, ranks_{};
  std::array<std::uint32_t, kMaxThreads / 32> lanes_{};
  std::uint32_t ready_ranks_ = 0;
};

// A permutation of the blocks [0, count): forward, reversed, or shuffled by the seed.
class BlockOrder {
 public:
  BlockOrder(Order order, std::uint64_t count);
  std::uint64_t operator[](std::uint64_t i) const {
    return static_cast<std::uint64_t>((static_cast<unsigned __int128>(i) * factor_ + offset_) % count_);
  }

 private:
  std::uint64_t count_, factor_, offset_;
};

}  // namespace gpucnn::simt::detail

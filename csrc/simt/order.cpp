#include "simt/order.h"

#include "simt/status.h"

#include <numeric>
#include <utility>

namespace gpucnn::simt::detail {

Order parse_order(const std::string& text, const char* where) {
  if (text == "fwd") return {Order::kForward, 0};
  if (text == "rev") return {Order::kReverse, 0};
  const std::string kind = text.substr(0, 5), seed = text.size() > 5 ? text.substr(5) : "";
  const bool is_number =
      !seed.empty() && seed.size() <= 18 && seed.find_first_not_of("0123456789") == std::string::npos;
  if (is_number && kind == "rand:") return {Order::kRandom, std::stoull(seed)};
  if (is_number && kind == "prio:") return {Order::kPriority, std::stoull(seed)};
  throw Fault("simt: " + std::string(where) + " is '" + text +
              "', and the orders of threads are fwd, rev, rand:N and prio:N with a number N of up to 18 digits");
}

std::uint64_t Random::next() {
  std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

void ReadyThreads::begin_launch(Order order) {
  order_ = order;
  random_ = Random(order.seed);
}

void ReadyThreads::begin_block(int threads) {
  first_ = last_ = 0;
  ready_ranks_ = 0;
  lanes_.fill(0);
  if (order_.kind == Order::kPriority) {
    const int warps = (threads + 31) / 32;
    std::iota(warps_.begin(), warps_.end(), std::uint8_t{0});
    for (int i = warps - 1; i > 0; --i) std::swap(warps_[i], warps_[random_.below(i + 1)]);
    for (int i = 0; i < warps; ++i) ranks_[warps_[i]] = static_cast<std::uint8_t>(i);
  }
  if (is_reversed()) {
    for (int i = threads - 1; i >= 0; --i) push(i);
  } else {
    for (int i = 0; i < threads; ++i) push(i);
  }
}

void ReadyThreads::push(int thread) {
  if (order_.kind == Order::kPriority) {
    lanes_[thread / 32] |= 1u << thread % 32;
    ready_ranks_ |= 1u << ranks_[thread / 32];
  } else {
    ring_[last_++ % kRing] = static_cast<std::uint16_t>(thread);
  }
}

int ReadyThreads::pop() {
  if (order_.kind == Order::kPriority) return pop_by_priority();
  if (first_ == last_) return -1;
  if (order_.kind == Order::kRandom) {
    std::swap(ring_[first_ % kRing], ring_[(first_ + random_.below(last_ - first_)) % kRing]);
  }
  return ring_[first_++ % kRing];
}

int ReadyThreads::pop_by_priority() {
  if (ready_ranks_ == 0) return -1;
  const int rank = __builtin_ctz(ready_ranks_), warp = warps_[rank], lane = __builtin_ctz(lanes_[warp]);
  lanes_[warp] &= lanes_[warp] - 1;
  if (lanes_[warp] == 0) ready_ranks_ &= ready_ranks_ - 1;
  return 32 * warp + lane;
}

BlockOrder::BlockOrder(Order order, std::uint64_t count) : count_(count), factor_(1), offset_(0) {
  if (order.kind == Order::kReverse) {
    factor_ = offset_ = count - 1;  // i * -1 - 1
  } else if (order.kind != Order::kForward && count > 1) {
    Random random(order.seed);
    offset_ = random.below(count);
    do {
      factor_ = 1 + random.below(count - 1);
    } while (std::gcd(factor_, count) != 1);
  }
}

}  // namespace gpucnn::simt::detail

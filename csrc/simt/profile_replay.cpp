#include "simt/profile_replay.h"

#include <algorithm>

namespace gpucnn::simt::profile {

Replay::Replay(Sink& sink) : sink_(sink) {
  place(0, true, detail::Purpose::load, 0);  // where every thread starts
}

void Replay::begin_block(int threads) {
  threads_ = threads;
  std::fill(lanes_.begin(), lanes_.begin() + threads, Lane{});
  for (int w = 0; w * kLanes < threads; ++w) {
    Warp& warp = warps_[w];
    std::fill(std::begin(warp.next), std::end(warp.next), kNothing);
    const int lanes = std::min(kLanes, threads - w * kLanes);
    warp.live = lanes == kLanes ? ~0u : (1u << lanes) - 1;
  }
}

std::uint32_t Replay::place(std::uintptr_t counter, bool is_block, detail::Purpose purpose, std::uint32_t bytes) {
  const std::uint64_t key = std::uint64_t{counter} << 4 | (is_block ? 15u : static_cast<unsigned>(purpose));
  Recent& recent = recent_[(counter ^ counter >> 12) % recent_.size()];
  if (recent.key == key && key != 0) return recent.place;
  const auto [found, is_new] = numbers_.try_emplace(key, static_cast<std::uint32_t>(places_.size()));
  if (is_new) {
    places_.push_back({counter, is_block, purpose, bytes});
    order_.add(counter);
    is_sorted_ = false;
  }
  recent = {key, found->second};
  return found->second;
}

std::uint64_t Replay::key(int thread) {
  const Lane& lane = lanes_[thread];
  if (lane.head == lane.tail) return kNothing;
  const Event& next = event(thread, lane.head);
  return std::uint64_t{~next.depth} << 32 | order_.rank(next.place);
}

void Replay::happened(int thread, std::uint32_t place, std::uint64_t address) {
  Lane& lane = lanes_[thread];
  if (order_.step(lane.last_place, place)) is_sorted_ = false;
  lane.last_place = place;
  event(thread, lane.tail) = {place, lane.depth, address};
  if (lane.head == lane.tail++) warps_[thread / kLanes].next[thread % kLanes] = key(thread);
}

void Replay::sort() {
  order_.sort();
  is_sorted_ = true;
  for (int t = 0; t < threads_; ++t) warps_[t / kLanes].next[t % kLanes] = key(t);
}

void Replay::advance(int warp) {
  retire(warp, warps_[warp].live, -1);
}
void Replay::finish(int warp) {
  retire(warp, 0, -1);
}
void Replay::finish_all() {
  for (int w = 0; w * kLanes < threads_; ++w) finish(w);
}
void Replay::drain(int thread) {
  retire(thread / kLanes, 0, thread);
}

// Until one of the lanes `waiting_for` has no events, or the thread `drained`, if it is one, has none.
void Replay::retire(int w, std::uint32_t waiting_for, int drained) {
  if (!is_sorted_) sort();
  Warp& warp = warps_[w];
  for (;;) {
    const std::uint64_t lowest = *std::min_element(std::begin(warp.next), std::end(warp.next));
    if (lowest == kNothing || (drained >= 0 && lanes_[drained].head == lanes_[drained].tail)) return;
    std::uint32_t lanes = 0, empty = 0;
    for (int l = 0; l < kLanes; ++l) {
      lanes |= std::uint32_t{warp.next[l] == lowest} << l;
      empty |= std::uint32_t{warp.next[l] == kNothing} << l;
    }
    if ((empty & waiting_for) != 0) return;
    const int first = w * kLanes + __builtin_ctz(lanes);
    const std::uint32_t place = event(first, lanes_[first].head).place;
    Request request{};
    request.bytes = places_[place].bytes;
    for (std::uint32_t rest = lanes; rest != 0; rest &= rest - 1) {
      const int l = __builtin_ctz(rest), thread = w * kLanes + l;
      const std::uint64_t address = event(thread, lanes_[thread].head).address;
      if (address != 0) {
        request.lanes |= 1u << l;
        request.address[l] = address;
      }
      ++lanes_[thread].head;
      warp.next[l] = key(thread);
    }
    sink_.retired(w, place, lanes, request);
  }
}

}  // namespace gpucnn::simt::profile

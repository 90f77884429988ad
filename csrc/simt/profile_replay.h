// From what each lane did to what its warp would have done together, as hardware that runs lanes in step does it.
//
// Every lane's events, accesses and entries of basic blocks, wait in a buffer. Of the lanes' next events the one in the
// deepest call and then the earliest in program order (profile_order.h) goes first, for all lanes that stand at it.
// Grouping by how often a lane had been at a place, or by addresses of code, counts wrongly where lanes skip accesses
// at the borders of an image or where a store is split between the branches of a condition.
#pragma once

#include "simt/host_access.h"
#include "simt/profile_metrics.h"
#include "simt/profile_order.h"

#include <cstdint>
#include <unordered_map>
#include <vector>

namespace gpucnn::simt::profile {

// A place in the kernel's code where something happens.
struct Place {
  std::uintptr_t counter;  // program counter: a return address
  bool is_block;           // a basic block's entry; else an access
  detail::Purpose purpose;
  std::uint32_t bytes;
};

class Sink {
 public:
  // A warp's lanes at one place at once. Of a basic block `request` has lanes and no addresses.
  virtual void retired(int warp, std::uint32_t place, std::uint32_t lanes, const Request& request) = 0;

 protected:
  ~Sink() = default;
};

class Replay {
 public:
  explicit Replay(Sink& sink);

  // All lanes start anew, with no events.
  void begin_block(int threads);

  // Number of the place, made where there is none.
  std::uint32_t place(std::uintptr_t counter, bool is_block, detail::Purpose purpose, std::uint32_t bytes);
  const std::vector<Place>& places() const { return places_; }

  // What the thread did next. Address 0: an entry of a basic block, or a lane that is predicated off.
  // Requires that its buffer is not full.
  void happened(int thread, std::uint32_t place, std::uint64_t address);
  bool is_full(int thread) const { return lanes_[thread].tail - lanes_[thread].head == kEvents; }
  void entered(int thread) { ++lanes_[thread].depth; }
  void left(int thread) { --lanes_[thread].depth; }

  // Whether these are all lanes that the warp has.
  bool is_whole(int warp, std::uint32_t lanes) const { return lanes == warps_[warp].live; }

  // Retires what of a warp can be: until some lane that could still come to an earlier place has no events left.
  void advance(int warp);
  // The same where a lane without events has stopped for what all wait for: nothing of the warp is left.
  void finish(int warp);
  void finish_all();
  // Retires events of a warp, in the best order that is known, until this thread has none left.
  void drain(int thread);

 private:
  static constexpr std::uint32_t kEvents = 512;  // a lane may be ahead of its warp
  static constexpr int kThreads = 1024, kLanes = 32;
  static constexpr std::uint64_t kNothing = ~std::uint64_t{0};

  struct Event {
    std::uint32_t place;
    std::uint32_t depth;
    std::uint64_t address;
  };
  struct Lane {
    std::uint32_t head = 0, tail = 0;  // ever retired, ever happened
    std::uint32_t depth = 0, last_place = 0;
  };
  struct Warp {
    std::uint64_t next[kLanes];  // by lane, the key of its oldest event: the lowest goes first
    std::uint32_t live = 0;      // lanes that there are
  };

  Event& event(int thread, std::uint32_t number) { return events_[std::size_t{kEvents} * thread + number % kEvents]; }
  std::uint64_t key(int thread);
  void sort();
  void retire(int warp, std::uint32_t waiting_for, int drained);

  Sink& sink_;
  ProgramOrder order_;
  bool is_sorted_ = true;
  int threads_ = 0;
  std::vector<Place> places_;
  std::unordered_map<std::uint64_t, std::uint32_t> numbers_;  // of places, by counter and kind
  std::vector<Event> events_ = std::vector<Event>(std::size_t{kEvents} * kThreads);
  std::vector<Lane> lanes_ = std::vector<Lane>(kThreads);
  std::vector<Warp> warps_ = std::vector<Warp>(kThreads / kLanes);

  struct Recent {
    std::uint64_t key = 0;
    std::uint32_t place = 0;
  };
  std::vector<Recent> recent_ = std::vector<Recent>(4096);
};

}  // namespace gpucnn::simt::profile

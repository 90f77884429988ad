// The memory that a launch may touch: what has been registered, and what nobody registers.
#pragma once

#include "simt/observer.h"

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace gpucnn::simt {

struct Range {
  std::uintptr_t begin = 0, end = 0;

  bool holds(std::uintptr_t address, std::size_t bytes) const {
    return begin <= address && address < end && bytes <= end - address;
  }
};

class Buffers {
 public:
  Buffers();

  void add(const void* data, std::size_t bytes);
  void remove(const void* data);

  // What add() and remove() have left, overlapping ones joined, is what allows() looks at until the next call.
  void begin_launch(const LaunchInfo& launch);

  // Whether a thread may touch these bytes of memory that is neither shared nor a thread's stack.
  bool allows(std::uintptr_t address, std::size_t bytes) {
    return ranges_.empty() || ranges_[recent_].holds(address, bytes) || parameters_.holds(address, bytes) ||
           allows_elsewhere(address, bytes);
  }

  // What was registered when the launch began, in order of addresses, overlapping ones joined.
  const std::vector<Range>& ranges() const { return ranges_; }

  // The registered memory at this address or, if there is none, nearest to it; empty where nothing is registered.
  Range nearest(std::uintptr_t address) const;

 private:
  bool allows_elsewhere(std::uintptr_t address, std::size_t bytes);

  std::multimap<std::uintptr_t, std::size_t> registered_;  // address -> bytes
  std::vector<Range> ranges_;                              // in order, disjoint
  std::size_t recent_ = 0;                                 // of ranges_: where the last access was
  Range parameters_, module_;
};

}  // namespace gpucnn::simt

// In which order a kernel's places come in its program, learnt from the steps that lanes have taken between them.
//
// A place is a basic block or an access, known by its program counter. Lanes of a warp that took different ways run on
// together where these meet again; a profiler that sees only what each lane did needs an order in which a join comes
// after both branches and what follows a loop after its whole body. That is a weak topological order of the graph of
// steps (F. Bourdoncle, "Efficient chaotic iteration strategies with widenings", 1993).
#pragma once

#include <cstdint>
#include <vector>

namespace gpucnn::simt::profile {

class ProgramOrder {
 public:
  // A new place, after all that there are; its number. Where steps leave a choice, higher counters come later.
  std::uint32_t add(std::uintptr_t counter);

  // Remembers that some lane went from one place to the other. Whether that was news, so that ranks() are out of date.
  bool step(std::uint32_t from, std::uint32_t to);

  // For each place its rank: among places where lanes wait, the lowest goes first.
  void sort();
  std::uint32_t rank(std::uint32_t place) const { return rank_[place]; }

 private:
  struct Place {
    std::uintptr_t counter;
    std::uint32_t recent;  // successor
    std::vector<std::uint32_t> successors;
  };
  class Sorter;

  std::vector<Place> places_;
  std::vector<std::uint32_t> rank_;
};

}  // namespace gpucnn::simt::profile

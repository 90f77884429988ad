#include "simt/profile_order.h"

#include <algorithm>

namespace gpucnn::simt::profile {
namespace {

constexpr std::uint32_t kNone = ~std::uint32_t{0};

}  // namespace

std::uint32_t ProgramOrder::add(std::uintptr_t counter) {
  places_.push_back({counter, kNone, {}});
  rank_.push_back(kNone);  // last, until sort() knows better
  return static_cast<std::uint32_t>(places_.size() - 1);
}

bool ProgramOrder::step(std::uint32_t from, std::uint32_t to) {
  Place& place = places_[from];
  if (place.recent == to) return false;
  place.recent = to;
  auto& successors = place.successors;
  if (std::find(successors.begin(), successors.end(), to) != successors.end()) return false;
  // Higher counters first: they are visited first, and hence placed last where there is a choice.
  const auto higher = [this](std::uint32_t a, std::uint32_t b) { return places_[a].counter > places_[b].counter; };
  successors.insert(std::upper_bound(successors.begin(), successors.end(), to, higher), to);
  return true;
}

// Bourdoncle's algorithm with a stack of its own: a fiber's would not hold the recursion over a large kernel.
class ProgramOrder::Sorter {
 public:
  explicit Sorter(const std::vector<Place>& places) : places_(places), number_(places.size(), 0) {
    for (std::uint32_t i = 0; i < places.size(); ++i) {
      if (number_[i] == 0) visit_all_from(i);
    }
  }

  // From the last to the first.
  const std::vector<std::uint32_t>& reversed() const { return out_; }

 private:
  // A call of visit(place) that is under way.
  struct Visit {
    std::uint32_t place;
    std::uint32_t head;         // the lowest number of a place that can be reached back to
    bool is_loop = false;       // something leads back to a place that is on the stack
    bool is_component = false;  // the place is a loop's head, and its body is visited again without it
    std::size_t next = 0;       // of the place's successors
  };

  void begin(std::uint32_t place) {
    open_.push_back(place);
    number_[place] = ++latest_;
    visits_.push_back({place, latest_});
  }

  void visit_all_from(std::uint32_t root) {
    begin(root);
    while (!visits_.empty()) {
      Visit& visit = visits_.back();
      const auto& successors = places_[visit.place].successors;
      if (visit.next < successors.size()) {
        const std::uint32_t successor = successors[visit.next++];
        if (number_[successor] == 0) {
          begin(successor);
        } else if (!visit.is_component) {
          reach(visit, number_[successor]);
        }
      } else if (!visit.is_component && visit.head == number_[visit.place]) {
        close(visit);
      } else {
        finish(visit);
      }
    }
  }

  static void reach(Visit& visit, std::uint32_t number) {
    if (number > visit.head) return;
    visit.head = number;
    visit.is_loop = true;
  }

  // The place is the head of what is open since it was: of a loop, or of itself alone.
  void close(Visit& visit) {
    number_[visit.place] = kNone;
    while (open_.back() != visit.place) {
      if (visit.is_loop) number_[open_.back()] = 0;
      open_.pop_back();
    }
    open_.pop_back();
    if (visit.is_loop) {
      visit.is_component = true;
      visit.next = 0;
    } else {
      finish(visit);
    }
  }

  void finish(const Visit& visit) {
    const bool is_closed = number_[visit.place] == kNone;
    const std::uint32_t head = visit.head;
    if (is_closed) out_.push_back(visit.place);
    visits_.pop_back();
    if (!visits_.empty() && !visits_.back().is_component) reach(visits_.back(), head);
  }

  const std::vector<Place>& places_;
  std::vector<std::uint32_t> number_;  // 0: not visited; kNone: placed
  std::uint32_t latest_ = 0;
  std::vector<std::uint32_t> open_, out_;
  std::vector<Visit> visits_;
};

void ProgramOrder::sort() {
  const Sorter sorter(places_);
  const auto& reversed = sorter.reversed();
  for (std::size_t i = 0; i < reversed.size(); ++i) {
    rank_[reversed[i]] = static_cast<std::uint32_t>(reversed.size() - 1 - i);
  }
}

}  // namespace gpucnn::simt::profile

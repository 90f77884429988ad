#include "simt/race.h"

#include "simt/observed.h"
#include "simt/observed_buffers.h"
#include "simt/observer.h"
#include "simt/race_clock.h"
#include "simt/race_report.h"
#include "simt/race_shadow.h"
#include "simt/reports.h"

#include <algorithm>
#include <cstdint>
#include <dlfcn.h>
#include <string>
#include <vector>

namespace gpucnn::simt {
namespace race {
namespace {

std::uintptr_t address_of(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p);
}

// Program counters are kept as distances from here: kernels are linked into one module with the checker.
std::uintptr_t start_of_module() {
  Dl_info info;
  dladdr(reinterpret_cast<const void*>(&start_of_module), &info);
  return address_of(info.dli_fbase);
}

// Whether the access could be one of the group's.
bool is_of(const Group& group, const Access& access) {
  return group.stamp == access.stamp && group.warp == access.thread / 32u;
}

// Whether this thread did the same before at the same stamp, and nobody has changed anything since.
bool is_repeated(const Cell& cell, const Access& now) {
  if (now.kind == Kind::write) {
    return cell.write.stamp == now.stamp && cell.write.thread == now.thread && cell.write.kind == Kind::write &&
           cell.reads[0].lanes == 0 && cell.atomics[0].lanes == 0;
  }
  for (const Group& group : now.kind == Kind::read ? cell.reads : cell.atomics) {
    if (is_of(group, now) && group.lanes >> now.thread % 32 & 1) return true;
  }
  return false;
}

bool conflict(Kind a, Kind b) {
  return a == Kind::write || b == Kind::write || a != b;
}

class Checker final : public Observer {
 public:
  void launch_begins(const LaunchInfo& launch) override;
  void launch_ends() override { blocks_.clear(); }
  void block_begins(const LaunchInfo& launch, int threads, const unsigned char* arena, std::size_t bytes) override;
  void shared_array_begins(const SharedArray& array, const void* data) override;
  void block_ends() override {}
  void block_met() override { clocks_.block_met(); }
  void warp_met(int warp, std::uint32_t lanes) override { clocks_.warp_met(warp, lanes); }
  void copy_issued(int thread, const void* global, void* shared, std::size_t bytes, const void* site) override;
  void copy_completed(int thread, const void* global, void* shared, std::size_t bytes, const void* site) override;
  void buffer_registered(const void* data, std::size_t bytes) override { buffers_.add(data, bytes); }
  void buffer_unregistered(const void* data) override { buffers_.remove(data); }

  void access(int thread, const void* p, std::size_t bytes, Kind kind, const void* site);
  std::vector<std::string> take_reports() { return findings_.take(); }

 private:
  struct Block {
    Stamp first;
    uint3 index;
  };
  struct Array {
    const SharedArray* declared;
    Range range;
  };

  bool is_in_an_array(std::uintptr_t address, std::size_t bytes);
  template <bool kShared>
  void remember(Access now, std::uintptr_t address, std::size_t bytes);
  template <bool kShared>
  bool touch(Cell& cell, const Access& now, std::uintptr_t address, std::size_t bytes, bool report);
  template <bool kShared>
  void join(Groups& groups, const Access& now);
  template <bool kShared>
  bool ordered(const Access& earlier, int thread) const {
    if (earlier.stamp < (kShared ? block_first_ : horizon_)) return true;
    return earlier.stamp >= block_first_ && clocks_.ordered(earlier, thread);
  }
  // Those lanes of the group that are not ordered before what `thread` does now.
  template <bool kShared>
  std::uint32_t unordered(const Group& group, int thread) const {
    if (group.stamp < (kShared ? block_first_ : horizon_)) return 0;
    return group.stamp < block_first_ ? group.lanes : clocks_.unordered(group, thread);
  }

  void report(Problem problem, const Access& now, std::uintptr_t address, std::size_t bytes, const Access* earlier);
  Finding finding(Problem problem, const Access& now, std::uintptr_t address, std::size_t bytes,
                  const Access* earlier) const;
  Place place(std::uintptr_t address) const;
  Party party(const Access& access, std::size_t bytes) const;
  std::uint32_t distance(const void* site) const { return static_cast<std::uint32_t>(address_of(site) - module_); }

  const std::uintptr_t module_ = start_of_module();
  Clocks clocks_;
  Shadow shared_{~std::size_t{0}};  // the arena's: of one size for ever
  Shadow global_{kShadowBytes};
  Buffers buffers_;
  Findings findings_;

  const void* kernel_ = nullptr;
  dim3 block_size_;
  Range arena_;
  Stamp horizon_ = 0;      // global accesses before it are of earlier launches, or forgotten
  Stamp block_first_ = 0;  // accesses before it are of earlier blocks
  std::vector<Block> blocks_;
  std::vector<Array> arrays_;
  std::size_t recent_array_ = 0;
  std::string stop_text_;
};

Checker checker;
[[maybe_unused]] const bool installed = (observe(&checker), true);

void Checker::launch_begins(const LaunchInfo& launch) {
  kernel_ = launch.kernel;
  block_size_ = launch.block;
  buffers_.begin_launch(launch);
  global_.clear();
  blocks_.clear();
  horizon_ = clocks_.begin_launch();
}

void Checker::block_begins(const LaunchInfo&, int, const unsigned char* arena, std::size_t bytes) {
  arena_ = {address_of(arena), address_of(arena) + bytes};
  arrays_.clear();
  recent_array_ = 0;
  block_first_ = clocks_.begin_block();
  blocks_.push_back({block_first_, blockIdx});
}

void Checker::shared_array_begins(const SharedArray& array, const void* data) {
  arrays_.push_back({&array, {address_of(data), address_of(data) + array.bytes}});
}

bool Checker::is_in_an_array(std::uintptr_t address, std::size_t bytes) {
  if (recent_array_ < arrays_.size() && arrays_[recent_array_].range.holds(address, bytes)) return true;
  for (std::size_t i = 0; i < arrays_.size(); ++i) {
    if (!arrays_[i].range.holds(address, bytes)) continue;
    recent_array_ = i;
    return true;
  }
  return false;
}

void Checker::access(int thread, const void* p, std::size_t bytes, Kind kind, const void* site) {
  const std::uintptr_t address = address_of(p);
  const Access now{clocks_.now(thread), distance(site), static_cast<std::uint16_t>(thread), kind, false};
  const bool is_shared = arena_.begin <= address && address < arena_.end;
  if (is_shared) {
    if (is_in_an_array(address, bytes)) return remember<true>(now, address, bytes);
  } else if (buffers_.allows(address, bytes)) {
    return remember<false>(now, address, bytes);
  }
  const Problem problem = is_shared ? Problem::beyond_shared : Problem::beyond_buffers;
  const Finding found = finding(problem, now, address, bytes, nullptr);
  findings_.add(found);
  stop_text_ = describe_alone(found);  // not in this frame, which is given up
  stop(stop_text_.c_str());
}

template <bool kShared>
void Checker::remember(Access now, std::uintptr_t address, std::size_t bytes) {
  Shadow& shadow = kShared ? shared_ : global_;
  if (!kShared && !shadow.has_room()) {
    shadow.clear();
    now.stamp = horizon_ = clocks_.advance();
    findings_.add_forgotten();
  }
  const unsigned shift = (address | bytes) % 4 == 0 ? 2 : (address | bytes) % 2 == 0 ? 1 : 0;
  bool reported = false;  // one access is reported once, however many bytes of it are in question
  for (std::size_t done = 0; done < bytes;) {
    const Page& page = shadow.page(address + done, shift);
    const std::size_t offset = (address + done) % kPageBytes, end = std::min(kPageBytes, offset + bytes - done);
    for (std::size_t i = offset; i < end; i += std::size_t{1} << page.shift) {
      reported = touch<kShared>(page.cell(i), now, address, bytes, !reported) || reported;
    }
    done += end - offset;
    if (!kShared && done < bytes && !shadow.has_room()) return;  // a huge copy: the next access starts anew
  }
}

// Whether something was found wrong. Reports it if asked to.
template <bool kShared>
bool Checker::touch(Cell& cell, const Access& now, std::uintptr_t address, std::size_t bytes, bool report_it) {
  bool wrong = false;
  const auto found = [&](Problem problem, const Access* earlier) {
    if (report_it && !wrong) report(problem, now, address, bytes, earlier);
    wrong = true;
  };
  const auto check = [&](const Groups& groups, Kind kind) {
    for (const Group& group : groups) {
      const std::uint32_t lanes = group.lanes == 0 || wrong ? 0 : unordered<kShared>(group, now.thread);
      if (lanes == 0) continue;
      const auto thread = static_cast<std::uint16_t>(group.warp * 32 + static_cast<unsigned>(__builtin_ctz(lanes)));
      const Access earlier{group.stamp, group.site, thread, kind, false};
      found(Problem::race, &earlier);
    }
  };

  const bool is_written = !kShared || cell.write.stamp >= block_first_;
  if (kShared && is_written && cell.write.in_flight) {
    found(Problem::in_flight, &cell.write);
  } else if (is_repeated(cell, now)) {
    return false;
  }
  if (kShared && !is_written && now.kind != Kind::write) {
    found(Problem::uninitialised, nullptr);
    if (now.kind == Kind::atomic) cell.write = now;  // written by this, for better or worse
  }
  if (!wrong && conflict(cell.write.kind, now.kind) && !ordered<kShared>(cell.write, now.thread)) {
    found(Problem::race, &cell.write);
  }
  if (now.kind != Kind::read) check(cell.reads, Kind::read);
  if (now.kind != Kind::atomic) check(cell.atomics, Kind::atomic);

  if (now.kind == Kind::write) {
    cell = {now, {}, {}};
  } else {
    join<kShared>(now.kind == Kind::read ? cell.reads : cell.atomics, now);
  }
  return wrong;
}

// Adds an access to those of its kind.
template <bool kShared>
void Checker::join(Groups& groups, const Access& now) {
  const std::uint32_t lane = 1u << now.thread % 32;
  const Group alone{now.stamp, now.thread / 32u, now.site, lane};
  for (Group& group : groups) {
    if (!is_of(group, now) || group.site != now.site) continue;
    group.lanes |= lane;
    return;
  }
  for (Group& group : groups) {
    if (unordered<kShared>(group, now.thread) != 0) continue;
    group = alone;
    return;
  }
  for (Group& group : groups) {  // at another line, which a report on this lane then won't name
    if (!is_of(group, now)) continue;
    group.lanes |= lane;
    return;
  }
  if (groups[0].warp == groups[1].warp) groups[1] = alone;
}

void Checker::copy_issued(int thread, const void*, void* shared, std::size_t bytes, const void* site) {
  for (std::size_t i = 0; i < bytes; i += 4) {
    const std::uintptr_t address = address_of(shared) + i;
    if (!is_in_an_array(address, 4)) return;  // reported when its bytes were marked
    Page& page = shared_.page(address, 2);
    for (std::size_t j = 0; j < 4; j += std::size_t{1} << page.shift) {
      page.cell(address % kPageBytes + j).write = {clocks_.now(thread), distance(site),
                                                   static_cast<std::uint16_t>(thread), Kind::write, true};
    }
  }
}

void Checker::copy_completed(int thread, const void* global, void* shared, std::size_t bytes, const void* site) {
  for (std::size_t i = 0; i < bytes; i += 4) {
    const std::uintptr_t address = address_of(shared) + i;
    if (!is_in_an_array(address, 4)) return;
    Page& page = shared_.page(address, 2);
    for (std::size_t j = 0; j < 4; j += std::size_t{1} << page.shift) {
      page.cell(address % kPageBytes + j).write.in_flight = false;
    }
  }
  if (global != nullptr) access(thread, global, bytes, Kind::read, site);
  access(thread, shared, bytes, Kind::write, site);
}

void Checker::report(Problem problem, const Access& now, std::uintptr_t address, std::size_t bytes,
                     const Access* earlier) {
  findings_.add(finding(problem, now, address, bytes, earlier));
}

Finding Checker::finding(Problem problem, const Access& now, std::uintptr_t address, std::size_t bytes,
                         const Access* earlier) const {
  return {problem, place(address), party(now, bytes), earlier == nullptr ? Party{} : party(*earlier, 0), kernel_, 1};
}

Party Checker::party(const Access& access, std::size_t bytes) const {
  const auto after = std::upper_bound(blocks_.begin(), blocks_.end(), access.stamp,
                                      [](Stamp stamp, const Block& block) { return stamp < block.first; });
  const unsigned thread = access.thread, x = block_size_.x, y = block_size_.y;
  return {access.kind,
          bytes,
          reinterpret_cast<const void*>(module_ + access.site),
          after == blocks_.begin() ? blockIdx : std::prev(after)->index,
          {thread % x, thread / x % y, thread / (x * y)}};
}

// The array or buffer that holds the address, or else the nearest.
Place Checker::place(std::uintptr_t address) const {
  if (address < arena_.begin || address >= arena_.end) {
    const Range buffer = buffers_.nearest(address);
    return {false, nullptr, reinterpret_cast<const void*>(buffer.begin), buffer.end - buffer.begin,
            static_cast<std::ptrdiff_t>(address - buffer.begin)};
  }
  const Array* nearest = nullptr;
  std::uintptr_t distance = ~std::uintptr_t{0};
  for (const Array& array : arrays_) {
    const std::uintptr_t away = address < array.range.begin ? array.range.begin - address
                                : address < array.range.end ? 0
                                                            : address - array.range.end + 1;
    if (away < distance) {
      nearest = &array;
      distance = away;
    }
  }
  if (nearest == nullptr) return {true, nullptr, nullptr, 0, static_cast<std::ptrdiff_t>(address - arena_.begin)};
  return {true, nearest->declared->name, nullptr, nearest->range.end - nearest->range.begin,
          static_cast<std::ptrdiff_t>(address - nearest->range.begin)};
}

}  // namespace

}  // namespace race

void accessed(const void* p, std::size_t bytes, Kind kind, const void* site) {
  // Launchers are compiled as kernels are, and run on ordinary stacks, perhaps while another thread's kernel runs.
  if (!is_on_a_stack(__builtin_frame_address(0)) || is_on_a_stack(p)) return;
  race::checker.access(current_thread(), p, bytes, kind, site);
}

void function_entered() {}
void function_left() {}

std::vector<std::string> take_reports() {
  return race::checker.take_reports();
}

}  // namespace gpucnn::simt

#include "simt/profile.h"

#include "simt/kernels.h"
#include "simt/observed.h"
#include "simt/observed_buffers.h"
#include "simt/observer.h"
#include "simt/profile_replay.h"
#include "simt/profile_traffic.h"

#include <algorithm>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <utility>

namespace gpucnn::simt {
namespace profile {
namespace {

using detail::Purpose;

constexpr std::uint32_t kWidestAccess = 16;

std::uintptr_t address_of(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p);
}

std::uintptr_t start_of_module() {
  Dl_info info;
  dladdr(reinterpret_cast<const void*>(&start_of_module), &info);
  return address_of(info.dli_fbase);
}

const char* in_words(Purpose purpose) {
  switch (purpose) {
    case Purpose::load:
      return "load";
    case Purpose::store:
      return "store";
    case Purpose::atomic:
      return "atomic";
    case Purpose::copy_load:
      return "cp.async load";
    case Purpose::copy_store:
      return "cp.async store";
    case Purpose::matrix_row:
      return "ldmatrix";
  }
  return "access";
}

class Profiler final : public Observer, private Sink {
 public:
  void launch_begins(const LaunchInfo& launch) override;
  void launch_ends() override;
  bool skips_block() override;
  void block_begins(const LaunchInfo& launch, int threads, const unsigned char* arena, std::size_t bytes) override;
  void shared_array_begins(const SharedArray& array, const void* data) override;
  void block_ends() override;
  void block_met() override;
  void warp_met(int, std::uint32_t) override {}
  void warp_operated(int warp, std::uint32_t lanes, const char* operation, Site site) override;
  void copy_issued(int, const void*, void*, std::size_t, const void*) override {}
  void copy_completed(int, const void*, void*, std::size_t, const void*) override {}
  void buffer_registered(const void* data, std::size_t bytes) override { buffers_.add(data, bytes); }
  void buffer_unregistered(const void* data) override { buffers_.remove(data); }

  void access(const void* p, std::size_t bytes, Purpose purpose, const void* site);
  void entered_block(const void* site);
  void entered_function() { replay_.entered(current_thread()); }
  void left_function() { replay_.left(current_thread()); }
  bool listens() const { return is_sampled_; }

  void start(int sample, bool only_sampled);
  std::vector<LaunchCounts> take();

 private:
  // Where the arrays of a launch lie in a space of their own.
  struct Placed {
    Range range;
    std::uint64_t begin;
  };
  // What warps did at one place, while a launch runs.
  struct Tally {
    std::uint64_t lanes = 0, warps = 0;
    AccessCounts counts{};
  };

  void retired(int warp, std::uint32_t place, std::uint32_t lanes, const Request& request) override;
  void count_global(const Place& place, Tally& tally, const Request& request);
  void count_shared(Tally& tally, const Request& request);
  void happened(std::uint32_t place, std::uint64_t address);
  std::uint64_t in_own_space(std::uintptr_t address);
  static void keep_worst(AccessCounts& counts, const Request& request, std::uint64_t cost, bool is_shared);

  const std::uintptr_t module_ = start_of_module();
  Replay replay_{*this};
  Buffers buffers_;
  Traffic traffic_;
  int sample_ = 0;
  bool only_sampled_ = false;
  bool is_sampled_ = false;  // the block that runs
  Range arena_;
  std::vector<Placed> placed_;
  std::size_t recent_placed_ = 0;
  std::vector<Tally> tallies_;  // by place
  std::map<std::pair<std::string, std::pair<std::string, int>>, std::uint64_t> operations_;
  std::vector<std::uint64_t> warp_steps_ = std::vector<std::uint64_t>(32);
  LaunchCounts launch_{};
  std::vector<LaunchCounts> launches_;
};

// Shared memory keeps the addresses that it has in the arena, far from the arrays'.
constexpr std::uint64_t kSharedSpace = std::uint64_t{1} << 62, kArrayAlignment = 256;

Profiler profiler;
[[maybe_unused]] const bool installed = (observe(&profiler), true);

void Profiler::start(int sample, bool only_sampled) {
  sample_ = sample;
  only_sampled_ = only_sampled;
  launches_.clear();
}

std::vector<LaunchCounts> Profiler::take() {
  return std::exchange(launches_, {});
}

void Profiler::launch_begins(const LaunchInfo& launch) {
  is_sampled_ = false;
  if (sample_ == 0) return;
  buffers_.begin_launch(launch);
  placed_.clear();
  recent_placed_ = 0;
  std::uint64_t next = kArrayAlignment;
  for (const Range& range : buffers_.ranges()) {
    placed_.push_back({range, next + range.begin % kWidestAccess});
    next += (range.end - range.begin + 2 * kArrayAlignment) / kArrayAlignment * kArrayAlignment;
  }
  traffic_.begin_launch();
  tallies_.assign(replay_.places().size(), {});
  operations_.clear();
  launch_ = {};
  launch_.address = launch.kernel;
  launch_.grid = launch.grid;
  launch_.block = launch.block;
  launch_.shared_bytes = launch.shared_bytes;
}

void Profiler::launch_ends() {
  if (sample_ == 0) return;
  is_sampled_ = false;
  const Kernel kernel = kernel_at(launch_.address);
  launch_.file = kernel.file;
  launch_.kernel = kernel.name;
  const auto& places = replay_.places();
  for (std::size_t i = 0; i < tallies_.size(); ++i) {
    Tally& tally = tallies_[i];
    const std::uintptr_t counter = places[i].counter - module_;
    if (places[i].is_block) {
      if (tally.warps > 0 && places[i].counter != 0) {
        launch_.basic_blocks.push_back({counter, tally.lanes, tally.warps});
      }
    } else if (tally.counts.requests + tally.counts.shared_requests > 0) {
      tally.counts.counter = counter;
      tally.counts.purpose = in_words(places[i].purpose);
      tally.counts.bytes = places[i].bytes;
      launch_.accesses.push_back(tally.counts);
    }
  }
  for (const auto& [operation, warps] : operations_) {
    launch_.operations.push_back({operation.first, operation.second.first, operation.second.second, warps});
  }
  launches_.push_back(std::move(launch_));
}

bool Profiler::skips_block() {
  if (sample_ == 0) return false;
  is_sampled_ = launch_.blocks++ % static_cast<std::uint64_t>(sample_) == 0;
  return only_sampled_ && !is_sampled_;
}

void Profiler::block_begins(const LaunchInfo&, int threads, const unsigned char* arena, std::size_t bytes) {
  if (!is_sampled_) return;
  ++launch_.sampled_blocks;
  launch_.static_shared_bytes = 0;
  arena_ = {address_of(arena), address_of(arena) + bytes};
  replay_.begin_block(threads);
  traffic_.begin_block();
  std::fill(warp_steps_.begin(), warp_steps_.end(), 0);
}

void Profiler::shared_array_begins(const SharedArray& array, const void*) {
  if (is_sampled_ && array.site.line != 0) launch_.static_shared_bytes += array.bytes;
}

void Profiler::block_ends() {
  if (!is_sampled_) return;
  replay_.finish_all();
  std::uint64_t block = 0;
  for (const std::uint64_t steps : warp_steps_) {
    block += steps;
    launch_.longest_warp_steps = std::max(launch_.longest_warp_steps, steps);
    launch_.warps += steps > 0;
  }
  launch_.steps += block;
  launch_.longest_block_steps = std::max(launch_.longest_block_steps, block);
}

void Profiler::block_met() {
  if (!is_sampled_) return;
  ++launch_.barriers;
  replay_.finish_all();
}

void Profiler::warp_operated(int warp, std::uint32_t lanes, const char* operation, Site site) {
  if (!is_sampled_) return;
  ++operations_[{operation, {site.file, site.line}}];
  if (replay_.is_whole(warp, lanes)) {
    replay_.finish(warp);
  } else {
    replay_.advance(warp);
  }
}

std::uint64_t Profiler::in_own_space(std::uintptr_t address) {
  if (address >= arena_.begin && address < arena_.end) return kSharedSpace + (address - arena_.begin);
  const auto offset_in = [address](const Placed& placed) { return placed.begin + (address - placed.range.begin); };
  if (recent_placed_ < placed_.size() && placed_[recent_placed_].range.holds(address, 1)) {
    return offset_in(placed_[recent_placed_]);
  }
  for (std::size_t i = 0; i < placed_.size(); ++i) {
    if (!placed_[i].range.holds(address, 1)) continue;
    recent_placed_ = i;
    return offset_in(placed_[i]);
  }
  return 0;  // parameters, constants: nobody's to count
}

void Profiler::access(const void* p, std::size_t bytes, Purpose purpose, const void* site) {
  const std::uintptr_t address = address_of(p);
  for (std::size_t done = 0; done < bytes; done += kWidestAccess) {  // a memcpy goes in steps
    const auto step = static_cast<std::uint32_t>(std::min<std::size_t>(bytes - done, kWidestAccess));
    const std::uint64_t at = p == nullptr ? 0 : in_own_space(address + done);
    if (p == nullptr || at != 0) happened(replay_.place(address_of(site), false, purpose, step), at);
  }
}

void Profiler::entered_block(const void* site) {
  happened(replay_.place(address_of(site), true, Purpose::load, 0), 0);
}

void Profiler::happened(std::uint32_t place, std::uint64_t address) {
  const int thread = current_thread();
  if (replay_.is_full(thread)) replay_.advance(thread / 32);
  if (replay_.is_full(thread)) let_others_run();
  if (replay_.is_full(thread)) replay_.drain(thread);  // the others have come as far as they can
  replay_.happened(thread, place, address);
}

void Profiler::retired(int warp, std::uint32_t place, std::uint32_t lanes, const Request& request) {
  if (place >= tallies_.size()) tallies_.resize(replay_.places().size());
  Tally& tally = tallies_[place];
  ++tally.warps;
  tally.lanes += static_cast<std::uint64_t>(__builtin_popcount(lanes));
  const Place& at = replay_.places()[place];
  if (at.is_block) {
    ++warp_steps_[warp];
    return;
  }
  if (request.lanes == 0) return;
  Request shared = request, global = request;
  shared.lanes = global.lanes = 0;
  for (std::uint32_t rest = request.lanes; rest != 0; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    (request.address[lane] >= kSharedSpace ? shared : global).lanes |= 1u << lane;
  }
  if (shared.lanes != 0) count_shared(tally, shared);
  if (global.lanes != 0) count_global(at, tally, global);
}

void Profiler::count_shared(Tally& tally, const Request& request) {
  const SharedCost cost = shared_cost(request);
  AccessCounts& counts = tally.counts;
  ++counts.shared_requests;
  counts.shared_lanes += static_cast<std::uint64_t>(__builtin_popcount(request.lanes));
  counts.wavefronts += cost.wavefronts;
  counts.ideal_wavefronts += cost.ideal_wavefronts;
  keep_worst(counts, request, cost.wavefronts, true);
}

void Profiler::count_global(const Place& place, Tally& tally, const Request& request) {
  std::uint64_t sector[kMostSectors];
  const GlobalCost cost = global_cost(request, sector);
  AccessCounts& counts = tally.counts;
  ++counts.requests;
  counts.lanes += static_cast<std::uint64_t>(__builtin_popcount(request.lanes));
  counts.sectors += cost.sectors;
  counts.ideal_sectors += cost.ideal_sectors;
  counts.lines += cost.lines;
  counts.unique_bytes += cost.unique_bytes;
  keep_worst(counts, request, cost.sectors, false);
  launch_.global_wavefronts += std::max(cost.lines, (cost.sectors + 3) / 4);
  const bool writes = place.purpose == Purpose::store || place.purpose == Purpose::atomic;
  const bool reads = place.purpose != Purpose::store;
  // cp.async of 16 bytes is .cg: past the first-level cache, as stores and atomics are.
  const bool passes_by = writes || (place.purpose == Purpose::copy_load && place.bytes == 16);
  for (std::uint32_t i = 0; i < cost.sectors; ++i) {
    if (reads) launch_.sectors_read += traffic_.reads(sector[i]);
    if (writes) launch_.sectors_written += traffic_.writes(sector[i]);
    launch_.least_l2_sectors += passes_by || !traffic_.is_cached(sector[i]);
  }
}

void Profiler::keep_worst(AccessCounts& counts, const Request& request, std::uint64_t cost, bool is_shared) {
  const int lanes = __builtin_popcount(request.lanes), kept = __builtin_popcount(counts.worst_lanes);
  if (cost < counts.worst_cost || (cost == counts.worst_cost && lanes <= kept)) return;
  counts.worst_cost = cost;
  counts.worst_lanes = request.lanes;
  counts.is_worst_shared = is_shared;
  for (int lane = 0; lane < 32; ++lane) {
    counts.worst_address[lane] = is_shared ? request.address[lane] & ~kSharedSpace : request.address[lane];
  }
}

}  // namespace

void start(int sample, bool only_sampled) {
  profiler.start(sample, only_sampled);
}

std::vector<LaunchCounts> take() {
  return profiler.take();
}

}  // namespace profile

void accessed(const void* p, std::size_t bytes, Kind kind, const void* site) {
  if (!profile::profiler.listens() || !is_on_a_stack(__builtin_frame_address(0)) || is_on_a_stack(p)) return;
  const auto purpose = kind == Kind::read    ? detail::Purpose::load
                       : kind == Kind::write ? detail::Purpose::store
                                             : detail::Purpose::atomic;
  profile::profiler.access(p, bytes, purpose, site);
}

void function_entered() {
  if (profile::profiler.listens() && is_on_a_stack(__builtin_frame_address(0))) profile::profiler.entered_function();
}
void function_left() {
  if (profile::profiler.listens() && is_on_a_stack(__builtin_frame_address(0))) profile::profiler.left_function();
}

namespace detail {

void announce(const void* p, std::size_t bytes, Purpose purpose, const char* what, Site site) {
  if (reinterpret_cast<std::uintptr_t>(p) % bytes != 0) misaligned(what, p, bytes, site);
  if (!profile::profiler.listens() || is_on_a_stack(p)) return;
  profile::profiler.access(p, bytes, purpose, __builtin_return_address(0));
}

}  // namespace detail
}  // namespace gpucnn::simt

// What -fsanitize-coverage=trace-pc makes kernels call when they enter a basic block.
extern "C" void __sanitizer_cov_trace_pc() {
  using namespace gpucnn::simt;
  if (!profile::profiler.listens() || !is_on_a_stack(__builtin_frame_address(0))) return;
  profile::profiler.entered_block(__builtin_return_address(0));
}

// A launch from its checks to its end. One at a time.
#include "simt/arena.h"
#include "simt/block.h"
#include "simt/copies.h"
#include "simt/kernels.h"
#include "simt/limits.h"
#include "simt/memory_fault.h"
#include "simt/source_line.h"
#include "simt/texts.h"

#include <cstdlib>
#include <mutex>
#include <optional>

namespace gpucnn::simt {
namespace detail {
namespace {

std::mutex launching;               // and everything else that is the module's
std::optional<Order> chosen_order;  // by set_order()

Order current_order() {
  if (chosen_order) return *chosen_order;
  const char* text = std::getenv("GPUCNN_SIMT_ORDER");
  return text && *text ? parse_order(text, "GPUCNN_SIMT_ORDER") : Order{};
}

[[noreturn]] void refuse(const LaunchInfo& launch, const std::string& what) {
  throw Fault("simt: kernel " + kernel_name(launch.kernel) + " can't be launched: " + what);
}

void check_limits(const LaunchInfo& launch) {
  const dim3 grid = launch.grid, block = launch.block;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) refuse(launch, "a grid of " + in_words(grid) + " has no blocks");
  if (block.x == 0 || block.y == 0 || block.z == 0) refuse(launch, "a block of " + in_words(block) + " has no threads");
  if (grid.x > kMaxGridX || grid.y > kMaxGridYZ || grid.z > kMaxGridYZ) {
    refuse(launch, "a grid of " + in_words(grid) + " is beyond the limit of (2147483647, 65535, 65535) blocks");
  }
  if (block.x > kMaxThreads || block.y > kMaxThreads / block.x || block.z > kMaxThreads / (block.x * block.y)) {
    refuse(launch, "a block of " + in_words(block) + " is beyond the limit of 1024 threads");
  }
  if (block.z > kMaxBlockZ) refuse(launch, "a block of " + in_words(block) + " is beyond the limit of 64 in z");
  if (launch.shared_bytes > kMaxSharedBytes) {
    refuse(launch, std::to_string(launch.shared_bytes) + " bytes of dynamic shared memory are beyond the limit of " +
                       std::to_string(kMaxSharedBytes) + " (227 KiB)");
  }
}

// What a launch holds, given back whichever way it ends.
class Running {
 public:
  explicit Running(const Launch& launch) {
    block.launch = &launch;
    grid_shape = launch.info.grid;
    block_shape = launch.info.block;
    block_index = {0, 0, 0};
    prepare_threads();
    if (observer) observer->launch_begins(launch.info);
  }
  ~Running() {
    const bool was_stopped = block.running >= 0;
    block.running = -1;
    if (observer) observer->launch_ends();
    close_arena();
    if (was_stopped) forget_stacks();
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

 private:
  MemoryFaults faults_;
};

}  // namespace

void run(const Launch& launch) {
  const std::lock_guard<std::mutex> lock(launching);
  const Order order = current_order();
  check_limits(launch.info);
  const Running running(launch);
  block.ready.begin_launch(order);
  const dim3 grid = launch.info.grid;
  const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  const BlockOrder block_at(order, blocks);
  for (std::uint64_t i = 0; i < blocks; ++i) {
    if (observer && observer->skips_block()) continue;
    const std::uint64_t at = block_at[i];
    block_index = {static_cast<unsigned>(at % grid.x), static_cast<unsigned>(at / grid.x % grid.y),
                   static_cast<unsigned>(at / grid.x / grid.y)};
    forget_copies();
    begin_arena();
    run_block();
    check_arena();
    if (observer) observer->block_ends();
  }
  note_launched(launch.info);
}

void misaligned(const char* what, const void* p, std::size_t alignment, Site site) {
  stop_with([&] {
    return "misaligned access: " + thread_in_words(block.running) + ": " + what + " at " + in_words(site) +
           " needs an address that " + std::to_string(alignment) + " divides, and is given one that is " +
           std::to_string(reinterpret_cast<std::uintptr_t>(p) % alignment) + " bytes beyond such";
  });
}

}  // namespace detail

void set_order(const std::string& order) {
  std::optional<detail::Order> parsed;
  if (!order.empty()) parsed = detail::parse_order(order, "the order");
  const std::lock_guard<std::mutex> lock(detail::launching);
  detail::chosen_order = parsed;
}

void set_eager_copies(bool eager) {
  const std::lock_guard<std::mutex> lock(detail::launching);
  detail::set_eager(eager);
}

void register_buffer(const void* data, std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(detail::launching);
  if (detail::observer) detail::observer->buffer_registered(data, bytes);
}

void unregister_buffer(const void* data) {
  const std::lock_guard<std::mutex> lock(detail::launching);
  if (detail::observer) detail::observer->buffer_unregistered(data);
}

}  // namespace gpucnn::simt

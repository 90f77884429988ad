// The block that runs now: its threads, what they wait for, and how a launch ends before its time. Internal to the
// runtime.
#pragma once

#include "simt/fiber.h"
#include "simt/host.h"
#include "simt/order.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <string>

namespace gpucnn::simt::detail {

// The built-in variables under names that may be written; kernels see them as constants (host_types.h).
extern uint3 thread_index __asm__("threadIdx") GPUCNN_SIMT_HIDDEN;
extern uint3 block_index __asm__("blockIdx") GPUCNN_SIMT_HIDDEN;
extern dim3 block_shape __asm__("blockDim") GPUCNN_SIMT_HIDDEN;
extern dim3 grid_shape __asm__("gridDim") GPUCNN_SIMT_HIDDEN;

struct Thread {
  enum State : std::uint8_t { kReady, kInBarrier, kInWarp, kReturned } state = kReady;
  uint3 index{};
  Fiber fiber;
};

// Lanes of one warp that come together for an operation.
struct Meeting {
  const WarpOperation* operation;
  Site site;
  std::uint32_t lanes;    // that are to come: those of the mask that exist
  std::uint32_t arrived;  // and wait
};

struct Warp {
  std::uint32_t lanes = 0;     // that exist: fewer than 32 in the last warp of a block
  std::uint32_t returned = 0;  // from the kernel
  int meetings = 0;            // open ones; their lanes are disjoint
  std::array<Meeting, 32> meeting;
  std::array<void*, 32> brought{};  // by the lanes that wait
};

struct Block {
  int threads = 0;
  int running = -1;  // the thread whose turn it is; -1: the launching thread's
  int returned = 0;  // threads that are done
  int in_barrier = 0;
  Site barrier{};  // where the first of those waits
  std::array<Thread, kMaxThreads> thread;
  std::array<Warp, kMaxThreads / 32> warp;
  ReadyThreads ready;
  Fiber launcher;
  const Launch* launch = nullptr;
};
extern Block block;
extern Observer* observer;  // null where nobody listens

// Runs every thread of the block at block_index, from the launching thread. Throws Fault.
void prepare_threads();  // once for a launch, whose shape is set
void run_block();

// Gives up the block: the launching thread goes on and throws a Fault of the text that describe(details) then makes, on
// its own stack; the frames of all fibers stay as they are until then, and are abandoned after it. So nothing may own
// memory in a frame of a fiber.
[[noreturn]] void stop_block(std::string (*describe)(const void* details), const void* details);

template <typename Describe>
[[noreturn]] void stop_with(const Describe& describe) {
  stop_block([](const void* details) { return (*static_cast<const Describe*>(details))(); }, &describe);
}

inline bool is_same(Site a, Site b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

// Lets another thread run until this one, which has said what it waits for, has been woken and is chosen again.
void suspend();
void wake(int thread);

}  // namespace gpucnn::simt::detail

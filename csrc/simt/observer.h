// What a flavour's observer is told while kernels run on the host. The runtime calls; the race checker and the profiler
// listen.
//
// There is at most one observer in a module, installed by observe() when the module is loaded. Every call is made while
// the runtime's lock is held, from the operating-system thread that launched, on whatever stack runs at that moment: an
// observer keeps its frames small (a fiber has 256 KiB) and throws nothing. Memory accesses are not reported here:
// the compiler's own instrumentation of the kernels does that.
#pragma once

#include "simt/host_types.h"

#include <cstddef>
#include <cstdint>

namespace gpucnn::simt {

// One launch, and where the kernel's parameters lie: threads read them from there, and nobody registers that memory.
struct LaunchInfo {
  const void* kernel;  // its address; kernel_name() (source_line.h) makes a name of it
  dim3 grid, block;
  std::size_t shared_bytes;  // dynamic
  const void* parameters;
  std::size_t parameter_bytes;
};

// A declaration of shared memory. One object for each declaration and template instance, alive as long as the module.
struct SharedArray {
  const char* name;
  Site site;
  std::size_t bytes, alignment;
};

class Observer {
 public:
  virtual void launch_begins(const LaunchInfo& launch) = 0;
  virtual void launch_ends() = 0;  // also where a Fault ended it: then block_ends() was not called

  // Whether the block that would begin now is left out.
  virtual bool skips_block() { return false; }

  // Blocks run one after another. Their shared memory is [arena, arena + bytes): the same for all of a process, of
  // which a block owns what shared_array_begins() names, once for each array, when its first thread reaches the
  // declaration (dynamic shared memory: right after block_begins). What lies between is redzone. Contents are
  // uninitialised.
  virtual void block_begins(const LaunchInfo& launch, int threads, const unsigned char* arena, std::size_t bytes) = 0;
  virtual void shared_array_begins(const SharedArray& array, const void* data) = 0;
  virtual void block_ends() = 0;

  // Every thread of the block stands at a __syncthreads() and none has left it: what was done before is ordered before
  // what will be done after, for all pairs of threads.
  virtual void block_met() = 0;

  // The same for those lanes (bit l: thread 32 * warp + l) of a __syncwarp(). Shuffles, votes, ldmatrix and mma order
  // no memory and are not reported.
  virtual void warp_met(int warp, std::uint32_t lanes) = 0;

  // Every warp operation that lanes have met for, those of warp_met() among them: its name and where it stands.
  virtual void warp_operated(int warp, std::uint32_t lanes, const char* operation, Site site) {
    static_cast<void>(warp), static_cast<void>(lanes), static_cast<void>(operation), static_cast<void>(site);
  }

  // cp.async by `thread`, issued at program counter `site`. From its issue to its completion nobody may touch the
  // shared bytes; the issuing thread's own instrumented write marks them at the issue. At completion they are written
  // by `thread` as of that moment. `global` is null where the bytes are only zero-filled.
  virtual void copy_issued(int thread, const void* global, void* shared, std::size_t bytes, const void* site) = 0;
  virtual void copy_completed(int thread, const void* global, void* shared, std::size_t bytes, const void* site) = 0;

  // The arrays of a call, announced by its binding (several may be the same memory: count them). May come from any
  // thread, but never while a kernel runs.
  virtual void buffer_registered(const void* data, std::size_t bytes) = 0;
  virtual void buffer_unregistered(const void* data) = 0;

 protected:
  ~Observer() = default;
};

// Installs the module's observer; called by a static initialiser of the checker's own file.
void observe(Observer* observer);

// The linear index (x fastest) of the thread that runs now; -1 between threads and outside a launch.
int current_thread();

// Whether p lies on the stack of some simulated thread: memory that is its own, as long as its address goes nowhere.
bool is_on_a_stack(const void* p);

// Lets the other threads of the block that can go on run before this one does. Only from inside a kernel.
void let_others_run();

// Ends the launch with a Fault of this text, to which kernel, block and thread are added. Only from inside a kernel.
[[noreturn]] void stop(const char* text);

}  // namespace gpucnn::simt

// Signals that a kernel causes, as Faults. Internal to the runtime.
#pragma once

#include <csignal>

namespace gpucnn::simt::detail {

// While one lives, memory that a kernel may not touch, a stack that overflows and an integer division by zero stop the
// block instead of the process. Signals of other threads, and of this one outside kernels, take the way they took
// before.
class MemoryFaults {
 public:
  MemoryFaults();
  ~MemoryFaults();
  MemoryFaults(const MemoryFaults&) = delete;
  MemoryFaults& operator=(const MemoryFaults&) = delete;

 private:
  stack_t old_stack_{};
};

}  // namespace gpucnn::simt::detail

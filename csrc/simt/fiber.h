// Fibers: a stack each, and a switch between them in a few nanoseconds. Internal to the runtime.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gpucnn::simt::detail {

constexpr int kMaxThreads = 1024;  // in a block

// What of a fiber outlives its turn. The launching thread has one too, without a stack of ours.
struct Fiber {
  void* stack_pointer = nullptr;   // its saved registers lie there
  unsigned char* stack = nullptr;  // the lowest usable byte; for the launching thread what AddressSanitizer says
  std::size_t stack_bytes = 0;
  void* sanitizer_stack = nullptr;  // AddressSanitizer's fake stack for it, if it keeps one
};

// Makes sure that fibers [0, count) have stacks. Throws Fault where the system refuses the memory.
void provide_stacks(int count);

// Sets `fiber` up so that a switch to it starts entry() on stack number `index`. Whatever ran on that stack before is
// forgotten, wherever it was. entry() must not return, and must call begin_fiber() first.
void prepare_fiber(Fiber& fiber, int index, void (*entry)());
void begin_fiber(Fiber& self, Fiber& launcher);

// To be called when fibers were given up in the middle of what they did: their variables are no longer guarded.
void forget_stacks();

// Goes on with `to`; returns when somebody switches back.
void switch_fiber(Fiber& from, Fiber& to);

bool is_in_stacks(const void* p);       // in the region of all stacks and guards
bool is_in_stack_guard(const void* p);  // between two stacks: one overflowed

// The highest address of the stack, where a function may be entered when what was there is given up.
void* stack_top(const Fiber& fiber);

}  // namespace gpucnn::simt::detail

#include "simt/fiber.h"

#include "simt/sanitizer.h"
#include "simt/status.h"

#include <cerrno>
#include <cstring>
#include <string>
#include <sys/mman.h>
#include <unistd.h>

// gpucnn_simt_switch(void** save, void* load): pushes the registers that a function must preserve, stores the stack
// pointer to *save, takes the other one from `load` and pops. To the compiler it is a call of an unknown function, so
// nothing else is alive. Floating-point control words are left alone: kernels do not change them.
extern "C" void gpucnn_simt_switch(void** save, void* load) __attribute__((visibility("hidden")));

#if defined(__x86_64__)
asm(R"(
.text
.p2align 4
.globl gpucnn_simt_switch
.hidden gpucnn_simt_switch
.type gpucnn_simt_switch, @function
gpucnn_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size gpucnn_simt_switch, . - gpucnn_simt_switch
)");
constexpr int kFrameWords = 8;  // six registers, the address to return to, and that of entry()'s caller: none
constexpr int kReturnWord = 6;
#elif defined(__aarch64__)
asm(R"(
.text
.p2align 4
.globl gpucnn_simt_switch
.hidden gpucnn_simt_switch
.type gpucnn_simt_switch, %function
gpucnn_simt_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x2, sp
  str x2, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size gpucnn_simt_switch, . - gpucnn_simt_switch
)");
constexpr int kFrameWords = 20;  // x19 to x30, d8 to d15
constexpr int kReturnWord = 11;  // x30
#else
#error "the SIMT layer switches fibers in assembly: there is none for this processor yet (x86-64 and aarch64 have it)"
#endif

namespace gpucnn::simt::detail {
namespace {

constexpr std::size_t kStackBytes = 256 << 10;
constexpr std::size_t kPage = 4096, kLargestPage = 64 << 10;  // aarch64's pages may have 4, 16 or 64 KiB

// A guard that a large frame can't step over, of an odd number of pages: were stacks a power of two apart, the frames
// of all threads would compete for the same sets of the cache.
const std::size_t kGuardBytes = sysconf(_SC_PAGESIZE) > static_cast<long>(kPage) ? kLargestPage : 17 * kPage;

unsigned char* region = nullptr;  // guard, stack, guard, stack, ..., guard
int provided = 0;

std::size_t stride() {
  return kGuardBytes + kStackBytes;
}
std::size_t region_bytes() {
  return stride() * kMaxThreads + kGuardBytes;
}
unsigned char* stack_of(int index) {
  return region + stride() * static_cast<std::size_t>(index) + kGuardBytes;
}

}  // namespace

void provide_stacks(int count) {
  if (!region) {  // addresses only: neither memory nor the right to touch it
    void* found = mmap(nullptr, region_bytes(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found == MAP_FAILED) throw Fault(std::string("simt: no address space for stacks: ") + std::strerror(errno));
    region = static_cast<unsigned char*>(found);
  }
  for (; provided < count; ++provided) {
    if (mprotect(stack_of(provided), kStackBytes, PROT_READ | PROT_WRITE) != 0) {
      throw Fault(std::string("simt: no memory for stacks: ") + std::strerror(errno));
    }
  }
}

void prepare_fiber(Fiber& fiber, int index, void (*entry)()) {
  fiber.stack = stack_of(index);
  fiber.stack_bytes = kStackBytes;
  void** const frame = static_cast<void**>(stack_top(fiber)) - kFrameWords;
  for (int i = 0; i < kFrameWords; ++i) frame[i] = nullptr;
  frame[kReturnWord] = reinterpret_cast<void*>(entry);
  fiber.stack_pointer = frame;  // and sanitizer_stack is kept, for AddressSanitizer to use again
}

void forget_stacks() {
  for (int i = 0; i < provided; ++i) unpoison(stack_of(i), kStackBytes);
}

void* stack_top(const Fiber& fiber) {
  // Threads at the same place of the same kernel use the same offset in their stacks: these are moved apart by two
  // cache lines each, over the sets of a first-level cache.
  const std::size_t index = static_cast<std::size_t>(fiber.stack - region) / stride();
  return fiber.stack + kStackBytes - index * 5 % 32 * 128 - 64;
}

void begin_fiber(Fiber& self, Fiber& launcher) {
  if (!sanitizer_keeps_stacks()) return;
  const void* stack = nullptr;
  std::size_t bytes = 0;
  __sanitizer_finish_switch_fiber(self.sanitizer_stack, &stack, &bytes);
  if (launcher.stack) return;  // then it was another fiber that started this one
  launcher.stack = static_cast<unsigned char*>(const_cast<void*>(stack));
  launcher.stack_bytes = bytes;
}

void switch_fiber(Fiber& from, Fiber& to) {
  if (!sanitizer_keeps_stacks()) {
    gpucnn_simt_switch(&from.stack_pointer, to.stack_pointer);
    return;
  }
  __sanitizer_start_switch_fiber(&from.sanitizer_stack, to.stack, to.stack_bytes);
  gpucnn_simt_switch(&from.stack_pointer, to.stack_pointer);
  __sanitizer_finish_switch_fiber(from.sanitizer_stack, nullptr, nullptr);
}

bool is_in_stacks(const void* p) {
  return region && p >= region && p < region + region_bytes();
}

bool is_in_stack_guard(const void* p) {
  return is_in_stacks(p) &&
         static_cast<std::size_t>(static_cast<const unsigned char*>(p) - region) % stride() < kGuardBytes;
}

}  // namespace gpucnn::simt::detail

#include "simt/memory_fault.h"

#include "simt/block.h"
#include "simt/sanitizer.h"
#include "simt/source_line.h"
#include "simt/texts.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <sys/mman.h>
#include <ucontext.h>

namespace gpucnn::simt::detail {
namespace {

// SIGILL and SIGTRAP are where a compiler has put what can't be reached.
constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
constexpr std::size_t kHandlerBytes = 64 << 10;

struct sigaction before[std::size(kSignals)];  // what a signal led to, by place in kSignals
void* handler_stack = nullptr;

// What happened, for the text.
struct Event {
  int signal;
  const void* address;           // that was touched; null where the processor doesn't say
  const unsigned char* program;  // the instruction
} event;

std::string address_in_words(const void* address) {
  char text[32];
  std::snprintf(text, sizeof text, "%p", address);
  return text;
}

std::string describe(const void*) {
  const std::string where = " at " + source_line(event.program + 1), who = thread_in_words(block.running);
  if (event.signal == SIGFPE) return who + " divides an integer by zero" + where;
  if (event.signal == SIGILL || event.signal == SIGTRAP) return who + " comes to a trap" + where;
  if (is_in_stack_guard(event.address)) {
    return "stack overflow: " + who + " has more in local variables and calls than 256 KiB" + where;
  }
  return "memory fault: " + who + " touches " +
         (event.address ? "address " + address_in_words(event.address) : std::string("null or an impossible address")) +
         where;
}

[[noreturn]] void stop_after_signal() {
  stop_block(&describe, nullptr);
}

struct Registers {
  std::uintptr_t program, stack;
};

Registers registers_of(const ucontext_t& context) {
#if defined(__x86_64__)
  const greg_t* const all = context.uc_mcontext.gregs;
  return {static_cast<std::uintptr_t>(all[REG_RIP]), static_cast<std::uintptr_t>(all[REG_RSP])};
#else
  return {context.uc_mcontext.pc, context.uc_mcontext.sp};
#endif
}

// Makes the interrupted thread go on in stop_after_signal(), at the top of the stack that it gives up: there is room.
void redirect(ucontext_t& context) {
  const auto program = reinterpret_cast<std::uintptr_t>(&stop_after_signal);
  const auto stack = reinterpret_cast<std::uintptr_t>(stack_top(block.thread[block.running].fiber));
#if defined(__x86_64__)
  context.uc_mcontext.gregs[REG_RIP] = static_cast<greg_t>(program);
  context.uc_mcontext.gregs[REG_RSP] = static_cast<greg_t>(stack - 8);  // as right after a call
#else
  context.uc_mcontext.pc = program;
  context.uc_mcontext.sp = stack;
#endif
}

void pass_on(int signal, siginfo_t* info, void* context) {
  std::size_t i = 0;
  while (kSignals[i] != signal) ++i;
  if (before[i].sa_flags & SA_SIGINFO) {
    before[i].sa_sigaction(signal, info, context);
  } else if (before[i].sa_handler == SIG_DFL || before[i].sa_handler == SIG_IGN) {
    sigaction(signal, &before[i], nullptr);
    if (info->si_code <= 0) raise(signal);  // somebody sent it; else the instruction causes it again
  } else {
    before[i].sa_handler(signal);
  }
}

void on_signal(int signal, siginfo_t* info, void* context) {
  auto& interrupted = *static_cast<ucontext_t*>(context);
  const Registers registers = registers_of(interrupted);
  if (info->si_code <= 0 || !is_in_stacks(reinterpret_cast<const void*>(registers.stack))) {
    pass_on(signal, info, context);
    return;
  }
  event = {signal, info->si_addr, reinterpret_cast<const unsigned char*>(registers.program)};
  redirect(interrupted);
}

}  // namespace

MemoryFaults::MemoryFaults() {
  if (sanitizer_keeps_stacks()) return;
  if (!handler_stack) {
    handler_stack = mmap(nullptr, kHandlerBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (handler_stack == MAP_FAILED) {
      handler_stack = nullptr;
      throw Fault(std::string("simt: no memory for a signal's stack: ") + std::strerror(errno));
    }
  }
  stack_t ours{};
  ours.ss_sp = handler_stack;
  ours.ss_size = kHandlerBytes;
  sigaltstack(&ours, &old_stack_);
  struct sigaction action{};
  action.sa_sigaction = &on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  for (std::size_t i = 0; i < std::size(kSignals); ++i) sigaction(kSignals[i], &action, &before[i]);
}

MemoryFaults::~MemoryFaults() {
  if (sanitizer_keeps_stacks()) return;
  for (std::size_t i = 0; i < std::size(kSignals); ++i) sigaction(kSignals[i], &before[i], nullptr);
  sigaltstack(&old_stack_, nullptr);
}

}  // namespace gpucnn::simt::detail

// AddressSanitizer's entry points, where a program that has it loaded this module. Internal to the runtime, which
// itself is compiled without any sanitizer: one set of objects serves every flavour.
#pragma once

#include <cstddef>

extern "C" {
void __sanitizer_start_switch_fiber(void** save, const void* stack, std::size_t bytes) __attribute__((weak));
void __sanitizer_finish_switch_fiber(void* saved, const void** old_stack, std::size_t* old_bytes) __attribute__((weak));
void __asan_poison_memory_region(const volatile void* p, std::size_t bytes) __attribute__((weak));
void __asan_unpoison_memory_region(const volatile void* p, std::size_t bytes) __attribute__((weak));
}

namespace gpucnn::simt::detail {

inline bool sanitizer_keeps_stacks() {
  return __sanitizer_start_switch_fiber != nullptr;
}

inline void poison(const void* p, std::size_t bytes) {
  if (__asan_poison_memory_region) __asan_poison_memory_region(p, bytes);
}
inline void unpoison(const void* p, std::size_t bytes) {
  if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(p, bytes);
}

}  // namespace gpucnn::simt::detail

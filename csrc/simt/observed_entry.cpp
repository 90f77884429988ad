// What -fsanitize=thread makes compiled kernels call, in the place of libtsan: each access goes to the observer.
//
// The names and types are the compiler's. Compiled without that option, or these functions would call themselves.
#include "simt/observed.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace simt = gpucnn::simt;
using simt::Kind;

// The instruction after the kernel's call: has to be taken in the entry point itself.
#define GPUCNN_CALLER __builtin_return_address(0)

#define GPUCNN_PLAIN(name, bytes, kind)            \
  void __tsan_##name##bytes(void* p) {             \
    simt::accessed(p, bytes, kind, GPUCNN_CALLER); \
  }
#define GPUCNN_PLAIN_OF(bytes)                             \
  GPUCNN_PLAIN(read, bytes, Kind::read)                    \
  GPUCNN_PLAIN(write, bytes, Kind::write)                  \
  GPUCNN_PLAIN(unaligned_read, bytes, Kind::read)          \
  GPUCNN_PLAIN(unaligned_write, bytes, Kind::write)        \
  GPUCNN_PLAIN(volatile_read, bytes, Kind::read)           \
  GPUCNN_PLAIN(volatile_write, bytes, Kind::write)         \
  GPUCNN_PLAIN(unaligned_volatile_read, bytes, Kind::read) \
  GPUCNN_PLAIN(unaligned_volatile_write, bytes, Kind::write)

// CUDA's atomics are relaxed whatever the order that is asked for here; one thread runs at a time.
#define GPUCNN_ATOMIC_CHANGE(bits, T, name, builtin)                          \
  T __tsan_atomic##bits##_##name(volatile T* p, T value, int) {               \
    simt::accessed(const_cast<T*>(p), bits / 8, Kind::atomic, GPUCNN_CALLER); \
    return builtin(p, value, __ATOMIC_RELAXED);                               \
  }
#define GPUCNN_ATOMIC_EXCHANGE(bits, T, name)                                                          \
  int __tsan_atomic##bits##_compare_exchange_##name(volatile T* p, T* expected, T value, int, int) {   \
    simt::accessed(const_cast<T*>(p), bits / 8, Kind::atomic, GPUCNN_CALLER);                          \
    return __atomic_compare_exchange_n(p, expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED); \
  }
#define GPUCNN_ATOMIC_OF(bits, T)                                                                \
  T __tsan_atomic##bits##_load(const volatile T* p, int) {                                       \
    simt::accessed(const_cast<T*>(p), bits / 8, Kind::atomic, GPUCNN_CALLER);                    \
    return __atomic_load_n(p, __ATOMIC_RELAXED);                                                 \
  }                                                                                              \
  void __tsan_atomic##bits##_store(volatile T* p, T value, int) {                                \
    simt::accessed(const_cast<T*>(p), bits / 8, Kind::atomic, GPUCNN_CALLER);                    \
    __atomic_store_n(p, value, __ATOMIC_RELAXED);                                                \
  }                                                                                              \
  GPUCNN_ATOMIC_CHANGE(bits, T, exchange, __atomic_exchange_n)                                   \
  GPUCNN_ATOMIC_CHANGE(bits, T, fetch_add, __atomic_fetch_add)                                   \
  GPUCNN_ATOMIC_CHANGE(bits, T, fetch_sub, __atomic_fetch_sub)                                   \
  GPUCNN_ATOMIC_CHANGE(bits, T, fetch_and, __atomic_fetch_and)                                   \
  GPUCNN_ATOMIC_CHANGE(bits, T, fetch_or, __atomic_fetch_or)                                     \
  GPUCNN_ATOMIC_CHANGE(bits, T, fetch_xor, __atomic_fetch_xor)                                   \
  GPUCNN_ATOMIC_CHANGE(bits, T, fetch_nand, __atomic_fetch_nand)                                 \
  GPUCNN_ATOMIC_EXCHANGE(bits, T, strong)                                                        \
  GPUCNN_ATOMIC_EXCHANGE(bits, T, weak)                                                          \
  T __tsan_atomic##bits##_compare_exchange_val(volatile T* p, T expected, T value, int, int) {   \
    simt::accessed(const_cast<T*>(p), bits / 8, Kind::atomic, GPUCNN_CALLER);                    \
    __atomic_compare_exchange_n(p, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED); \
    return expected;                                                                             \
  }

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {
  simt::function_entered();
}
void __tsan_func_exit() {
  simt::function_left();
}

GPUCNN_PLAIN_OF(1)
GPUCNN_PLAIN_OF(2)
GPUCNN_PLAIN_OF(4)
GPUCNN_PLAIN_OF(8)
GPUCNN_PLAIN_OF(16)

void __tsan_read_range(void* p, std::size_t bytes) {
  simt::accessed(p, bytes, Kind::read, GPUCNN_CALLER);
}
void __tsan_write_range(void* p, std::size_t bytes) {
  simt::accessed(p, bytes, Kind::write, GPUCNN_CALLER);
}
void __tsan_vptr_read(void** p) {
  simt::accessed(p, sizeof *p, Kind::read, GPUCNN_CALLER);
}
void __tsan_vptr_update(void** p, void*) {
  simt::accessed(p, sizeof *p, Kind::write, GPUCNN_CALLER);
}

// What memory_calls.h makes of kernels' calls.
void* __tsan_memcpy(void* to, const void* from, std::size_t bytes) {
  simt::accessed(from, bytes, Kind::read, GPUCNN_CALLER);
  simt::accessed(to, bytes, Kind::write, GPUCNN_CALLER);
  return std::memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, std::size_t bytes) {
  simt::accessed(from, bytes, Kind::read, GPUCNN_CALLER);
  simt::accessed(to, bytes, Kind::write, GPUCNN_CALLER);
  return std::memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int value, std::size_t bytes) {
  simt::accessed(to, bytes, Kind::write, GPUCNN_CALLER);
  return std::memset(to, value, bytes);
}

void __tsan_atomic_thread_fence(int) {}
void __tsan_atomic_signal_fence(int) {}
GPUCNN_ATOMIC_OF(8, std::uint8_t)
GPUCNN_ATOMIC_OF(16, std::uint16_t)
GPUCNN_ATOMIC_OF(32, std::uint32_t)
GPUCNN_ATOMIC_OF(64, std::uint64_t)

}  // extern "C"

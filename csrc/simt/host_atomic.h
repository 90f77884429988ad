// CUDA's integer atomics for a host compiler. Part of host.h.
//
// Relaxed, as CUDA's are; and real atomic operations, which is how the race checker tells them from plain accesses.
// There are none for floating point: the order of such a sum would change its bits.
#pragma once

#include "simt/host_access.h"

#include <type_traits>

namespace gpucnn::simt::detail {

template <typename T>
struct Plain {
  using type = T;
};
template <typename T>
using plain = typename Plain<T>::type;  // as a parameter: converted to, and no part in deduction

template <typename T>
__forceinline__ void check_atomic() {
  static_assert(!std::is_floating_point_v<T>, "no floating-point atomics: their order would change the sum's bits");
  static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long> ||
                    std::is_same_v<T, long long>,
                "CUDA's atomics take int, unsigned and (unsigned) long long");
}

// Replaces *p by change(*p); returns what was there. One atomic operation, as the profile flavour has to see it.
template <typename T, typename Change>
__forceinline__ T atomic_change(T* p, Change change) {
  check_atomic<T>();
#if defined(GPUCNN_SIMT_PROFILE)
  announce(p, sizeof(T), Purpose::atomic, "an atomic", Site{"", 0});
  const T old = read_unseen<T>(p);
  write_unseen(p, change(old));
#else
  T old = __atomic_load_n(p, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(p, &old, change(old), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
#endif
  return old;
}

}  // namespace gpucnn::simt::detail

template <typename T>
__forceinline__ T atomicAdd(T* p, gpucnn::simt::detail::plain<T> value) {
  gpucnn::simt::detail::check_atomic<T>();
  static_assert(!std::is_same_v<T, long long>, "CUDA has no atomicAdd for long long: add as unsigned long long");
  return __atomic_fetch_add(p, value, __ATOMIC_RELAXED);
}
template <typename T>
__forceinline__ T atomicSub(T* p, gpucnn::simt::detail::plain<T> value) {
  gpucnn::simt::detail::check_atomic<T>();
  static_assert(sizeof(T) == 4, "CUDA has atomicSub for int and unsigned only");
  return __atomic_fetch_sub(p, value, __ATOMIC_RELAXED);
}
template <typename T>
__forceinline__ T atomicAnd(T* p, gpucnn::simt::detail::plain<T> value) {
  gpucnn::simt::detail::check_atomic<T>();
  return __atomic_fetch_and(p, value, __ATOMIC_RELAXED);
}
template <typename T>
__forceinline__ T atomicOr(T* p, gpucnn::simt::detail::plain<T> value) {
  gpucnn::simt::detail::check_atomic<T>();
  return __atomic_fetch_or(p, value, __ATOMIC_RELAXED);
}
template <typename T>
__forceinline__ T atomicXor(T* p, gpucnn::simt::detail::plain<T> value) {
  gpucnn::simt::detail::check_atomic<T>();
  return __atomic_fetch_xor(p, value, __ATOMIC_RELAXED);
}
template <typename T>
__forceinline__ T atomicExch(T* p, gpucnn::simt::detail::plain<T> value) {
  gpucnn::simt::detail::check_atomic<T>();
  return __atomic_exchange_n(p, value, __ATOMIC_RELAXED);
}
template <typename T>
__forceinline__ T atomicCAS(T* p, gpucnn::simt::detail::plain<T> expected, gpucnn::simt::detail::plain<T> value) {
  gpucnn::simt::detail::check_atomic<T>();
  __atomic_compare_exchange_n(p, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
template <typename T>
__forceinline__ T atomicMin(T* p, gpucnn::simt::detail::plain<T> value) {
  return gpucnn::simt::detail::atomic_change(p, [value](T old) { return value < old ? value : old; });
}
template <typename T>
__forceinline__ T atomicMax(T* p, gpucnn::simt::detail::plain<T> value) {
  return gpucnn::simt::detail::atomic_change(p, [value](T old) { return old < value ? value : old; });
}

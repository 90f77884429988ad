// The layer of simt.h for a host compiler: launches, shared and global memory, barriers. Warp operations are in
// host_warp.h, atomics in host_atomic.h, 16-bit floats in host_float16.h.
//
// Everything that a kernel calls is here as an inline function of the kernel's own file, so that a sanitizer that
// instruments the kernel sees its accesses with the kernel's line; what it calls in turn is the runtime, which is not
// instrumented. Kernels read memory as other types than it was written as (float4 over float): to be compiled with
// -fno-strict-aliasing.
#pragma once

#include "simt/host_access.h"
#include "simt/host_types.h"
#include "simt/observer.h"
#include "simt/status.h"

#include <cstddef>
#include <cstdint>
#include <math.h>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#define SIMT_SHARED(T, name, ...)                                           \
  using name##_type = T __VA_ARGS__;                                        \
  static constexpr ::gpucnn::simt::SharedArray name##_declared{             \
      #name, ::gpucnn::simt::Site{__FILE__, __LINE__}, sizeof(name##_type), \
      alignof(name##_type) < 16 ? std::size_t{16} : alignof(name##_type)};  \
  name##_type& name = *static_cast<name##_type*>(::gpucnn::simt::detail::shared_array(name##_declared))

#define SIMT_DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(::gpucnn::simt::detail::dynamic_shared_memory())

namespace gpucnn::simt {

// The order in which the threads of a block are run: "fwd", "rev", "rand:N" (by seed), "prio:N" (always the warp of the
// highest priority, drawn for every block from seed N). Until it is called, and after "", GPUCNN_SIMT_ORDER says which,
// read at each launch; without it "fwd". Throws Fault for anything else.
void set_order(const std::string& order);

// What cp.async does at its issue: nothing until it is waited for (false, as shipped: what is read too early is NaN),
// or all of its copy (true: what is overwritten too early shows). Hardware may do either. For tests.
void set_eager_copies(bool eager);

namespace detail {

struct Launch {
  LaunchInfo info;
  void (*thread)(void* closure);  // runs the kernel once, for the thread that threadIdx names
  void* closure;
};
void run(const Launch& launch);  // throws Fault

void* shared_array(const SharedArray& declared);
void* dynamic_shared_memory();
void block_barrier(Site site);

template <typename T>
constexpr bool is_one_access =
    sizeof(T) <= 16 && (sizeof(T) & (sizeof(T) - 1)) == 0 && alignof(T) == sizeof(T) && std::is_trivially_copyable_v<T>;

}  // namespace detail

// Runs kernel(arguments...) for every thread of every block and returns when all have ended. Throws Fault. Launches
// from several threads take turns; Python's lock is not needed and should not be held.
template <typename... Parameters, typename... Arguments>
[[nodiscard]] Status launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes, Stream,
                            Arguments&&... arguments) {
  static_assert((sizeof(Parameters) + ... + 0) <= 4096, "a kernel takes 4 KiB of parameters");
  struct Closure {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> parameters;
  } closure{kernel, std::tuple<Parameters...>(std::forward<Arguments>(arguments)...)};
  const auto thread = [](void* p) {
    Closure& self = *static_cast<Closure*>(p);
    std::apply(self.kernel, self.parameters);
  };
  detail::run(
      {{reinterpret_cast<const void*>(kernel), grid, block, shared_bytes, &closure, sizeof closure}, thread, &closure});
  return kSuccess;
}

// As many as a small machine could have: grids of one wave get more than one block to run.
[[nodiscard]] inline Status multiprocessors(int* count) {
  *count = 2;
  return kSuccess;
}

template <typename T>
__forceinline__ T vload(const void* p, Site site = Site::here()) {
  static_assert(detail::is_one_access<T>, "a type of 1, 2, 4, 8 or 16 bytes, aligned to its size");
  return detail::read<T>("vload", p, detail::Purpose::load, site);
}

template <typename T>
__forceinline__ void vstore(void* p, const T& value, Site site = Site::here()) {
  static_assert(detail::is_one_access<T>, "a type of 1, 2, 4, 8 or 16 bytes, aligned to its size");
  detail::write("vstore", p, value, detail::Purpose::store, site);
}

template <typename T>
__forceinline__ T load_if(bool ok, const T* p, T otherwise = T{}, Site site = Site::here()) {
  return detail::read_if(ok, "load_if", p, otherwise, detail::Purpose::load, site);
}

}  // namespace gpucnn::simt

__forceinline__ void __syncthreads(gpucnn::simt::Site site = gpucnn::simt::Site::here()) {
  gpucnn::simt::detail::block_barrier(site);
}

__forceinline__ void __threadfence() {}  // one thread runs at a time, and its stores are seen by the next
__forceinline__ void __threadfence_block() {}

template <typename T>
__forceinline__ T __ldg(const T* p) {
  return *p;
}

// Of one type, as CUDA's are for arithmetic; a NaN among floats gives way to the number.
template <typename T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}
inline float min(float a, float b) {
  return fminf(a, b);
}
inline float max(float a, float b) {
  return fmaxf(a, b);
}
inline double min(double a, double b) {
  return fmin(a, b);
}
inline double max(double a, double b) {
  return fmax(a, b);
}

inline float rsqrtf(float x) {
  return 1.0f / sqrtf(x);
}
// One operation with one rounding, which no compiler fuses with another. (A product of floats is exact in double.)
inline float __fmul_rn(float a, float b) {
  return static_cast<float>(static_cast<double>(a) * static_cast<double>(b));
}
inline float __fadd_rn(float a, float b) {
  return a + b;
}
inline int __popc(unsigned x) {
  return __builtin_popcount(x);
}
inline int __ffs(int x) {
  return __builtin_ffs(x);
}
inline int __clz(int x) {
  return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x));
}

namespace gpucnn::simt::detail {
template <typename To, typename From>
To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From) && std::is_trivially_copyable_v<To> && std::is_trivially_copyable_v<From>);
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}
}  // namespace gpucnn::simt::detail

inline float __uint_as_float(unsigned x) {
  return gpucnn::simt::detail::same_bits<float>(x);
}
inline float __int_as_float(int x) {
  return gpucnn::simt::detail::same_bits<float>(x);
}
inline unsigned __float_as_uint(float x) {
  return gpucnn::simt::detail::same_bits<unsigned>(x);
}
inline int __float_as_int(float x) {
  return gpucnn::simt::detail::same_bits<int>(x);
}

#include "simt/host_atomic.h"
#include "simt/host_float16.h"
#include "simt/host_warp.h"

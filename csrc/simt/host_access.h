// Accesses of a stated width for a host compiler: what vload, vstore, load_if and the instructions of ptx.h are made
// of. Part of host.h.
//
// In most flavours they are plain accesses, which a sanitizer instruments like any other. In the profile flavour
// (GPUCNN_SIMT_PROFILE) the compiler might split or repeat one, so that each announces itself, once and whole, and the
// access proper is hidden from the instrumentation.
#pragma once

#include "simt/host_types.h"

#include <cstddef>
#include <cstdint>

namespace gpucnn::simt::detail {

[[noreturn]] void misaligned(const char* what, const void* p, std::size_t alignment, Site site);

// What an access is for. `matrix_row` is one lane's row of an ldmatrix.
enum class Purpose : std::uint8_t { load, store, atomic, copy_load, copy_store, matrix_row };

#if defined(GPUCNN_SIMT_PROFILE)

// One access of `bytes` by the running thread; p is null for a lane that comes to the instruction and is predicated
// off. Stops the block where p is not aligned to `bytes`: a branch here would be one of the kernel's.
void announce(const void* p, std::size_t bytes, Purpose purpose, const char* what, Site site);

#define GPUCNN_SIMT_UNSEEN __attribute__((noinline, no_sanitize("thread"), no_sanitize_coverage))

template <typename T>
GPUCNN_SIMT_UNSEEN T read_unseen(const void* p) {
  return *static_cast<const T*>(p);
}
template <typename T>
GPUCNN_SIMT_UNSEEN void write_unseen(void* p, const T& value) {
  *static_cast<T*>(p) = value;
}

template <typename T>
__forceinline__ T read(const char* what, const void* p, Purpose purpose, Site site) {
  announce(p, sizeof(T), purpose, what, site);
  return read_unseen<T>(p);
}
template <typename T>
__forceinline__ T read_if(bool ok, const char* what, const void* p, T otherwise, Purpose purpose, Site site) {
  announce(ok ? p : nullptr, sizeof(T), purpose, what, site);
  return ok ? read_unseen<T>(p) : otherwise;
}
template <typename T>
__forceinline__ void write(const char* what, void* p, const T& value, Purpose purpose, Site site) {
  announce(p, sizeof(T), purpose, what, site);
  write_unseen(p, value);
}

#else

template <typename T>
__forceinline__ T read(const char* what, const void* p, Purpose, Site site) {
  if (reinterpret_cast<std::uintptr_t>(p) % sizeof(T) != 0) misaligned(what, p, sizeof(T), site);
  return *static_cast<const T*>(p);
}
template <typename T>
__forceinline__ T read_if(bool ok, const char* what, const void* p, T otherwise, Purpose purpose, Site site) {
  return ok ? read<T>(what, p, purpose, site) : otherwise;
}
template <typename T>
__forceinline__ void write(const char* what, void* p, const T& value, Purpose, Site site) {
  if (reinterpret_cast<std::uintptr_t>(p) % sizeof(T) != 0) misaligned(what, p, sizeof(T), site);
  *static_cast<T*>(p) = value;
}

#endif

}  // namespace gpucnn::simt::detail

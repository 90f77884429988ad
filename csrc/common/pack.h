// Several neighbouring elements in one access, as float32 in registers. For .cu files.
//
//   const Floats<8> v = load<8>(x + i);      8 halves: one access of 16 bytes; 8 floats: two
//   store(y + i, v);                         rounded to y's type
//
// The address must be a multiple of the bytes of an access, which is_aligned() asks: at most 16, so a multiple of 16
// will always do.
#pragma once

#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {

// Elements of T in 16 bytes, the widest access there is.
template <typename T>
inline constexpr int kPack = 16 / static_cast<int>(sizeof(T));

template <int kCount>
struct Floats {
  float value[kCount];

  __device__ __forceinline__ float& operator[](int i) { return value[i]; }
  __device__ __forceinline__ const float& operator[](int i) const { return value[i]; }
};

namespace detail {

template <int kBytes>
struct Word;
template <>
struct Word<2> {
  using type = unsigned short;
};
template <>
struct Word<4> {
  using type = unsigned;
};
template <>
struct Word<8> {
  using type = uint2;
};
template <>
struct Word<16> {
  using type = uint4;
};

// The elements of one access, and the same bytes as the word that is moved.
template <typename T, int kCount>
union Access {
  typename Word<kCount * sizeof(T)>::type word;
  T elements[kCount];
  __device__ __forceinline__ Access() : word() {}
};

template <typename T, int kCount>
inline constexpr int kTogether = kCount * static_cast<int>(sizeof(T)) <= 16 ? kCount : kPack<T>;

}  // namespace detail

// p[0] ... p[kCount - 1].
template <int kCount, typename T>
__device__ __forceinline__ Floats<kCount> load(const T* p) {
  constexpr int kTogether = detail::kTogether<T, kCount>;
  static_assert(kCount % kTogether == 0, "whole accesses");
  Floats<kCount> result;
#pragma unroll
  for (int i = 0; i < kCount; i += kTogether) {
    detail::Access<T, kTogether> access;
    access.word = simt::vload<decltype(access.word)>(p + i);
#pragma unroll
    for (int j = 0; j < kTogether; ++j) result[i + j] = simt::to_float(access.elements[j]);
  }
  return result;
}

template <int kCount, typename T>
__device__ __forceinline__ void store(T* p, const Floats<kCount>& values) {
  constexpr int kTogether = detail::kTogether<T, kCount>;
  static_assert(kCount % kTogether == 0, "whole accesses");
#pragma unroll
  for (int i = 0; i < kCount; i += kTogether) {
    detail::Access<T, kTogether> access;
#pragma unroll
    for (int j = 0; j < kTogether; ++j) access.elements[j] = simt::from_float<T>(values[i + j]);
    simt::vstore(p + i, access.word);
  }
}

// Whether all of them may be accessed 16 bytes at a time. Null, an argument that was left out, may.
template <typename... Pointers>
bool are_aligned(const Pointers*... pointers) {
  return (... && (reinterpret_cast<std::uintptr_t>(pointers) % 16 == 0));
}

}  // namespace gpucnn

// half and bfloat16 for a host compiler: 16 bits, converted as CUDA's cvt.rn does. Part of host.h.
//
// To float every value is exact. From float: nearest, ties to even; beyond the largest number infinity; below the
// smallest normal number denormals; every NaN becomes 0x7FFF.
#pragma once

#include "simt/float16.h"

#include <cstdint>

namespace gpucnn::simt {

inline float to_float(float value) {
  return value;
}

inline float to_float(bfloat16 value) {
  return __uint_as_float(std::uint32_t{value.bits} << 16);
}

inline float to_float(half value) {
  const std::uint32_t sign = (value.bits & 0x8000u) << 16, exponent = value.bits >> 10 & 0x1fu,
                      fraction = value.bits & 0x3ffu;
  if (exponent == 0x1f) return __uint_as_float(fraction ? 0x7fffffffu : sign | 0x7f800000u);
  if (exponent == 0) return copysignf(static_cast<float>(fraction) * 0x1p-24f, __uint_as_float(sign));
  return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
}

namespace detail {
// value / 2^shift, to the nearest, ties to even.   shift in [1, 31]
constexpr std::uint32_t shift_rounded(std::uint32_t value, int shift) {
  const std::uint32_t half_ulp = 1u << (shift - 1);
  return (value + half_ulp - 1 + (value >> shift & 1)) >> shift;
}
}  // namespace detail

template <typename T>
T from_float(float value);

template <>
inline float from_float<float>(float value) {
  return value;
}

template <>
inline bfloat16 from_float<bfloat16>(float value) {
  const std::uint32_t bits = __float_as_uint(value);
  if (value != value) return {0x7fff};
  return {static_cast<std::uint16_t>(detail::shift_rounded(bits, 16))};
}

template <>
inline half from_float<half>(float value) {
  const std::uint32_t bits = __float_as_uint(value), magnitude = bits & 0x7fffffffu, sign = bits >> 16 & 0x8000u;
  std::uint32_t rounded;
  if (value != value) return {0x7fff};
  if (magnitude >= 0x477ff000u) {  // 65520 and more: nearer to 2^16 than to the largest half
    rounded = 0x7c00;
  } else if (magnitude >= 0x38800000u) {  // 2^-14: normal; a carry out of the fraction raises the exponent
    rounded = detail::shift_rounded(magnitude - (112u << 23), 13);
  } else if (magnitude > 0x33000000u) {  // above 2^-25, half of the smallest denormal
    rounded = detail::shift_rounded((magnitude & 0x7fffffu) | 0x800000u, 126 - static_cast<int>(magnitude >> 23));
  } else {
    rounded = 0;
  }
  return {static_cast<std::uint16_t>(sign | rounded)};
}

}  // namespace gpucnn::simt

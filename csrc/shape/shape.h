// What only moves memory: the menu of its launchers.
//
// Arrays may lie in any order, with gaps, backwards or repeated, unless a comment says C-contiguous; elements are 1, 2,
// 4 or 8 bytes and go as they are. None of the launchers is to be called for arrays without elements. Those that take a
// shape throw std::invalid_argument, which Python sees as ValueError, where more than 8 axes are left once those that
// lie alike are merged.
#pragma once

#include "common/operand.h"
#include "simt/status.h"

#include <cstdint>
#include <vector>

namespace gpucnn {

// y = x.   operands: how y and x lie, strides in elements of `itemsize` bytes.
[[nodiscard]] simt::Status copy(const void* x, void* y, int itemsize, const std::vector<std::int64_t>& shape,
                                const Operand* operands, simt::Stream stream);

// y = x, rounded to y's type.   In, Out: float, half or bfloat16, two of them.
template <typename In, typename Out>
[[nodiscard]] simt::Status convert(const In* x, Out* y, const std::vector<std::int64_t>& shape, const Operand* operands,
                                   simt::Stream stream);

// y = a where condition is not 0, else b.   operands: y, condition, a, b.
[[nodiscard]] simt::Status select(const std::uint8_t* condition, const void* a, const void* b, void* y, int itemsize,
                                  const std::vector<std::int64_t>& shape, const Operand* operands, simt::Stream stream);

enum class PadMode { constant, reflect, replicate, circular };

inline constexpr int kMostPaddedAxes = 3;  // of pad_grad

// What is added before and after each axis of x; cut off where negative, in mode constant alone.
struct Padding {
  std::vector<std::int64_t> before, after;
  PadMode mode;
};

// y, C-contiguous, is x with cells around it.   value: an element, of mode constant.
[[nodiscard]] simt::Status pad(const void* x, const std::vector<std::int64_t>& shape,
                               const std::vector<std::int64_t>& strides, const Padding& padding, const void* value,
                               int itemsize, void* y, simt::Stream stream);

// dx, C-contiguous of `shape`: the sum of dy, C-contiguous, over the cells copied from each cell. Not of mode constant.
template <typename T>
[[nodiscard]] simt::Status pad_grad(const T* dy, T* dx, const std::vector<std::int64_t>& shape, const Padding& padding,
                                    simt::Stream stream);

// y (N,H,W,C), C-contiguous: x * scale + shift of each channel, rounded once.   x: uint8, C-contiguous, (N,H,W,C) or
// planar (N,C,H,W).   scale, shift (C,)   pixels: H * W
template <typename T>
[[nodiscard]] simt::Status normalize_images(const std::uint8_t* x, const float* scale, const float* shift, T* y,
                                            std::int64_t images, std::int64_t pixels, std::int64_t channels,
                                            bool planar, simt::Stream stream);

}  // namespace gpucnn

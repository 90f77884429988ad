// What is drawn at random for each element: dropout, its mask, and the slopes of RReLU. The menu of launchers.
//
// Pointers are memory of the machine that the kernels are built for. T: float, simt::half, simt::bfloat16.
#pragma once

#include "simt/float16.h"
#include "simt/status.h"

#include <cstdint>

namespace gpucnn {

// Which number an element draws: that of its place in a mask. Element i of memory is ((a * middle) + b) * inner + c,
// and its place a * outer_step + b * middle_step + c * inner_step. inner and middle are 1 where memory is in the mask's
// order.
struct Places {
  std::int64_t count;          // elements, [0, 2^38)
  std::int64_t middle, inner;  // sizes, [1, 2^31)
  std::int64_t outer_step, middle_step, inner_step;
};

// A number below `threshold` is dropped: p * 2^32, [0, 2^32].
struct Draw {
  std::uint64_t seed, call;
};

// y = x * scale where kept, else 0.
template <typename T>
[[nodiscard]] simt::Status dropout_apply(const Places& places, const Draw& draw, std::uint64_t threshold, float scale,
                                         const T* x, T* y, simt::Stream stream);

// keep = 1 where kept, else 0.
[[nodiscard]] simt::Status dropout_mask(const Places& places, const Draw& draw, std::uint64_t threshold,
                                        std::uint8_t* keep, simt::Stream stream);

// slopes = word * factor + lower where x <= 0, else 1; in double precision, and then rounded to T.
template <typename T>
[[nodiscard]] simt::Status rrelu_slopes(const Places& places, const Draw& draw, double factor, double lower, const T* x,
                                        T* slopes, simt::Stream stream);

}  // namespace gpucnn

// Positions of extrema, elements picked by position, and running sums along one axis: the menu of launchers.
//
// Pointers are C-contiguous memory of the machine that the kernels are built for; an array is (outer, size, inner)
// about the axis that counts. T: float, simt::half, simt::bfloat16, and for take and put integers too.
#pragma once

#include "simt/float16.h"
#include "simt/status.h"

#include <cstdint>

namespace gpucnn {

struct Along {
  std::int64_t outer, size, inner;  // size, inner: [0, 2^31); the product below 2^38
};

// index[o,0,i]: where the first largest (smallest) of x[o,:,i] is; where the first NaN is, if there is one.
// size at least 1.
template <typename T>
[[nodiscard]] simt::Status extremum(const Along& along, const T* x, std::int64_t* index, bool largest,
                                    simt::Stream stream);

// y[o,k,i] = x[o, index[o,k,i], i] for k in [0, picked); 0 for an index outside [0, size).
template <typename T>
[[nodiscard]] simt::Status take(const Along& along, std::int64_t picked, const T* x, const std::int64_t* index, T* y,
                                simt::Stream stream);

// y[o, index[o,k,i], i] = x[o,k,i]; the rest of y, which was 0, stays. No index comes twice; one outside [0, size) is
// passed over.
template <typename T>
[[nodiscard]] simt::Status put(const Along& along, std::int64_t picked, const T* x, const std::int64_t* index, T* y,
                               simt::Stream stream);

// y[o,k,i] = the sum of x[o,0...k,i], or with `backwards` of x[o,k...size-1,i]; added up in double precision.
template <typename T>
[[nodiscard]] simt::Status running_sum(const Along& along, const T* x, T* y, bool backwards, simt::Stream stream);

}  // namespace gpucnn

// Softmax and its logarithm over rows: the menu of launchers.
//
// Pointers are C-contiguous memory of the machine that the kernels are built for. T: float, simt::half, simt::bfloat16.
#pragma once

#include "simt/float16.h"
#include "simt/status.h"

#include <cstdint>

namespace gpucnn {

// y = exp(x - max) / sum(exp(x - max)) of each row, or its logarithm.   x, y (rows,columns); columns in [0, 2^31)
template <typename T>
[[nodiscard]] simt::Status softmax_fprop(const T* x, T* y, std::int64_t rows, std::int64_t columns, bool logarithm,
                                         simt::Stream stream);

// dx = y * (dy - sum(y * dy)) of each row; of the logarithm dy - exp(y) * sum(dy).   dy, y, dx (rows,columns)
template <typename T>
[[nodiscard]] simt::Status softmax_dgrad(const T* dy, const T* y, T* dx, std::int64_t rows, std::int64_t columns,
                                         bool logarithm, simt::Stream stream);

}  // namespace gpucnn

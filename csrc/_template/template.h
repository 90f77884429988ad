// The op to copy: y = alpha * x. The menu of its launchers; what a new op's own header is to look like.
//
// Pointers are C-contiguous memory of the machine that the kernels are built for; sizes are in elements.
#pragma once

#include "simt/status.h"

#include <cstdint>

namespace gpucnn {

// y[i] = alpha * x[i] for i in [0, n).   x, y: any shape of n elements, n in [0, 2^61).   y may be x.
// T is float, simt::half or simt::bfloat16.
template <typename T>
[[nodiscard]] simt::Status scale(const T* x, T* y, float alpha, std::int64_t n, simt::Stream stream);

}  // namespace gpucnn

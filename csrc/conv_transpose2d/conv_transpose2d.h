// Transposed 2-D convolution: what it needs beside the launchers of conv2d/conv2d.h, which it otherwise runs on.
//
// T is the type that elements are stored in: float, simt::half or simt::bfloat16. Pointers are C-contiguous memory of
// the machine that the kernels are built for; sizes are in elements.
#pragma once

#include "simt/float16.h"
#include "simt/status.h"

#include <cstdint>

namespace gpucnn {

// y[i][k] += bias[k], in place.   y (pixels,channels), bias (channels,); pixels >= 0, channels in [1, 2^31).
template <typename T>
[[nodiscard]] simt::Status add_bias(T* y, const T* bias, std::int64_t pixels, std::int64_t channels,
                                    simt::Stream stream);

}  // namespace gpucnn

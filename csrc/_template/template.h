// The op to copy: y = alpha * x. The menu of its launchers; what a new op's own header is to look like.
//
// Pointers are device memory, C-contiguous; sizes are in elements. A launcher returns what CUDA says of the launch.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace gpucnn {

// y[i] = alpha * x[i] for i in [0, n).   x, y: float32, any shape of n elements, n in [0, 2^61).   y may be x.
[[nodiscard]] cudaError_t scale(const float* x, float* y, float alpha, std::int64_t n, cudaStream_t stream);

}  // namespace gpucnn

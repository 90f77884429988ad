// What the kernels on tensor cores ask for. For .cu files.
#pragma once

#include "conv2d/geometry.h"
#include "conv2d/tensor_core.h"

#include <stdexcept>

namespace gpucnn {

// Throws std::invalid_argument, which Python sees as ValueError, unless all of it is there.
inline void require_tensor_core(const Conv2dProblem& p) {
  if (conv2d_tensor_core_is_near(p)) return;
  throw std::invalid_argument("conv2d: the tensor_core kernel needs smaller images: 32 bits count what a block reads");
}

}  // namespace gpucnn

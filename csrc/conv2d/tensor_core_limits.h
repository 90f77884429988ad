// What the kernels on tensor cores ask for. For .cu files.
#pragma once

#include "common/pack.h"
#include "conv2d/geometry.h"
#include "conv2d/tensor_core.h"

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

namespace gpucnn {

// Throws std::invalid_argument, which Python sees as ValueError, unless all of it is there: `sizes` lie along memory.
template <typename T>
void require_tensor_core(const Conv2dProblem& p, std::initializer_list<std::int64_t> sizes, bool aligned) {
  require_dense(p);
  for (const std::int64_t size : sizes) {
    if (size % kPack<T> == 0) continue;
    throw std::invalid_argument("conv2d: the tensor_core kernel needs channels that are multiples of " +
                                std::to_string(kPack<T>) + ", got " + std::to_string(size));
  }
  if (!aligned) throw std::invalid_argument("conv2d: the tensor_core kernel needs arrays aligned to 16 bytes");
  if (conv2d_tensor_core_is_near(p)) return;
  throw std::invalid_argument("conv2d: the tensor_core kernel needs smaller images: 32 bits count what a block reads");
}

}  // namespace gpucnn

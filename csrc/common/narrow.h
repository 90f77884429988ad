// Python's floats as float32. For bindings.cpp files.
#pragma once

#include <cmath>
#include <limits>

namespace gpucnn {

// To the nearest; what is beyond float32's range becomes infinite.
inline float narrowed(double value) {
  if (std::isfinite(value) && std::abs(value) > std::numeric_limits<float>::max()) {
    return std::copysign(std::numeric_limits<float>::infinity(), value > 0 ? 1.0f : -1.0f);
  }
  return static_cast<float>(value);
}

}  // namespace gpucnn

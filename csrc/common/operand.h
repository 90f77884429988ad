// Arrays that broadcast to one shape, as a caller has them. For menus and bindings; walk.h is what kernels make of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

namespace gpucnn {

// One array: its axes are those of the common shape that come last.
struct Operand {
  const std::vector<std::int64_t>& shape;
  const std::vector<std::int64_t>& strides;  // in elements
};

// Throws std::invalid_argument unless all operands broadcast to `shape`, which may have lengths 0.
inline void require_broadcast(const std::vector<std::int64_t>& shape, const std::vector<Operand>& operands) {
  for (const Operand& operand : operands) {
    const std::size_t axes = operand.shape.size();
    if (axes > shape.size()) throw std::invalid_argument("an array has more axes than the result");
    for (std::size_t i = 0; i < axes; ++i) {
      const std::int64_t length = operand.shape[i];
      if (length != 1 && length != shape[shape.size() - axes + i]) {
        throw std::invalid_argument("the shapes do not broadcast");
      }
    }
  }
}

}  // namespace gpucnn

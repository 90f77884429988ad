// What the bindings of losses share: reductions, the memory that sums take, the device flag. For bindings.cpp files.
#pragma once

#include "common/array_view.h"
#include "common/binding.h"
#include "common/shares.h"
#include "loss/loss.h"

#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

namespace gpucnn {

inline Reduction reduction_of(const char* op, const std::string& name) {
  if (name == "none") return Reduction::none;
  if (name == "mean") return Reduction::mean;
  if (name == "sum") return Reduction::sum;
  throw py::value_error(std::string(op) + ": reduction must be 'none', 'mean' or 'sum', got '" + name + "'");
}

// The flag of common/flag.h: its code, and the number of the step.
inline std::optional<ArrayView<std::int64_t>> flag_of(const char* op, const py::object& flag) {
  return optional_shaped_view<std::int64_t>(flag, op, "flag", {2}, "a code and a count");
}

// Where a loss is added up.
struct Summing {
  std::optional<ArrayView<float>> total;
  std::optional<ArrayView<std::int32_t>> memory;
};

inline Summing summing_of(const char* op, Reduction reduction, const py::object& total, const py::object& memory) {
  if (reduction == Reduction::none) return {};
  return {shaped_view<float>(total, op, "total", Shape{}, "a sum"),
          shaped_view<std::int32_t>(memory, op, "memory", {kSummingWords}, "loss_words of the module")};
}

inline std::optional<ArrayView<const float>> divisor_view(const char* op, Reduction reduction,
                                                          const py::object& total) {
  if (reduction != Reduction::mean) return std::nullopt;
  return shaped_view<const float>(total, op, "total", Shape{}, "a sum");
}

}  // namespace gpucnn

// The binding of a table of functions: "elementwise" and "activation" are each one. For bindings.cpp files.
#pragma once

#include "common/dispatch.h"
#include "common/narrow.h"
#include "common/operand.h"
#include "common/run.h"
#include "common/strided_view.h"
#include "elementwise/elementwise.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

namespace gpucnn {
namespace detail {

inline const MapFunction& function_named(const MapFunctions& functions, const char* op, const std::string& name) {
  std::string names;
  for (const MapFunction& function : functions) {
    if (name == function.name) return function;
    names += (names.empty() ? "" : ", ") + std::string(function.name);
  }
  throw py::value_error(std::string(op) + ": no function '" + name + "'; there are " + names);
}

inline MapLauncher launcher_of(const MapFunction& function, const std::string& dtype, const char* op) {
  MapLauncher launcher = nullptr;
  with_float_type(op, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    launcher = std::is_same_v<T, float>        ? function.float32
               : std::is_same_v<T, simt::half> ? function.float16
                                               : function.bfloat16;
  });
  return launcher;
}

inline StridedView float_view(const py::object& array, const std::string& dtype, const char* op, const char* argument,
                              bool written) {
  StridedView found{};
  with_float_type(op, dtype, [&](auto type) {
    found = strided_view_of<typename decltype(type)::type>(array, op, argument, written);
  });
  return found;
}

}  // namespace detail

inline void map_binding(const MapFunctions& functions, const char* op, const std::string& name,
                        const std::string& dtype, const py::tuple& inputs, const py::object& y,
                        const std::vector<double>& parameters, std::uintptr_t stream) {
  static constexpr const char* kNames[kMostInputs] = {"a", "b", "c", "d"};
  const MapFunction& function = detail::function_named(functions, op, name);
  const std::string where = std::string(op) + ": " + name;
  if (py::len(inputs) != static_cast<std::size_t>(function.inputs)) {
    throw py::value_error(where + " takes " + std::to_string(function.inputs) + " arrays, got " +
                          std::to_string(py::len(inputs)));
  }
  if (parameters.size() != static_cast<std::size_t>(function.parameters)) {
    throw py::value_error(where + " takes " + std::to_string(function.parameters) + " parameters, got " +
                          std::to_string(parameters.size()));
  }
  const MapLauncher launcher = detail::launcher_of(function, dtype, op);
  const StridedView out = detail::float_view(y, dtype, op, "y", true);
  std::vector<StridedView> in;
  in.reserve(kMostInputs);
  std::vector<Operand> operands{{out.shape, out.strides}};
  Arguments described;
  MapArguments arguments{};
  for (int i = 0; i < function.inputs; ++i) {
    in.push_back(detail::float_view(inputs[static_cast<std::size_t>(i)], dtype, op, kNames[i], false));
    require_apart(op, in.back(), out);
    operands.push_back({in.back().shape, in.back().strides});
    arguments.inputs[i] = in.back().data;
    detail::add_argument(described, in.back());
  }
  detail::add_argument(described, out);
  for (int i = 0; i < function.parameters; ++i) {
    arguments.parameters[i] = narrowed(parameters[static_cast<std::size_t>(i)]);
  }
  arguments.y = out.data;
  arguments.shape = &out.shape;
  arguments.operands = operands.data();
  try {
    if (out.size == 0) {
      require_broadcast(out.shape, operands);
      return;
    }
    run(op, described, [&] { return launcher(arguments, reinterpret_cast<simt::Stream>(stream)); });
  } catch (const std::invalid_argument& error) {
    throw py::value_error(where + ": " + error.what() + " (" + in_words(described) + ")");
  }
}

}  // namespace gpucnn

// Python's way to the functions of elementwise.h for activations: checks that a call is safe, and launches without the
// GIL.
#include "common/binding.h"
#include "elementwise/binding.h"
#include "elementwise/elementwise.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

namespace gpucnn {
namespace {

const MapFunctions& functions() {
  static const MapFunctions all = [] {
    MapFunctions found;
    add_smooth(found);
    add_smooth_gradients(found);
    add_rectifiers(found);
    return found;
  }();
  return all;
}

void activation_binding(const std::string& name, const std::string& dtype, const py::tuple& inputs, const py::object& y,
                        const std::vector<double>& parameters, std::uintptr_t stream) {
  map_binding(functions(), "activation", name, dtype, inputs, y, parameters, stream);
}

}  // namespace

void register_activation(py::module_& m) {
  m.def(
      "activation", &activation_binding, py::arg("name"), py::arg("dtype"), py::arg("inputs"), py::arg("y"),
      py::arg("parameters"), py::arg("stream"),
      "y = f(inputs...), element by element.\n\n"
      "name: of the function, such as 'relu', or of its gradient, 'relu_grad'; of an unknown one the error lists all.\n"
      "dtype: 'float32', 'float16' or 'bfloat16', of all arrays; arithmetic is float32.\n"
      "inputs: a tuple of arrays that broadcast to the shape of y, in any memory order where the function broadcasts\n"
      "('prelu', 'glu' and their gradients), else lying as y does or of one element. y is written and may be one of "
      "them if contiguous.\n"
      "parameters: numbers, as many as the function has.\n" GPUCNN_STREAM_AND_ERRORS);
  m.def(
      "activation_functions",
      [] {
        std::vector<std::tuple<std::string, int, int>> found;
        for (const MapFunction& f : functions()) found.emplace_back(f.name, f.inputs, f.parameters);
        return found;
      },
      "(name, number of arrays, number of parameters) of all functions of activation().");
}

}  // namespace gpucnn

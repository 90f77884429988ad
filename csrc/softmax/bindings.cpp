// Python's way to the launchers of softmax.h: checks that a call is safe, and launches without the GIL.
#include "common/array_view.h"
#include "common/binding.h"
#include "common/dispatch.h"
#include "common/run.h"
#include "softmax/softmax.h"

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

namespace gpucnn {
namespace {

struct Matrix {
  std::int64_t rows, columns;
};

// Rows of the last axis.
template <typename T>
Matrix matrix_of(const char* op, const ArrayView<T>& array) {
  if (array.shape.empty()) throw py::value_error(std::string(op) + ": '" + array.argument + "' has no axes");
  const std::int64_t columns = array.shape.back();
  if (columns >= std::int64_t{1} << 31) {
    throw py::value_error(std::string(op) + ": '" + array.argument + "' of shape " + in_words(array.shape) +
                          " has a last axis of 2^31 or more");
  }
  return {columns == 0 ? 0 : array.size / columns, columns};
}

void fprop_binding(const std::string& dtype, const py::object& x, const py::object& y, bool logarithm,
                   std::uintptr_t stream) {
  const char* op = logarithm ? "log_softmax" : "softmax";
  with_float_type(op, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = view<const T>(x, op, "x");
    const auto out = view<T>(y, op, "y");
    require_same_shape(op, in, out);
    require_apart(op, out, in);
    const Matrix m = matrix_of(op, in);
    run(op, describe(in, out),
        [&] { return softmax_fprop<T>(in.data, out.data, m.rows, m.columns, logarithm, stream_of(stream)); });
  });
}

void dgrad_binding(const std::string& dtype, const py::object& dy, const py::object& y, const py::object& dx,
                   bool logarithm, std::uintptr_t stream) {
  const char* op = logarithm ? "log_softmax" : "softmax";
  with_float_type(op, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto gradient = view<const T>(dy, op, "dy");
    const auto output = view<const T>(y, op, "y");
    const auto out = view<T>(dx, op, "dx");
    require_same_shape(op, gradient, output);
    require_same_shape(op, gradient, out);
    require_apart(op, out, gradient, output);
    const Matrix m = matrix_of(op, gradient);
    run(op, describe(gradient, output, out), [&] {
      return softmax_dgrad<T>(gradient.data, output.data, out.data, m.rows, m.columns, logarithm, stream_of(stream));
    });
  });
}

}  // namespace

void register_softmax(py::module_& m) {
  const std::string common =
      "\n\ndtype: 'float32', 'float16' or 'bfloat16', that of all arrays, which are C-contiguous, of one shape and "
      "with "
      "the array interface of the module's machine; outputs share no memory with inputs.\n" GPUCNN_STREAM_AND_ERRORS;
  m.def("softmax_fprop", &fprop_binding, py::arg("dtype"), py::arg("x"), py::arg("y"), py::arg("logarithm"),
        py::arg("stream"), ("Writes y, the softmax of x over its last axis, or its logarithm." + common).c_str());
  m.def("softmax_dgrad", &dgrad_binding, py::arg("dtype"), py::arg("dy"), py::arg("y"), py::arg("dx"),
        py::arg("logarithm"), py::arg("stream"),
        ("Writes dx, the gradient with respect to x, given that of y, and y." + common).c_str());
}

}  // namespace gpucnn

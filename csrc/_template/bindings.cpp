// Python's way to the launchers of template.h: checks that a call is safe, and launches without the GIL.
#include "_template/template.h"
#include "common/array_view.h"
#include "common/binding.h"
#include "common/dispatch.h"
#include "common/run.h"

#include <pybind11/pybind11.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

namespace gpucnn {
namespace {

void scale_binding(const std::string& dtype, const py::object& x, const py::object& y, double alpha,
                   std::uintptr_t stream) {
  if (std::isfinite(alpha) && std::abs(alpha) > std::numeric_limits<float>::max()) {
    throw py::value_error("scale: alpha=" + py::repr(py::float_(alpha)).cast<std::string>() +
                          " is beyond float32's range");
  }
  with_float_type("scale", dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = view<const T>(x, "scale", "x");
    const auto out = view<T>(y, "scale", "y");
    require_same_shape("scale", in, out);
    require_same_or_disjoint("scale", in, out);
    run("scale", describe(in, out),
        [&] { return scale(in.data, out.data, static_cast<float>(alpha), in.size, stream_of(stream)); });
  });
}

}  // namespace

void register_template(py::module_& m) {
  m.def("scale", &scale_binding, py::arg("dtype"), py::arg("x"), py::arg("y"), py::arg("alpha"), py::arg("stream"),
        "y = alpha * x, elementwise.\n\n"
        "dtype: 'float32', 'float16' or 'bfloat16', which both arrays are stored in.\n"
        "x, y: arrays of one shape, C-contiguous, with the array interface of the module's machine; y is written and\n"
        "may be x.\n" GPUCNN_STREAM_AND_ERRORS);
}

}  // namespace gpucnn

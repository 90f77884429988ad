// Python's way to the launchers of template.h: checks that a call is safe, and launches without the GIL.
#include "_template/template.h"
#include "common/array_view.h"
#include "common/check.h"

#include <pybind11/pybind11.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

namespace gpucnn {
namespace {

void scale_binding(const py::object& x, const py::object& y, double alpha, std::uintptr_t stream) {
  const auto in = view<const float>(x, "scale", "x");
  const auto out = view<float>(y, "scale", "y");
  require_same_shape("scale", "x", in, "y", out);
  require_same_or_disjoint("scale", "x", in, "y", out);
  if (std::isfinite(alpha) && std::abs(alpha) > std::numeric_limits<float>::max()) {
    throw py::value_error("scale: alpha=" + py::repr(py::float_(alpha)).cast<std::string>() +
                          " is beyond float32's range");
  }
  const int device = require_device("scale");
  require_on_device("scale", "x", in, device);
  require_on_device("scale", "y", out, device);
  cudaError_t code;
  {
    const py::gil_scoped_release without_gil;
    code = scale(in.data, out.data, static_cast<float>(alpha), in.size, reinterpret_cast<cudaStream_t>(stream));
  }
  if (code != cudaSuccess) throw_cuda_error(code, "scale", describe("x", in));
}

}  // namespace

void register_template(py::module_& m) {
  m.def("scale", &scale_binding, py::arg("x"), py::arg("y"), py::arg("alpha"), py::arg("stream"),
        "y = alpha * x on the current device, elementwise.\n\n"
        "x, y: float32 arrays of one shape with __cuda_array_interface__, C-contiguous; y is written and may be x.\n"
        "stream: the handle of a CUDA stream (cupy.cuda.get_current_stream().ptr); 0 is the default stream.\n"
        "Returns once the kernel is queued. Raises TypeError, ValueError or CudaError and then writes nothing.");
}

}  // namespace gpucnn

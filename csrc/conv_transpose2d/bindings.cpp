// Python's way to the launchers of conv_transpose2d.h: checks that a call is safe, and launches without the GIL.
#include "common/array_view.h"
#include "common/binding.h"
#include "common/dispatch.h"
#include "common/index.h"
#include "common/run.h"
#include "conv_transpose2d/conv_transpose2d.h"

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

namespace gpucnn {
namespace {

constexpr const char* kOp = "conv_transpose2d";

void add_bias_binding(const std::string& dtype, const py::object& y, const py::object& bias, std::uintptr_t stream) {
  with_float_type(kOp, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto sums = view<T>(y, kOp, "y");
    const auto offsets = view<const T>(bias, kOp, "bias");
    if (sums.shape.empty()) throw py::value_error(std::string(kOp) + ": argument 'y' has no axis of channels");
    const std::int64_t channels = sums.shape.back();
    if (channels < 1 || channels > kMostCells) {
      throw py::value_error(std::string(kOp) + ": argument 'y' of shape " + in_words(sums.shape) +
                            " must have from 1 to 2^31 - 1 channels");
    }
    require_shape(kOp, offsets, std::vector<std::int64_t>{channels}, "a bias for each of y's channels");
    require_disjoint(kOp, sums, offsets);
    run(kOp, describe(sums, offsets),
        [&] { return add_bias(sums.data, offsets.data, sums.size / channels, channels, stream_of(stream)); });
  });
}

}  // namespace

void register_conv_transpose2d(py::module_& m) {
  m.def("conv_transpose2d_add_bias", &add_bias_binding, py::arg("dtype"), py::arg("y"), py::arg("bias"),
        py::arg("stream"),
        "y[..., k] += bias[k], in place.\n\n"
        "dtype: 'float32', 'float16' or 'bfloat16', that of y, of any shape with the channels last, and bias "
        "(channels,):\n"
        "C-contiguous, with the array interface of the module's machine.\n" GPUCNN_STREAM_AND_ERRORS);
}

}  // namespace gpucnn

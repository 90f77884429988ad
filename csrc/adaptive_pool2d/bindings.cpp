// Python's way to the launchers of adaptive_pool2d.h: checks that a call is safe, and launches without the GIL.
#include "adaptive_pool2d/adaptive_pool2d.h"
#include "common/array_view.h"
#include "common/binding.h"
#include "common/dispatch.h"
#include "common/problem_argument.h"
#include "common/run.h"

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

namespace gpucnn {
namespace {

constexpr const char* kAverage = "adaptive_avg_pool2d";
constexpr const char* kMax = "adaptive_max_pool2d";

AdaptivePool2dProblem problem_of(const py::object& problem, const char* op) {
  const auto of = [&](const char* field) { return detail::number(problem, op, field); };
  const AdaptivePool2dProblem p{of("N"), of("H"), of("W"), of("C"), of("P"), of("Q")};
  check(op, p);
  return p;
}

void average_fprop(const py::object& problem, const std::string& dtype, const py::object& x, const py::object& y,
                   std::uintptr_t stream) {
  const AdaptivePool2dProblem p = problem_of(problem, kAverage);
  with_float_type(kAverage, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = images_view<const T>(x, kAverage, "x", p);
    const auto out = outputs_view<T>(y, kAverage, "y", p);
    require_apart(kAverage, out, in);
    run(kAverage, describe(in, out),
        [&] { return adaptive_avg_pool2d_fprop<T>(p, in.data, out.data, stream_of(stream)); });
  });
}

void average_dgrad(const py::object& problem, const std::string& dtype, const py::object& dy, const py::object& dx,
                   std::uintptr_t stream) {
  const AdaptivePool2dProblem p = problem_of(problem, kAverage);
  with_float_type(kAverage, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto gradient = outputs_view<const T>(dy, kAverage, "dy", p);
    const auto out = images_view<T>(dx, kAverage, "dx", p);
    require_apart(kAverage, out, gradient);
    run(kAverage, describe(gradient, out),
        [&] { return adaptive_avg_pool2d_dgrad<T>(p, gradient.data, out.data, stream_of(stream)); });
  });
}

void max_fprop(const py::object& problem, const std::string& dtype, const py::object& x, const py::object& y,
               const py::object& indices, std::uintptr_t stream) {
  const AdaptivePool2dProblem p = problem_of(problem, kMax);
  with_float_type(kMax, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = images_view<const T>(x, kMax, "x", p);
    const auto out = outputs_view<T>(y, kMax, "y", p);
    const auto places = outputs_view<std::int64_t>(indices, kMax, "indices", p);
    require_apart(kMax, out, in);
    require_apart(kMax, places, in, out);
    run(kMax, describe(in, out, places),
        [&] { return adaptive_max_pool2d_fprop<T>(p, in.data, out.data, places.data, stream_of(stream)); });
  });
}

void max_dgrad(const py::object& problem, const std::string& dtype, const py::object& dy, const py::object& indices,
               const py::object& dx, std::uintptr_t stream) {
  const AdaptivePool2dProblem p = problem_of(problem, kMax);
  with_float_type(kMax, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto gradient = outputs_view<const T>(dy, kMax, "dy", p);
    const auto places = outputs_view<const std::int64_t>(indices, kMax, "indices", p);
    const auto out = images_view<T>(dx, kMax, "dx", p);
    require_apart(kMax, out, gradient, places);
    run(kMax, describe(gradient, places, out),
        [&] { return adaptive_max_pool2d_dgrad<T>(p, gradient.data, places.data, out.data, stream_of(stream)); });
  });
}

constexpr const char* kCommon =
    "\n\nproblem: a gpucnn.reference.adaptive_pool2d.AdaptivePool2dProblem. dtype: 'float32', 'float16' or 'bfloat16', "
    "what x, dx (N,H,W,C) and y, dy (N,P,Q,C) are stored in. indices (N,P,Q,C): int64. All C-contiguous, with the "
    "array "
    "interface of the module's machine.\n" GPUCNN_STREAM_AND_ERRORS;

}  // namespace

void register_adaptive_pool2d(py::module_& m) {
  const auto define = [&m](const char* name, auto binding, const std::string& text, auto... arguments) {
    m.def(name, binding, arguments..., (text + kCommon).c_str());
  };
  const py::arg problem("problem"), dtype("dtype"), x("x"), y("y"), indices("indices"), dy("dy"), dx("dx"),
      stream("stream");
  define("adaptive_avg_pool2d_fprop", &average_fprop, "Writes y, the average of each window.", problem, dtype, x, y,
         stream);
  define("adaptive_avg_pool2d_dgrad", &average_dgrad, "Writes dx, the gradient with respect to x.", problem, dtype, dy,
         dx, stream);
  define("adaptive_max_pool2d_fprop", &max_fprop,
         "Writes y, the largest of each window, and its position h * W + w into indices.", problem, dtype, x, y,
         indices, stream);
  define("adaptive_max_pool2d_dgrad", &max_dgrad, "Writes dx, the gradient with respect to x.", problem, dtype, dy,
         indices, dx, stream);
}

}  // namespace gpucnn

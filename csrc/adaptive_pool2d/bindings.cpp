// Python's way to the launchers of adaptive_pool2d.h: checks that a call is safe, and launches without the GIL.
#include "adaptive_pool2d/adaptive_pool2d.h"
#include "common/array_view.h"
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

using Shape = std::vector<std::int64_t>;

AdaptivePool2dProblem problem_of(const py::object& problem, const char* op) {
  const auto of = [&](const char* field) { return detail::number(problem, op, field); };
  const AdaptivePool2dProblem p{of("N"), of("H"), of("W"), of("C"), of("P"), of("Q")};
  check(op, p);
  return p;
}

template <typename T>
ArrayView<T> images(const py::object& array, const char* op, const char* argument, const AdaptivePool2dProblem& p) {
  const auto found = view<T>(array, op, argument);
  require_shape(op, found, Shape{p.N, p.H, p.W, p.C}, "(N,H,W,C) of the problem");
  return found;
}

template <typename T>
ArrayView<T> outputs(const py::object& array, const char* op, const char* argument, const AdaptivePool2dProblem& p) {
  const auto found = view<T>(array, op, argument);
  require_shape(op, found, Shape{p.N, p.P, p.Q, p.C}, "(N,P,Q,C) of the problem");
  return found;
}

simt::Stream as_stream(std::uintptr_t stream) {
  return reinterpret_cast<simt::Stream>(stream);
}

void average_fprop(const py::object& problem, const std::string& dtype, const py::object& x, const py::object& y,
                   std::uintptr_t stream) {
  const AdaptivePool2dProblem p = problem_of(problem, kAverage);
  with_float_type(kAverage, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = images<const T>(x, kAverage, "x", p);
    const auto out = outputs<T>(y, kAverage, "y", p);
    require_disjoint(kAverage, out, in);
    run(kAverage, describe(in, out),
        [&] { return adaptive_avg_pool2d_fprop<T>(p, in.data, out.data, as_stream(stream)); });
  });
}

void average_dgrad(const py::object& problem, const std::string& dtype, const py::object& dy, const py::object& dx,
                   std::uintptr_t stream) {
  const AdaptivePool2dProblem p = problem_of(problem, kAverage);
  with_float_type(kAverage, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto gradient = outputs<const T>(dy, kAverage, "dy", p);
    const auto out = images<T>(dx, kAverage, "dx", p);
    require_disjoint(kAverage, out, gradient);
    run(kAverage, describe(gradient, out),
        [&] { return adaptive_avg_pool2d_dgrad<T>(p, gradient.data, out.data, as_stream(stream)); });
  });
}

void max_fprop(const py::object& problem, const std::string& dtype, const py::object& x, const py::object& y,
               const py::object& indices, std::uintptr_t stream) {
  const AdaptivePool2dProblem p = problem_of(problem, kMax);
  with_float_type(kMax, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = images<const T>(x, kMax, "x", p);
    const auto out = outputs<T>(y, kMax, "y", p);
    const auto places = outputs<std::int64_t>(indices, kMax, "indices", p);
    require_disjoint(kMax, out, in);
    require_disjoint(kMax, places, in);
    require_disjoint(kMax, places, out);
    run(kMax, describe(in, out, places),
        [&] { return adaptive_max_pool2d_fprop<T>(p, in.data, out.data, places.data, as_stream(stream)); });
  });
}

void max_dgrad(const py::object& problem, const std::string& dtype, const py::object& dy, const py::object& indices,
               const py::object& dx, std::uintptr_t stream) {
  const AdaptivePool2dProblem p = problem_of(problem, kMax);
  with_float_type(kMax, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto gradient = outputs<const T>(dy, kMax, "dy", p);
    const auto places = outputs<const std::int64_t>(indices, kMax, "indices", p);
    const auto out = images<T>(dx, kMax, "dx", p);
    require_disjoint(kMax, out, gradient);
    require_disjoint(kMax, out, places);
    run(kMax, describe(gradient, places, out),
        [&] { return adaptive_max_pool2d_dgrad<T>(p, gradient.data, places.data, out.data, as_stream(stream)); });
  });
}

constexpr const char* kCommon =
    "\n\nproblem: a gpucnn.reference.adaptive_pool2d.AdaptivePool2dProblem. dtype: 'float32', 'float16' or 'bfloat16', "
    "what x, dx (N,H,W,C) and y, dy (N,P,Q,C) are stored in. indices (N,P,Q,C): int64. All C-contiguous, with the "
    "array "
    "interface of the module's machine.\n"
    "stream: the handle of a CUDA stream; 0 is the default stream, and all that there is on the CPU.\n"
    "Raises TypeError and ValueError before anything is written; CudaError or SimtError where a launch or a kernel "
    "fails.";

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

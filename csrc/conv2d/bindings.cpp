// Python's way to the launchers of conv2d.h: checks that a call is safe, and launches without the GIL.
#include "common/array_view.h"
#include "common/problem_argument.h"
#include "common/run.h"
#include "conv2d/conv2d.h"

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace gpucnn {
namespace {

constexpr const char* kOp = "conv2d";

using Input = ArrayView<const float>;
using Output = ArrayView<float>;
using Shape = std::vector<std::int64_t>;

template <typename T>
ArrayView<T> images(const py::object& array, const char* argument, const Conv2dProblem& p) {
  const auto found = view<T>(array, kOp, argument);
  require_shape(kOp, found, Shape{p.N, p.H, p.W, p.C}, "(N,H,W,C) of the problem");
  return found;
}

template <typename T>
ArrayView<T> outputs(const py::object& array, const char* argument, const Conv2dProblem& p) {
  const auto found = view<T>(array, kOp, argument);
  require_shape(kOp, found, Shape{p.N, p.P, p.Q, p.K}, "(N,P,Q,K) of the problem");
  return found;
}

template <typename T>
ArrayView<T> filters(const py::object& array, const char* argument, const Conv2dProblem& p) {
  const auto found = view<T>(array, kOp, argument);
  require_shape(kOp, found, Shape{p.K, p.R, p.S, p.channels()}, "(K,R,S,C/groups) of the problem");
  return found;
}

// Where the sums of several splits go: `splits` times `sums`; None where there is one, which needs none.
std::optional<Output> parts(const py::object& partial, std::int64_t splits, const Output& sums) {
  const auto found = optional_view<float>(partial, kOp, "partial");
  Shape expected{splits};
  expected.insert(expected.end(), sums.shape.begin(), sums.shape.end());
  if (found) {
    require_shape(kOp, *found, expected, "a part for each of " + std::to_string(splits) + " splits");
    require_disjoint(kOp, *found, sums);
  } else if (splits > 1) {
    throw py::value_error(std::string(kOp) + ": argument 'partial' must be an array of shape " + in_words(expected) +
                          ": a part for each of " + std::to_string(splits) + " splits");
  }
  return found;
}

template <typename T>
T* pointer(const std::optional<ArrayView<T>>& array) {
  return array ? array->data : nullptr;
}

void fprop_binding(const py::object& problem, const py::object& x, const py::object& w, const py::object& bias,
                   const py::object& y, std::uintptr_t stream) {
  const Conv2dProblem p = conv2d_problem(problem, kOp);
  const Input in = images<const float>(x, "x", p), weights = filters<const float>(w, "w", p);
  const auto offsets = optional_view<const float>(bias, kOp, "bias");
  if (offsets) require_shape(kOp, *offsets, Shape{p.K}, "(K,) of the problem");
  const Output out = outputs<float>(y, "y", p);
  require_disjoint(kOp, out, in);
  require_disjoint(kOp, out, weights);
  if (offsets) require_disjoint(kOp, out, *offsets);
  run(kOp, describe(in, weights, offsets, out), [&] {
    return conv2d_direct_fprop(p, in.data, weights.data, pointer(offsets), out.data,
                               reinterpret_cast<simt::Stream>(stream));
  });
}

void dgrad_binding(const py::object& problem, const py::object& dy, const py::object& w, const py::object& dx,
                   std::uintptr_t stream) {
  const Conv2dProblem p = conv2d_problem(problem, kOp);
  const Input gradient = outputs<const float>(dy, "dy", p), weights = filters<const float>(w, "w", p);
  const Output out = images<float>(dx, "dx", p);
  require_disjoint(kOp, out, gradient);
  require_disjoint(kOp, out, weights);
  run(kOp, describe(gradient, weights, out), [&] {
    return conv2d_direct_dgrad(p, gradient.data, weights.data, out.data, reinterpret_cast<simt::Stream>(stream));
  });
}

void wgrad_binding(const py::object& problem, const py::object& x, const py::object& dy, const py::object& dw,
                   const py::object& partial, std::uintptr_t stream) {
  const Conv2dProblem p = conv2d_problem(problem, kOp);
  const Input in = images<const float>(x, "x", p), gradient = outputs<const float>(dy, "dy", p);
  const Output out = filters<float>(dw, "dw", p);
  const auto sums = parts(partial, conv2d_direct_wgrad_splits(p), out);
  require_disjoint(kOp, out, in);
  require_disjoint(kOp, out, gradient);
  if (sums) require_disjoint(kOp, *sums, in);
  if (sums) require_disjoint(kOp, *sums, gradient);
  run(kOp, describe(in, gradient, out, sums), [&] {
    return conv2d_direct_wgrad(p, in.data, gradient.data, out.data, pointer(sums),
                               reinterpret_cast<simt::Stream>(stream));
  });
}

void bgrad_binding(const py::object& problem, const py::object& dy, const py::object& db, const py::object& partial,
                   std::uintptr_t stream) {
  const Conv2dProblem p = conv2d_problem(problem, kOp);
  const Input gradient = outputs<const float>(dy, "dy", p);
  const auto out = view<float>(db, kOp, "db");
  require_shape(kOp, out, Shape{p.K}, "(K,) of the problem");
  const auto sums = parts(partial, conv2d_direct_bgrad_splits(p), out);
  require_disjoint(kOp, out, gradient);
  if (sums) require_disjoint(kOp, *sums, gradient);
  run(kOp, describe(gradient, out, sums), [&] {
    return conv2d_direct_bgrad(p, gradient.data, out.data, pointer(sums), reinterpret_cast<simt::Stream>(stream));
  });
}

constexpr const char* kCommon =
    "\n\nproblem: a gpucnn.problem.Conv2dProblem. x, dx (N,H,W,C), y, dy (N,P,Q,K), w, dw (K,R,S,C/groups), bias, db "
    "(K,): float32, C-contiguous, with the array interface of the module's machine.\n"
    "stream: the handle of a CUDA stream; 0 is the default stream, and all that there is on the CPU.\n"
    "Raises TypeError and ValueError before anything is written; CudaError or SimtError where a launch or a kernel "
    "fails.";

}  // namespace

void register_conv2d(py::module_& m) {
  const auto define = [&m](const char* name, auto binding, const std::string& text, auto... arguments) {
    m.def(name, binding, arguments..., (text + kCommon).c_str());
  };
  const py::arg problem("problem"), x("x"), w("w"), bias("bias"), y("y"), dy("dy"), dx("dx"), dw("dw"), db("db"),
      partial("partial"), stream("stream");
  define("conv2d_direct_fprop", &fprop_binding, "Writes y, the convolution of x with w; bias is an array or None.",
         problem, x, w, bias, y, stream);
  define("conv2d_direct_dgrad", &dgrad_binding, "Writes dx, the gradient with respect to x.", problem, dy, w, dx,
         stream);
  define("conv2d_direct_wgrad", &wgrad_binding,
         "Writes dw, the gradient with respect to w. partial: float32 (splits, K,R,S,C/groups) to work in, or None for "
         "one split.",
         problem, x, dy, dw, partial, stream);
  define(
      "conv2d_direct_bgrad", &bgrad_binding,
      "Writes db, the gradient with respect to bias. partial: float32 (splits, K) to work in, or None for one split.",
      problem, dy, db, partial, stream);
  m.def(
      "conv2d_direct_wgrad_splits",
      [](const py::object& p) { return conv2d_direct_wgrad_splits(conv2d_problem(p, kOp)); }, problem,
      "The splits that conv2d_direct_wgrad cuts the sum into.");
  m.def(
      "conv2d_direct_bgrad_splits",
      [](const py::object& p) { return conv2d_direct_bgrad_splits(conv2d_problem(p, kOp)); }, problem,
      "The splits that conv2d_direct_bgrad cuts the sum into.");
}

}  // namespace gpucnn

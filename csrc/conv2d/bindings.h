// What the bindings of all convolutions share: the views of a problem's arrays, and the gradients' bindings. For
// bindings.cpp and its neighbours.
//
// All kernels of a pass are bound by one template, which gets its launcher, a template over the stored type itself, as
// a generic lambda: a kernel is a line of a register function.
#pragma once

#include "common/array_view.h"
#include "common/binding.h"
#include "common/dispatch.h"
#include "common/problem_argument.h"
#include "common/run.h"

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace gpucnn::conv2d_bindings {

inline constexpr const char* kOp = "conv2d";

using Splits = std::int64_t (*)(const Conv2dProblem& p);

template <typename T>
ArrayView<T> images(const py::object& array, const char* argument, const Conv2dProblem& p) {
  return images_view<T>(array, kOp, argument, p);
}

template <typename T>
ArrayView<T> outputs(const py::object& array, const char* argument, const Conv2dProblem& p) {
  return shaped_view<T>(array, kOp, argument, {p.N, p.P, p.Q, p.K}, "(N,P,Q,K) of the problem");
}

template <typename T>
ArrayView<T> filters(const py::object& array, const char* argument, const Conv2dProblem& p) {
  return shaped_view<T>(array, kOp, argument, {p.K, p.R, p.S, p.channels()}, "(K,R,S,C/groups) of the problem");
}

// Where the sums of several splits go: `splits` times `sums`; None where there is one, which needs none.
template <typename T>
std::optional<ArrayView<float>> parts(const py::object& partial, std::int64_t splits, const ArrayView<T>& sums) {
  const auto found =
      parts_view(partial, kOp, splits, sums.shape, "a part for each of " + std::to_string(splits) + " splits");
  require_apart(kOp, found, sums);
  return found;
}

inline constexpr const char* kCommon =
    "\n\nproblem: a gpucnn.problem.Conv2dProblem. dtype: 'float32', 'float16' or 'bfloat16', that of x, dx (N,H,W,C), "
    "y, dy (N,P,Q,K), w, dw (K,R,S,C/groups), bias, db (K,): C-contiguous, with the array interface of the module's "
    "machine.\n" GPUCNN_STREAM_AND_ERRORS;

template <typename Binding, typename... Names>
void define(py::module_& m, const std::string& name, Binding binding, const std::string& text, Names... arguments) {
  m.def(name.c_str(), binding, py::arg(arguments)..., (text + kCommon).c_str());
}

inline void define_splits(py::module_& m, const std::string& name, Splits splits) {
  m.def((name + "_splits").c_str(), [splits](const py::object& p) { return splits(conv2d_problem(p, kOp)); },
        py::arg("problem"), ("The splits that " + name + " cuts the sum into.").c_str());
}

template <typename Launch>
void define_dgrad(py::module_& m, const std::string& name, Launch launch) {
  const auto binding = [launch](const py::object& problem, const std::string& dtype, const py::object& dy,
                                const py::object& w, const py::object& dx, std::uintptr_t stream) {
    const Conv2dProblem p = conv2d_problem(problem, kOp);
    with_float_type(kOp, dtype, [&](auto type) {
      using T = typename decltype(type)::type;
      const auto gradient = outputs<const T>(dy, "dy", p);
      const auto weights = filters<const T>(w, "w", p);
      const auto out = images<T>(dx, "dx", p);
      require_apart(kOp, out, gradient, weights);
      run(kOp, describe(gradient, weights, out),
          [&] { return launch(p, gradient.data, weights.data, out.data, stream_of(stream)); });
    });
  };
  define(m, name, binding, "Writes dx, the gradient with respect to x.", "problem", "dtype", "dy", "w", "dx", "stream");
}

template <typename Launch>
void define_wgrad(py::module_& m, const std::string& name, Launch launch, Splits splits) {
  const auto binding = [launch, splits](const py::object& problem, const std::string& dtype, const py::object& x,
                                        const py::object& dy, const py::object& dw, const py::object& partial,
                                        std::uintptr_t stream) {
    const Conv2dProblem p = conv2d_problem(problem, kOp);
    with_float_type(kOp, dtype, [&](auto type) {
      using T = typename decltype(type)::type;
      const auto in = images<const T>(x, "x", p);
      const auto gradient = outputs<const T>(dy, "dy", p);
      const auto out = filters<T>(dw, "dw", p);
      const auto sums = parts(partial, splits(p), out);
      require_apart(kOp, out, in, gradient);
      require_apart(kOp, sums, in, gradient);
      run(kOp, describe(in, gradient, out, sums),
          [&] { return launch(p, in.data, gradient.data, out.data, pointer(sums), stream_of(stream)); });
    });
  };
  define(m, name, binding,
         "Writes dw, the gradient with respect to w. partial: float32 (splits, K,R,S,C/groups) to "
         "work in, or None for one split.",
         "problem", "dtype", "x", "dy", "dw", "partial", "stream");
  define_splits(m, name, splits);
}

// A launcher, whatever its stored type, as an argument.
#define GPUCNN_LAUNCHER(name) [](auto... arguments) { return name(arguments...); }

}  // namespace gpucnn::conv2d_bindings

// Python's way to the launchers of conv2d.h: checks that a call is safe, and launches without the GIL.
//
// All kernels of a pass are bound by one template, which gets its launcher, a template over the stored type itself, as
// a generic lambda: a kernel is a line of register_conv2d().
#include "common/array_view.h"
#include "common/binding.h"
#include "common/dispatch.h"
#include "common/problem_argument.h"
#include "common/run.h"
#include "conv2d/conv2d.h"
#include "conv2d/tensor_core.h"

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace gpucnn {
namespace {

constexpr const char* kOp = "conv2d";

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

constexpr const char* kCommon =
    "\n\nproblem: a gpucnn.problem.Conv2dProblem. dtype: 'float32', 'float16' or 'bfloat16', that of x, dx (N,H,W,C), "
    "y, dy (N,P,Q,K), w, dw (K,R,S,C/groups), bias, db (K,): C-contiguous, with the array interface of the module's "
    "machine.\n" GPUCNN_STREAM_AND_ERRORS;

template <typename Binding, typename... Names>
void define(py::module_& m, const std::string& name, Binding binding, const std::string& text, Names... arguments) {
  m.def(name.c_str(), binding, py::arg(arguments)..., (text + kCommon).c_str());
}

void define_splits(py::module_& m, const std::string& name, Splits splits) {
  m.def((name + "_splits").c_str(), [splits](const py::object& p) { return splits(conv2d_problem(p, kOp)); },
        py::arg("problem"), ("The splits that " + name + " cuts the sum into.").c_str());
}

template <typename Launch>
void define_fprop(py::module_& m, const std::string& name, Launch launch) {
  const auto binding = [launch](const py::object& problem, const std::string& dtype, const py::object& x,
                                const py::object& w, const py::object& bias, const py::object& y, bool relu,
                                std::uintptr_t stream) {
    const Conv2dProblem p = conv2d_problem(problem, kOp);
    with_float_type(kOp, dtype, [&](auto type) {
      using T = typename decltype(type)::type;
      const auto in = images<const T>(x, "x", p);
      const auto weights = filters<const T>(w, "w", p);
      const auto offsets = optional_shaped_view<const T>(bias, kOp, "bias", {p.K}, "(K,) of the problem");
      const auto out = outputs<T>(y, "y", p);
      require_apart(kOp, out, in, weights, offsets);
      run(kOp, describe(in, weights, offsets, out),
          [&] { return launch(p, in.data, weights.data, pointer(offsets), out.data, relu, stream_of(stream)); });
    });
  };
  define(m, name, binding,
         "Writes y, the convolution of x with w, plus bias where it is not None; of that, where relu "
         "is true, max(y, 0).",
         "problem", "dtype", "x", "w", "bias", "y", "relu", "stream");
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

template <typename Launch>
void define_bgrad(py::module_& m, const char* name, Launch launch, Splits splits) {
  const auto binding = [launch, splits](const py::object& problem, const std::string& dtype, const py::object& dy,
                                        const py::object& db, const py::object& partial, std::uintptr_t stream) {
    const Conv2dProblem p = conv2d_problem(problem, kOp);
    with_float_type(kOp, dtype, [&](auto type) {
      using T = typename decltype(type)::type;
      const auto gradient = outputs<const T>(dy, "dy", p);
      const auto out = shaped_view<T>(db, kOp, "db", {p.K}, "(K,) of the problem");
      const auto sums = parts(partial, splits(p), out);
      require_apart(kOp, out, gradient);
      require_apart(kOp, sums, gradient);
      run(kOp, describe(gradient, out, sums),
          [&] { return launch(p, gradient.data, out.data, pointer(sums), stream_of(stream)); });
    });
  };
  define(m, name, binding,
         "Writes db, the gradient with respect to bias. partial: float32 (splits, K) to work in, or "
         "None for one split.",
         "problem", "dtype", "dy", "db", "partial", "stream");
  define_splits(m, name, splits);
}

// A launcher, whatever its stored type, as an argument.
#define GPUCNN_LAUNCHER(name) [](auto... arguments) { return name(arguments...); }

// The kernels on gemm/tile.h: their own choice of a configuration and, named after it, each configuration.
template <int kConfiguration>
void define_dense(py::module_& m) {
  std::string suffix;
  if constexpr (kConfiguration != gemm::kAny) suffix = "_" + std::string(gemm::kConfigurations[kConfiguration].name);
  const auto with = [](auto launch) {
    return [launch](auto... arguments) { return launch(arguments..., kConfiguration); };
  };
  const std::string dense = "conv2d_implicit_gemm_", pointwise = "conv2d_pointwise_";
  define_fprop(m, dense + "fprop" + suffix, with(GPUCNN_LAUNCHER(conv2d_implicit_gemm_fprop)));
  define_dgrad(m, dense + "dgrad" + suffix, with(GPUCNN_LAUNCHER(conv2d_implicit_gemm_dgrad)));
  define_wgrad(m, dense + "wgrad" + suffix, with(GPUCNN_LAUNCHER(conv2d_implicit_gemm_wgrad)),
               [](const Conv2dProblem& p) { return conv2d_implicit_gemm_wgrad_splits(p, kConfiguration); });
  define_fprop(m, pointwise + "fprop" + suffix, with(GPUCNN_LAUNCHER(conv2d_pointwise_fprop)));
  define_dgrad(m, pointwise + "dgrad" + suffix, with(GPUCNN_LAUNCHER(conv2d_pointwise_dgrad)));
  define_wgrad(m, pointwise + "wgrad" + suffix, with(GPUCNN_LAUNCHER(conv2d_pointwise_wgrad)),
               [](const Conv2dProblem& p) { return conv2d_pointwise_wgrad_splits(p, kConfiguration); });
}

// The kernels on mma/tile.h, by the precision of float32, in the same way.
template <mma::Precision kPrecision, int kConfiguration>
void define_tensor_core(py::module_& m, const char* kernel, const std::string& suffix = "") {
  const auto with = [](auto launch) {
    return [launch](auto... arguments) { return launch(arguments..., kPrecision, kConfiguration); };
  };
  const std::string name = "conv2d_" + std::string(kernel) + "_";
  define_fprop(m, name + "fprop" + suffix, with(GPUCNN_LAUNCHER(conv2d_tensor_core_fprop)));
  define_dgrad(m, name + "dgrad" + suffix, with(GPUCNN_LAUNCHER(conv2d_tensor_core_dgrad)));
  define_wgrad(m, name + "wgrad" + suffix, with(GPUCNN_LAUNCHER(conv2d_tensor_core_wgrad)),
               [](const Conv2dProblem& p) { return conv2d_tensor_core_wgrad_splits(p, kConfiguration); });
}

template <mma::Precision kPrecision, int... kConfigurations>
void define_each_tensor_core(py::module_& m, const char* kernel, std::integer_sequence<int, kConfigurations...>) {
  const Configuration* const configurations =
      kPrecision == mma::Precision::high ? mma::kTiling.configurations.data() : mma::kSplitTiling.configurations.data();
  define_tensor_core<kPrecision, kAnyConfiguration>(m, kernel);
  (define_tensor_core<kPrecision, kConfigurations>(m, kernel, "_" + std::string(configurations[kConfigurations].name)),
   ...);
}

template <int... kConfigurations>
void define_each_dense(py::module_& m, std::integer_sequence<int, kConfigurations...>) {
  (define_dense<kConfigurations>(m), ...);
}

}  // namespace

void register_conv2d(py::module_& m) {
  define_fprop(m, "conv2d_depthwise_fprop", GPUCNN_LAUNCHER(conv2d_depthwise_fprop));
  define_dgrad(m, "conv2d_depthwise_dgrad", GPUCNN_LAUNCHER(conv2d_depthwise_dgrad));
  define_wgrad(m, "conv2d_depthwise_wgrad", GPUCNN_LAUNCHER(conv2d_depthwise_wgrad), conv2d_depthwise_wgrad_splits);
  define_fprop(m, "conv2d_direct_fprop", GPUCNN_LAUNCHER(conv2d_direct_fprop));
  define_dgrad(m, "conv2d_direct_dgrad", GPUCNN_LAUNCHER(conv2d_direct_dgrad));
  define_wgrad(m, "conv2d_direct_wgrad", GPUCNN_LAUNCHER(conv2d_direct_wgrad), conv2d_direct_wgrad_splits);
  define_bgrad(m, "conv2d_direct_bgrad", GPUCNN_LAUNCHER(conv2d_direct_bgrad), conv2d_direct_bgrad_splits);
  define_fprop(m, "conv2d_grouped_fprop", GPUCNN_LAUNCHER(conv2d_grouped_fprop));
  define_dgrad(m, "conv2d_grouped_dgrad", GPUCNN_LAUNCHER(conv2d_grouped_dgrad));
  define_wgrad(m, "conv2d_grouped_wgrad", GPUCNN_LAUNCHER(conv2d_grouped_wgrad), conv2d_grouped_wgrad_splits);
  define_fprop(m, "conv2d_stem_fprop", GPUCNN_LAUNCHER(conv2d_stem_fprop));
  define_dgrad(m, "conv2d_stem_dgrad", GPUCNN_LAUNCHER(conv2d_grouped_dgrad));
  define_wgrad(m, "conv2d_stem_wgrad", GPUCNN_LAUNCHER(conv2d_stem_wgrad), conv2d_stem_wgrad_splits);
  define_dense<gemm::kAny>(m);
  define_each_dense(m, std::make_integer_sequence<int, gemm::kCount>{});
  m.def(
      "conv2d_tensor_core_is_near",
      [](const py::object& p) { return conv2d_tensor_core_is_near(conv2d_problem(p, kOp)); }, py::arg("problem"),
      "Whether 32 bits count what a block of the kernels on tensor cores reads.");
  define_each_tensor_core<mma::Precision::high>(m, "tensor_core",
                                                std::make_integer_sequence<int, mma::kTiling.kCount>{});
  define_each_tensor_core<mma::Precision::highest>(m, "split_tensor_core",
                                                   std::make_integer_sequence<int, mma::kSplitTiling.kCount>{});
}

}  // namespace gpucnn

// Python's way to the launchers of conv2d.h: checks that a call is safe, and launches without the GIL.
#include "conv2d/bindings.h"

#include "conv2d/conv2d.h"
#include "gemm/configurations.h"

namespace gpucnn {
namespace {

using namespace conv2d_bindings;

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

// Of kernels that are compiled for float32 alone, as tensor cores are for 16 bits: `launch`, which refuses those.
template <typename Launch>
auto of_float32(const char* kernel, Launch launch) {
  return [=](const Conv2dProblem& p, auto first, auto... rest) -> simt::Status {
    if constexpr (std::is_same_v<decltype(first), const float*>) {
      return launch(p, first, rest...);
    } else {
      throw std::invalid_argument("conv2d: the " + std::string(kernel) +
                                  " kernel is for float32, tensor_core for 16 bits");
    }
  };
}

// The kernels on gemm/tile.h: their own choice of a configuration and, named after it, each configuration.
template <int kConfiguration>
void define_dense(py::module_& m) {
  std::string suffix;
  if constexpr (kConfiguration != gemm::kAny) suffix = "_" + std::string(gemm::kConfigurations[kConfiguration].name);
  const auto with = [](auto launch) {
    return [launch](auto... arguments) { return launch(arguments..., kConfiguration); };
  };
  constexpr const char* kDense = "implicit_gemm";
  const std::string dense = "conv2d_implicit_gemm_", pointwise = "conv2d_pointwise_";
  define_fprop(m, dense + "fprop" + suffix, of_float32(kDense, with(GPUCNN_LAUNCHER(conv2d_implicit_gemm_fprop))));
  define_dgrad(m, dense + "dgrad" + suffix, of_float32(kDense, with(GPUCNN_LAUNCHER(conv2d_implicit_gemm_dgrad))));
  define_wgrad(m, dense + "wgrad" + suffix, of_float32(kDense, with(GPUCNN_LAUNCHER(conv2d_implicit_gemm_wgrad))),
               [](const Conv2dProblem& p) { return conv2d_implicit_gemm_wgrad_splits(p, kConfiguration); });
  define_fprop(m, pointwise + "fprop" + suffix, with(GPUCNN_LAUNCHER(conv2d_pointwise_fprop)));
  define_dgrad(m, pointwise + "dgrad" + suffix, with(GPUCNN_LAUNCHER(conv2d_pointwise_dgrad)));
  define_wgrad(m, pointwise + "wgrad" + suffix, with(GPUCNN_LAUNCHER(conv2d_pointwise_wgrad)),
               [](const Conv2dProblem& p) { return conv2d_pointwise_wgrad_splits(p, kConfiguration); });
}

template <int... kConfigurations>
void define_each_dense(py::module_& m, std::integer_sequence<int, kConfigurations...>) {
  (define_dense<kConfigurations>(m), ...);
}

}  // namespace

void register_conv2d_tensor_core(py::module_& m);

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
  define_fprop(m, "conv2d_stem_fprop", of_float32("stem", GPUCNN_LAUNCHER(conv2d_stem_fprop)));
  define_dgrad(m, "conv2d_stem_dgrad", GPUCNN_LAUNCHER(conv2d_grouped_dgrad));
  define_wgrad(m, "conv2d_stem_wgrad", of_float32("stem", GPUCNN_LAUNCHER(conv2d_stem_wgrad)),
               conv2d_stem_wgrad_splits);
  define_dense<gemm::kAny>(m);
  define_each_dense(m, std::make_integer_sequence<int, gemm::kCount>{});
  register_conv2d_tensor_core(m);
}

}  // namespace gpucnn

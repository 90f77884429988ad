// Python's way to the launchers of tensor_core.h, as bindings.cpp is to those of conv2d.h.
#include "conv2d/bindings.h"
#include "conv2d/tensor_core.h"

namespace gpucnn {
namespace {

using namespace conv2d_bindings;

constexpr const char* kOfFilters = "(K,) of the problem";

// As bindings.cpp's, with all that mma/epilogue.h has.
template <typename Launch, typename Rows>
void define_fprop(py::module_& m, const std::string& name, Launch launch, Rows rows_of) {
  const auto binding = [launch, rows_of](const py::object& problem, const std::string& dtype, const py::object& x,
                                         const py::object& w, const py::object& bias, const py::object& y, bool relu,
                                         std::uintptr_t stream, const py::object& scale, const py::object& shift,
                                         const py::object& residual, const py::object& moments) {
    const Conv2dProblem p = conv2d_problem(problem, kOp);
    with_float_type(kOp, dtype, [&](auto type) {
      using T = typename decltype(type)::type;
      const auto in = images<const T>(x, "x", p);
      const auto weights = filters<const T>(w, "w", p);
      const auto offsets = optional_shaped_view<const T>(bias, kOp, "bias", {p.K}, kOfFilters);
      const auto factors = optional_shaped_view<const float>(scale, kOp, "scale", {p.K}, kOfFilters);
      const auto shifts = optional_shaped_view<const float>(shift, kOp, "shift", {p.K}, kOfFilters);
      const auto added =
          optional_shaped_view<const T>(residual, kOp, "residual", {p.N, p.P, p.Q, p.K}, "(N,P,Q,K) of the problem");
      const std::int64_t rows = rows_of(p, type), lines = 2 * ((p.positions() + rows - 1) / rows) + 1;
      const auto taken = optional_shaped_view<float>(moments, kOp, "moments", {lines, p.K}, "(2*splits+1,K)");
      const auto out = outputs<T>(y, "y", p);
      if (!factors != !shifts) throw std::invalid_argument("conv2d: scale and shift are both needed, or neither");
      require_apart(kOp, out, in, weights, offsets, factors, shifts, added);
      if (taken) require_apart(kOp, *taken, in, weights, offsets, factors, shifts, added);
      run(kOp, describe(in, weights, offsets, factors, shifts, added, out, taken), [&] {
        const mma::Epilogue<T> epilogue{pointer(offsets), relu,           pointer(factors),
                                        pointer(shifts),  pointer(added), pointer(taken)};
        return launch(p, in.data, weights.data, out.data, epilogue, stream_of(stream));
      });
    });
  };
  m.def(name.c_str(), binding, py::arg("problem"), py::arg("dtype"), py::arg("x"), py::arg("w"), py::arg("bias"),
        py::arg("y"), py::arg("relu"), py::arg("stream"), py::arg("scale") = py::none(), py::arg("shift") = py::none(),
        py::arg("residual") = py::none(), py::arg("moments") = py::none(),
        (std::string("Writes y, the convolution of x with w: relu((sums + bias) * scale + shift + residual), each of "
                     "them where it is not None or, of relu, true. scale, shift: float32 (K,). residual: as y. "
                     "moments: float32 (2*splits+1,K), mean and squared differences of each so many windows' y, as "
                     "norm_fprop takes them.") +
         kCommon)
            .c_str());
}

// The kernels on mma/tile.h, by the precision of float32, in the same way.
template <mma::Precision kPrecision, int kConfiguration>
void define_tensor_core(py::module_& m, const char* kernel, const std::string& suffix = "") {
  const auto with = [](auto launch) {
    return [launch](auto... arguments) { return launch(arguments..., kPrecision, kConfiguration); };
  };
  const std::string name = "conv2d_" + std::string(kernel) + "_";
  const auto rows_of = [](const Conv2dProblem& p, auto type) {
    return conv2d_tensor_core_moment_rows<typename decltype(type)::type>(p, kPrecision, kConfiguration);
  };
  define_fprop(m, name + "fprop" + suffix, with(GPUCNN_LAUNCHER(conv2d_tensor_core_fprop)), rows_of);
  m.def((name + "moment_rows" + suffix).c_str(),
        [rows_of](const py::object& problem, const std::string& dtype) {
          const Conv2dProblem p = conv2d_problem(problem, kOp);
          std::int64_t rows = 0;
          with_float_type(kOp, dtype, [&](auto type) { rows = rows_of(p, type); });
          return rows;
        },
        py::arg("problem"), py::arg("dtype"), "Windows of which the forward pass has moments together.");
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

}  // namespace

void register_conv2d_tensor_core(py::module_& m) {
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

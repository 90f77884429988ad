// Python's way to the launchers of tensor_core.h, as bindings.cpp is to those of conv2d.h.
#include "conv2d/bindings.h"
#include "conv2d/tensor_core.h"

namespace gpucnn {
namespace {

using namespace conv2d_bindings;

constexpr const char *kOfFilters = "(K,) of the problem", *kOfParts = "a part for each split";

// The arrays of an epilogue (mma/epilogue.h), but its moments.
template <typename T>
struct EpilogueViews {
  std::optional<ArrayView<const T>> bias, residual;
  std::optional<ArrayView<const float>> scale, shift;

  EpilogueViews(const Conv2dProblem& p, const py::object& bias_, const py::object& scale_, const py::object& shift_,
                const py::object& residual_)
      : bias(optional_shaped_view<const T>(bias_, kOp, "bias", {p.K}, kOfFilters)),
        residual(optional_shaped_view<const T>(residual_, kOp, "residual", {p.N, p.P, p.Q, p.K},
                                               "(N,P,Q,K) of the problem")),
        scale(optional_shaped_view<const float>(scale_, kOp, "scale", {p.K}, kOfFilters)),
        shift(optional_shaped_view<const float>(shift_, kOp, "shift", {p.K}, kOfFilters)) {
    if (!scale != !shift) throw py::value_error("conv2d: scale and shift are both needed, or neither");
  }
  mma::Epilogue<T> epilogue(bool relu, const std::optional<ArrayView<float>>& moments = std::nullopt) const {
    return {pointer(bias), relu, pointer(scale), pointer(shift), pointer(residual), pointer(moments)};
  }
};

const std::string kEpilogue =
    "Writes y, the convolution of x with w: relu((sums + bias) * scale + shift + residual), each of them where it is "
    "not None or, of relu, true. scale, shift: float32 (K,). residual: as y. ";

// As bindings.cpp's, with all that an epilogue has.
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
      const EpilogueViews<T> of(p, bias, scale, shift, residual);
      const std::int64_t rows = rows_of(p, type), lines = 2 * ((p.positions() + rows - 1) / rows) + 1;
      const auto taken = optional_shaped_view<float>(moments, kOp, "moments", {lines, p.K}, "(2*splits+1,K)");
      const auto out = outputs<T>(y, "y", p);
      require_apart(kOp, out, in, weights, of.bias, of.scale, of.shift, of.residual);
      require_apart(kOp, taken, out);
      require_apart(kOp, taken, in, weights, of.bias, of.scale, of.shift, of.residual);
      run(kOp, describe(in, weights, of.bias, of.scale, of.shift, of.residual, out, taken),
          [&] { return launch(p, in.data, weights.data, out.data, of.epilogue(relu, taken), stream_of(stream)); });
    });
  };
  m.def(name.c_str(), binding, py::arg("problem"), py::arg("dtype"), py::arg("x"), py::arg("w"), py::arg("bias"),
        py::arg("y"), py::arg("relu"), py::arg("stream"), py::arg("scale") = py::none(), py::arg("shift") = py::none(),
        py::arg("residual") = py::none(), py::arg("moments") = py::none(),
        (kEpilogue +
         "moments: float32 (2*splits+1,K), mean and squared differences of each so many windows' y, as "
         "norm_fprop takes them." +
         kCommon)
            .c_str());
}

// Of sums that are cut into parts, in `partial`.
template <typename Launch>
void define_cut_fprop(py::module_& m, const std::string& name, Launch launch, Splits splits) {
  const auto binding = [launch, splits](const py::object& problem, const std::string& dtype, const py::object& x,
                                        const py::object& w, const py::object& bias, const py::object& y, bool relu,
                                        const py::object& partial, std::uintptr_t stream, const py::object& scale,
                                        const py::object& shift, const py::object& residual) {
    const Conv2dProblem p = conv2d_problem(problem, kOp);
    with_float_type(kOp, dtype, [&](auto type) {
      using T = typename decltype(type)::type;
      const auto in = images<const T>(x, "x", p);
      const auto weights = filters<const T>(w, "w", p);
      const EpilogueViews<T> of(p, bias, scale, shift, residual);
      const auto out = outputs<T>(y, "y", p);
      const auto sums = shaped_view<float>(partial, kOp, "partial", {splits(p), p.N, p.P, p.Q, p.K}, kOfParts);
      require_apart(kOp, out, in, weights, of.bias, of.scale, of.shift, of.residual);
      require_apart(kOp, sums, out);
      require_apart(kOp, sums, in, weights, of.bias, of.scale, of.shift, of.residual);
      run(kOp, describe(in, weights, of.bias, of.scale, of.shift, of.residual, out, sums),
          [&] { return launch(p, in.data, weights.data, out.data, sums.data, of.epilogue(relu), stream_of(stream)); });
    });
  };
  m.def(name.c_str(), binding, py::arg("problem"), py::arg("dtype"), py::arg("x"), py::arg("w"), py::arg("bias"),
        py::arg("y"), py::arg("relu"), py::arg("partial"), py::arg("stream"), py::arg("scale") = py::none(),
        py::arg("shift") = py::none(), py::arg("residual") = py::none(),
        (kEpilogue + "partial: float32 (splits,N,P,Q,K) to work in." + kCommon).c_str());
  define_splits(m, name, splits);
}

template <typename Launch>
void define_cut_dgrad(py::module_& m, const std::string& name, Launch launch, Splits splits) {
  const auto binding = [launch, splits](const py::object& problem, const std::string& dtype, const py::object& dy,
                                        const py::object& w, const py::object& dx, const py::object& partial,
                                        std::uintptr_t stream) {
    const Conv2dProblem p = conv2d_problem(problem, kOp);
    with_float_type(kOp, dtype, [&](auto type) {
      using T = typename decltype(type)::type;
      const auto gradient = outputs<const T>(dy, "dy", p);
      const auto weights = filters<const T>(w, "w", p);
      const auto out = images<T>(dx, "dx", p);
      const auto sums = shaped_view<float>(partial, kOp, "partial", {splits(p), p.N, p.H, p.W, p.C}, kOfParts);
      require_apart(kOp, out, gradient, weights);
      require_apart(kOp, sums, out, gradient, weights);
      run(kOp, describe(gradient, weights, out, sums),
          [&] { return launch(p, gradient.data, weights.data, out.data, sums.data, stream_of(stream)); });
    });
  };
  define(m, name, binding, "Writes dx, the gradient with respect to x. partial: float32 (splits,N,H,W,C) to work in.",
         "problem", "dtype", "dy", "w", "dx", "partial", "stream");
  define_splits(m, name, splits);
}

// Few windows with long sums, by the precision of float32.
template <mma::Precision kPrecision>
void define_tensor_core_cut(py::module_& m, const char* kernel) {
  const auto with = [](auto launch) {
    return [launch](auto... arguments) { return launch(arguments..., kPrecision); };
  };
  const std::string name = "conv2d_" + std::string(kernel) + "_cut_";
  define_cut_fprop(m, name + "fprop", with(GPUCNN_LAUNCHER(conv2d_tensor_core_cut_fprop)),
                   conv2d_tensor_core_cut_fprop_splits);
  define_cut_dgrad(m, name + "dgrad", with(GPUCNN_LAUNCHER(conv2d_tensor_core_cut_dgrad)),
                   conv2d_tensor_core_cut_dgrad_splits);
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
  define_tensor_core_cut<mma::Precision::high>(m, "tensor_core");
  define_tensor_core_cut<mma::Precision::highest>(m, "split_tensor_core");
}

}  // namespace gpucnn

// Python's way to the launchers of gemm.h: checks that a call is safe, and launches without the GIL.
#include "common/array_view.h"
#include "common/dispatch.h"
#include "common/run.h"
#include "gemm/gemm.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace gpucnn {
namespace {

constexpr const char* kOp = "matmul";
constexpr std::int64_t kLongest = std::int64_t{1} << 33;  // side of a matrix
constexpr std::int64_t kMost = std::int64_t{1} << 38;     // elements of one: below 2^31 tiles
using Extents = std::vector<std::int64_t>;

// The number of the configuration of that name; kAny for "".
int configuration_named(const std::string& name) {
  if (name.empty()) return gemm::kAny;
  std::string names;
  for (int i = 0; i < gemm::kCount; ++i) {
    if (name == gemm::kConfigurations[i].name) return i;
    names += (i ? ", " : "") + std::string(gemm::kConfigurations[i].name);
  }
  throw py::value_error(std::string(kOp) + ": no configuration '" + name + "', there are: " + names);
}

gemm::Sizes sizes(std::int64_t M, std::int64_t N, std::int64_t K) {
  for (const std::int64_t size : {M, N, K}) {
    if (size < 0 || size > kLongest) {
      throw py::value_error(std::string(kOp) + ": M, N and K must be in [0, 2^33], got " + in_words({M, N, K}));
    }
  }
  for (const auto& [a, b] : {std::pair{M, N}, std::pair{M, K}, std::pair{N, K}}) {
    if (b != 0 && a > kMost / b) {
      throw py::value_error(std::string(kOp) +
                            ": a matrix has more than 2^38 elements: M, N, K = " + in_words({M, N, K}));
    }
  }
  return {M, N, K};
}

template <typename View>
void require_matrix(const View& array) {
  if (array.shape.size() == 2) return;
  throw py::value_error(std::string(kOp) + ": argument '" + array.argument + "' of shape " + in_words(array.shape) +
                        " must be a matrix");
}

simt::Stream stream_of(std::uintptr_t handle) {
  return reinterpret_cast<simt::Stream>(handle);
}

void nt_binding(const std::string& dtype, const py::object& x, const py::object& w, const py::object& bias,
                const py::object& y, bool relu, std::uintptr_t stream, const std::string& configuration) {
  const int wanted = configuration_named(configuration);
  with_float_type(kOp, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = view<const T>(x, kOp, "x"), weights = view<const T>(w, kOp, "w");
    require_matrix(in);
    require_matrix(weights);
    const gemm::Sizes s = sizes(in.shape[0], weights.shape[0], in.shape[1]);
    require_shape(kOp, weights, Extents{s.N, s.K}, "(N,K), with the K of x");
    const auto offsets = optional_view<const T>(bias, kOp, "bias");
    if (offsets) require_shape(kOp, *offsets, Extents{s.N}, "(N,), with the N of w");
    const auto out = view<T>(y, kOp, "y");
    require_shape(kOp, out, Extents{s.M, s.N}, "(M,N), with the M of x and the N of w");
    require_disjoint(kOp, out, in);
    require_disjoint(kOp, out, weights);
    if (offsets) require_disjoint(kOp, out, *offsets);
    run(kOp, describe(in, weights, offsets, out), [&] {
      return gemm::matmul_nt(s, in.data, weights.data, offsets ? offsets->data : nullptr, relu, out.data,
                             stream_of(stream), wanted);
    });
  });
}

void nn_binding(const std::string& dtype, const py::object& dy, const py::object& w, const py::object& dx,
                std::uintptr_t stream, const std::string& configuration) {
  const int wanted = configuration_named(configuration);
  with_float_type(kOp, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto gradient = view<const T>(dy, kOp, "dy"), weights = view<const T>(w, kOp, "w");
    require_matrix(gradient);
    require_matrix(weights);
    const gemm::Sizes s = sizes(gradient.shape[0], gradient.shape[1], weights.shape[1]);
    require_shape(kOp, weights, Extents{s.N, s.K}, "(N,K), with the N of dy");
    const auto out = view<T>(dx, kOp, "dx");
    require_shape(kOp, out, Extents{s.M, s.K}, "(M,K), with the M of dy and the K of w");
    require_disjoint(kOp, out, gradient);
    require_disjoint(kOp, out, weights);
    run(kOp, describe(gradient, weights, out),
        [&] { return gemm::matmul_nn(s, gradient.data, weights.data, out.data, stream_of(stream), wanted); });
  });
}

void tn_binding(const std::string& dtype, const py::object& x, const py::object& dy, const py::object& dw,
                const py::object& partial, std::uintptr_t stream, const std::string& configuration) {
  const int wanted = configuration_named(configuration);
  with_float_type(kOp, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = view<const T>(x, kOp, "x"), gradient = view<const T>(dy, kOp, "dy");
    require_matrix(in);
    require_matrix(gradient);
    const gemm::Sizes s = sizes(in.shape[0], gradient.shape[1], in.shape[1]);
    require_shape(kOp, gradient, Extents{s.M, s.N}, "(M,N), with the M of x");
    const auto out = view<T>(dw, kOp, "dw");
    require_shape(kOp, out, Extents{s.N, s.K}, "(N,K), with the N of dy and the K of x");
    const std::int64_t count = gemm::matmul_tn_parts(s, wanted);
    const auto parts = optional_view<float>(partial, kOp, "partial");
    const Extents expected{count, s.N, s.K};
    const std::string what = "a part for each of " + std::to_string(count);
    if (parts) {
      require_shape(kOp, *parts, expected, what);
      require_disjoint(kOp, *parts, in);
      require_disjoint(kOp, *parts, gradient);
      require_disjoint(kOp, *parts, out);
    } else if (count > 1) {
      throw py::value_error(std::string(kOp) + ": argument 'partial' must be an array of shape " + in_words(expected) +
                            ": " + what);
    }
    require_disjoint(kOp, out, in);
    require_disjoint(kOp, out, gradient);
    run(kOp, describe(in, gradient, out, parts), [&] {
      return gemm::matmul_tn(s, in.data, gradient.data, out.data, parts ? parts->data : nullptr, stream_of(stream),
                             wanted);
    });
  });
}

constexpr const char* kCommon =
    "\n\ndtype: 'float32', 'float16' or 'bfloat16', that of x, dx (M,K), w, dw (N,K), y, dy (M,N), bias (N,): "
    "C-contiguous, with the array interface of the module's machine.\n"
    "stream: the handle of a CUDA stream; 0 is the default stream, and all that there is on the CPU.\n"
    "configuration: one of gemm_configurations(), or '' for the one that suits the sizes.\n"
    "Raises TypeError and ValueError before anything is written; CudaError or SimtError where a launch or a kernel "
    "fails.";

}  // namespace

void register_gemm(py::module_& m) {
  const auto define = [&m](const char* name, auto binding, const std::string& text, auto... arguments) {
    m.def(name, binding, arguments..., py::arg("stream"), py::arg("configuration") = "", (text + kCommon).c_str());
  };
  const py::arg dtype("dtype"), x("x"), w("w"), y("y"), dy("dy"), dx("dx"), dw("dw");
  define("matmul_nt", &nt_binding,
         "Writes y = x * transposed(w) + bias, of which relu keeps what is above 0; bias is an "
         "array or None.",
         dtype, x, w, py::arg("bias"), y, py::arg("relu"));
  define("matmul_nn", &nn_binding, "Writes dx = dy * w.", dtype, dy, w, dx);
  define("matmul_tn", &tn_binding,
         "Writes dw = transposed(dy) * x. partial: float32 (parts,N,K) to work in, or None for one part.", dtype, x, dy,
         dw, py::arg("partial"));
  m.def(
      "matmul_tn_parts",
      [](std::int64_t M, std::int64_t N, std::int64_t K, const std::string& configuration) {
        return gemm::matmul_tn_parts(sizes(M, N, K), configuration_named(configuration));
      },
      py::arg("M"), py::arg("N"), py::arg("K"), py::arg("configuration") = "",
      "The parts into which matmul_tn cuts the sum over M.");
  m.def(
      "gemm_configurations",
      [] {
        std::vector<std::string> names;
        for (const auto& each : gemm::kConfigurations) names.emplace_back(each.name);
        return names;
      },
      "The names of the configurations of the products, rows by columns of a tile.");
  m.def(
      "gemm_configuration",
      [](std::int64_t rows, std::int64_t columns, bool wide) {
        return std::string(gemm::kConfigurations[gemm::choose(rows, columns, wide)].name);
      },
      py::arg("rows"), py::arg("columns"), py::arg("wide"),
      "The name of the configuration that a product of rows x columns sums gets; wide: where packs of 16 bytes fit.");
  m.def(
      "gemm_cut",
      [](std::int64_t rows, std::int64_t columns, std::int64_t depth, bool wide) {
        const gemm::Cut cut = gemm::choose_cut(rows, columns, depth);
        const int configuration = wide ? cut.configuration : gemm::kNarrow;
        return std::pair(std::string(gemm::kConfigurations[configuration].name), cut.parts);
      },
      py::arg("rows"), py::arg("columns"), py::arg("depth"), py::arg("wide"),
      "As gemm_configuration, of sums that may be cut in depth: the name, and the parts.");
}

}  // namespace gpucnn

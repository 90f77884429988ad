// Python's way to the launchers of linear.h: checks that a call is safe, and launches without the GIL.
#include "common/array_view.h"
#include "common/binding.h"
#include "common/dispatch.h"
#include "common/run.h"
#include "linear/linear.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <vector>

namespace gpucnn {
namespace {

constexpr const char* kOp = "linear";
constexpr std::int64_t kWidest = std::int64_t{1} << 18;  // sums of a row whose depth is cut

template <typename T>
ArrayView<T> matrix(const py::object& array, const char* argument) {
  const auto found = view<T>(array, kOp, argument);
  if (found.shape.size() != 2) {
    throw py::value_error(std::string(kOp) + ": argument '" + argument + "' of shape " + in_words(found.shape) +
                          " must be a matrix");
  }
  return found;
}

void require_width(std::int64_t width) {
  if (width > kWidest) {
    throw py::value_error(std::string(kOp) + ": rows of at most 2^18 sums, got " + std::to_string(width));
  }
}

void split_fprop_binding(const std::string& dtype, const py::object& x, const py::object& w, const py::object& bias,
                         const py::object& y, bool relu, const py::object& partial, std::uintptr_t stream) {
  with_float_type(kOp, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = matrix<const T>(x, "x"), weights = matrix<const T>(w, "w");
    const gemm::Sizes s{in.shape[0], weights.shape[0], in.shape[1]};
    require_width(s.N);
    require_shape(kOp, weights, Shape{s.N, s.K}, "(N,K), with the K of x");
    const auto offsets = optional_shaped_view<const T>(bias, kOp, "bias", {s.N}, "(N,), with the N of w");
    const auto out = shaped_view<T>(y, kOp, "y", {s.M, s.N}, "(M,N), with the M of x and the N of w");
    const auto parts =
        shaped_view<float>(partial, kOp, "partial", {linear_split_parts(s.N, s.K), s.M, s.N}, "the sums of each part");
    require_apart(kOp, out, in, weights, offsets, parts);
    require_apart(kOp, parts, in, weights, offsets);
    run(kOp, describe(in, weights, offsets, out, parts), [&] {
      return linear_split_fprop(s, in.data, weights.data, pointer(offsets), relu, out.data, parts.data,
                                stream_of(stream));
    });
  });
}

void split_dgrad_binding(const std::string& dtype, const py::object& dy, const py::object& w, const py::object& dx,
                         const py::object& partial, std::uintptr_t stream) {
  with_float_type(kOp, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto gradient = matrix<const T>(dy, "dy"), weights = matrix<const T>(w, "w");
    const gemm::Sizes s{gradient.shape[0], gradient.shape[1], weights.shape[1]};
    require_width(s.K);
    require_shape(kOp, weights, Shape{s.N, s.K}, "(N,K), with the N of dy");
    const auto out = shaped_view<T>(dx, kOp, "dx", {s.M, s.K}, "(M,K), with the M of dy and the K of w");
    const auto parts =
        shaped_view<float>(partial, kOp, "partial", {linear_split_parts(s.K, s.N), s.M, s.K}, "the sums of each part");
    require_apart(kOp, out, gradient, weights, parts);
    require_apart(kOp, parts, gradient, weights);
    run(kOp, describe(gradient, weights, out, parts),
        [&] { return linear_split_dgrad(s, gradient.data, weights.data, out.data, parts.data, stream_of(stream)); });
  });
}

void column_sums_binding(const std::string& dtype, const py::object& x, const py::object& sums,
                         const py::object& partial, std::uintptr_t stream) {
  with_float_type(kOp, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = matrix<const T>(x, "x");
    const std::int64_t rows = in.shape[0], columns = in.shape[1], count = column_sums_parts(rows, columns);
    const auto out = shaped_view<T>(sums, kOp, "sums", {columns}, "(columns,) of x");
    const auto parts = parts_view(partial, kOp, count, {columns}, "the sums of each part");
    require_apart(kOp, parts, in, out);
    require_apart(kOp, out, in);
    run(kOp, describe(in, out, parts),
        [&] { return column_sums(rows, columns, in.data, out.data, pointer(parts), stream_of(stream)); });
  });
}

// The number of matrices that the steps reach into, of an array of `matrices`; refuses steps beyond it.
void require_within(const char* argument, std::int64_t matrices, const Shape& sizes, const Shape& steps) {
  std::int64_t last = 0;
  bool valid = steps.size() == sizes.size();
  for (std::size_t i = 0; valid && i < sizes.size(); ++i) {
    valid = steps[i] >= 0 && (sizes[i] <= 1 || steps[i] <= matrices / (sizes[i] - 1));
    last += valid && sizes[i] > 1 ? steps[i] * (sizes[i] - 1) : 0;
  }
  if (!valid || last >= matrices) {
    throw py::value_error(std::string("matmul: the steps ") + in_words(steps) + " over a batch " + in_words(sizes) +
                          " lead out of the " + std::to_string(matrices) + " matrices of '" + argument + "'");
  }
}

void batched_binding(const std::string& dtype, const py::object& a, bool transposed_a, const py::object& b,
                     bool transposed_b, const py::object& y, const Shape& batch, const Shape& a_steps,
                     const Shape& b_steps, std::uintptr_t stream) {
  constexpr const char* op = "matmul";
  if (batch.size() > kBatchAxes) {
    throw py::value_error(std::string(op) + ": a batch of at most 4 axes, got " + in_words(batch));
  }
  with_float_type(op, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto left = view<const T>(a, op, "a"), right = view<const T>(b, op, "b");
    const auto out = view<T>(y, op, "y");
    for (const Shape* shape : {&left.shape, &right.shape, &out.shape}) {
      if (shape->size() != 3) throw py::value_error(std::string(op) + ": a, b and y must be (matrices, rows, columns)");
    }
    const gemm::Sizes s{left.shape[transposed_a ? 2 : 1], right.shape[transposed_b ? 1 : 2],
                        left.shape[transposed_a ? 1 : 2]};
    require_shape(op, right, transposed_b ? Shape{right.shape[0], s.N, s.K} : Shape{right.shape[0], s.K, s.N},
                  "with the K of a");
    Batch all{1, {}, {}, {}};
    const int first = kBatchAxes - static_cast<int>(batch.size());
    bool fits = true;
    for (int axis = 0; axis < kBatchAxes; ++axis) {
      const std::int64_t size = axis < first ? 1 : batch[static_cast<std::size_t>(axis - first)];
      fits = fits && size >= 0 && size < std::int64_t{1} << 31 && all.matrices <= (std::int64_t{1} << 31);
      if (fits) all.matrices *= size;
    }
    if (!fits) throw py::value_error(std::string(op) + ": a batch of less than 2^31 matrices, got " + in_words(batch));
    require_shape(op, out, Shape{all.matrices, s.M, s.N}, "(matrices,M,N) of the batch, a and b");
    if (all.matrices > 0) {
      require_within("a", left.shape[0], batch, a_steps);
      require_within("b", right.shape[0], batch, b_steps);
      for (int axis = 0; axis < kBatchAxes; ++axis) {
        const auto i = static_cast<std::size_t>(axis - first);
        all.sizes[axis] = divisor_of(axis < first ? 1 : batch[i]);
        all.a_steps[axis] = axis < first ? 0 : a_steps[i] * s.M * s.K;
        all.b_steps[axis] = axis < first ? 0 : b_steps[i] * s.K * s.N;
      }
    }
    require_apart(op, out, left, right);
    run(op, describe(left, right, out), [&] {
      return matmul_batched(s, all, left.data, transposed_a, right.data, transposed_b, out.data, stream_of(stream));
    });
  });
}

constexpr const char* kCommon =
    "\n\ndtype: 'float32', 'float16' or 'bfloat16', that of all arrays but partial, which is float32: C-contiguous, "
    "with "
    "the array interface of the module's machine.\n" GPUCNN_STREAM_AND_ERRORS;

}  // namespace

void register_linear(py::module_& m) {
  const auto define = [&m](const char* name, auto binding, const std::string& text, auto... arguments) {
    m.def(name, binding, py::arg("dtype"), py::arg(arguments)..., py::arg("stream"), (text + kCommon).c_str());
  };
  define(
      "linear_split_fprop", &split_fprop_binding,
      "Writes y (M,N) = x (M,K) * transposed(w (N,K)) + bias (N,), an array or None; of that, with relu, max(y, 0).\n"
      "partial: (linear_split_parts(N, K), M, N) to work in.",
      "x", "w", "bias", "y", "relu", "partial");
  define("linear_split_dgrad", &split_dgrad_binding,
         "Writes dx (M,K) = dy (M,N) * w (N,K).\npartial: (linear_split_parts(K, N), M, K) to work in.", "dy", "w",
         "dx", "partial");
  define("column_sums", &column_sums_binding,
         "Writes sums (columns,), those of x (rows, columns).\npartial: (column_sums_parts(rows, columns), columns) to "
         "work in, or None for one part.",
         "x", "sums", "partial");
  define("matmul_batched", &batched_binding,
         "Writes y (matrices,M,N), the products of a's and b's matrices. a is (matrices,M,K), or (matrices,K,M) where "
         "transposed_a; b is (matrices,K,N), or (matrices,N,K) where transposed_b.\n"
         "batch: the sizes of up to 4 axes, the last of which is the fastest. a_steps, b_steps: for each, how many "
         "matrices further on in a and b; 0 where one serves all.",
         "a", "transposed_a", "b", "transposed_b", "y", "batch", "a_steps", "b_steps");
  m.def("linear_split_parts", &linear_split_parts, py::arg("width"), py::arg("depth"),
        "The parts into which linear_split_fprop and _dgrad cut sums over `depth`, of `width` a row.");
  m.def("column_sums_parts", &column_sums_parts, py::arg("rows"), py::arg("columns"),
        "The parts into which column_sums cuts the rows.");
}

}  // namespace gpucnn

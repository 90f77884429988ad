// Python's way to the launchers of row_norm.h: checks that a call is safe, and launches without the GIL.
#include "common/array_view.h"
#include "common/binding.h"
#include "common/dispatch.h"
#include "common/run.h"
#include "row_norm/row_norm.h"

#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace gpucnn {
namespace {

constexpr const char* kLayer = "layer_norm";
constexpr const char* kLocal = "local_response_norm";
constexpr std::int64_t kMostColumns = std::int64_t{1} << 31, kMostElements = std::int64_t{1} << 38;

struct Matrix {
  std::int64_t rows, columns;
  Shape shape() const { return {rows, columns}; }
};

template <typename T>
Matrix matrix_of(const char* op, const ArrayView<T>& array) {
  const std::string where = std::string(op) + ": '" + array.argument + "' of shape " + in_words(array.shape);
  if (array.shape.size() != 2) throw py::value_error(where + " must have two axes, (rows, columns)");
  if (array.shape[1] >= kMostColumns) throw py::value_error(where + " has 2^31 columns or more");
  if (array.size > kMostElements) throw py::value_error(where + " has more than 2^38 elements");
  return {array.shape[0], array.shape[1]};
}

constexpr const char* kRowsOfX = "as x";
constexpr const char* kARow = "a number for each row of x";
constexpr const char* kAColumn = "a number for each column of x";

void layer_fprop_binding(double eps, const std::string& dtype, const py::object& x, const py::object& weight,
                         const py::object& bias, const py::object& y, const py::object& mean, const py::object& inverse,
                         std::uintptr_t stream) {
  with_float_type(kLayer, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = view<const T>(x, kLayer, "x");
    const Matrix m = matrix_of(kLayer, in);
    const auto factors = optional_shaped_view<const float>(weight, kLayer, "weight", {m.columns}, kAColumn);
    const auto offsets = optional_shaped_view<const float>(bias, kLayer, "bias", {m.columns}, kAColumn);
    const auto out = shaped_view<T>(y, kLayer, "y", m.shape(), kRowsOfX);
    const auto means = shaped_view<double>(mean, kLayer, "mean", {m.rows, 1}, kARow);
    const auto inverses = shaped_view<double>(inverse, kLayer, "inverse", {m.rows, 1}, kARow);
    require_apart(kLayer, out, in, factors, offsets, means, inverses);
    for (const auto* one : {&means, &inverses}) {
      require_apart(kLayer, *one, in, factors, offsets);
    }
    require_apart(kLayer, means, inverses);
    run(kLayer, describe(in, factors, offsets, out, means, inverses), [&] {
      return layer_norm_fprop<T>(m.rows, m.columns, static_cast<float>(eps), in.data, pointer(factors),
                                 pointer(offsets), out.data, means.data, inverses.data, stream_of(stream));
    });
  });
}

void layer_bprop_binding(const std::string& dtype, const py::object& dy, const py::object& x, const py::object& weight,
                         const py::object& mean, const py::object& inverse, const py::object& dx,
                         const py::object& sums, const py::object& partial, std::uintptr_t stream) {
  with_float_type(kLayer, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = view<const T>(x, kLayer, "x");
    const Matrix m = matrix_of(kLayer, in);
    const auto gradient = shaped_view<const T>(dy, kLayer, "dy", m.shape(), kRowsOfX);
    const auto factors = optional_shaped_view<const float>(weight, kLayer, "weight", {m.columns}, kAColumn);
    const auto means = shaped_view<const double>(mean, kLayer, "mean", {m.rows, 1}, kARow);
    const auto inverses = shaped_view<const double>(inverse, kLayer, "inverse", {m.rows, 1}, kARow);
    const auto out = optional_shaped_view<T>(dx, kLayer, "dx", m.shape(), kRowsOfX);
    const auto totals = optional_shaped_view<float>(sums, kLayer, "sums", {2, m.columns}, "(2,columns) of x");
    const std::int64_t splits = layer_norm_splits(m.rows, m.columns, sizeof(T));
    const auto parts =
        optional_shaped_view<float>(partial, kLayer, "partial", {splits, 2, m.columns}, "(splits,2,columns) of x");
    if (totals && splits > 1 && !parts) {
      throw py::value_error(std::string(kLayer) + ": partial is needed for the sums of " + std::to_string(splits) +
                            " splits");
    }
    const auto apart_from_inputs = [&](const auto& one) {
      require_apart(kLayer, one, in, gradient, factors, means, inverses);
    };
    apart_from_inputs(out);
    apart_from_inputs(totals);
    apart_from_inputs(parts);
    require_apart(kLayer, out, totals, parts);
    require_apart(kLayer, totals, parts);
    const auto queue = stream_of(stream);
    run(kLayer, describe(gradient, in, factors, means, inverses, out, totals, parts), [&] {
      simt::Status status = simt::kSuccess;
      if (out) {
        status = layer_norm_dgrad<T>(m.rows, m.columns, gradient.data, in.data, pointer(factors), means.data,
                                     inverses.data, out->data, queue);
      }
      if (status != simt::kSuccess || !totals) return status;
      return layer_norm_wgrad<T>(m.rows, m.columns, gradient.data, in.data, means.data, inverses.data, pointer(parts),
                                 totals->data, queue);
    });
  });
}

std::int64_t layer_splits_binding(const std::string& dtype, std::int64_t rows, std::int64_t columns) {
  if (rows < 0 || columns < 0 || columns >= kMostColumns) {
    throw py::value_error(std::string(kLayer) + ": rows and columns must be at least 0, columns below 2^31");
  }
  std::int64_t splits = 0;
  with_float_type(kLayer, dtype,
                  [&](auto type) { splits = layer_norm_splits(rows, columns, sizeof(typename decltype(type)::type)); });
  return splits;
}

// The window [c - before, c + after] of gpucnn's LocalResponseProblem, cut to what channels there can be.
LocalResponse local_response_of(const Matrix& m, std::int64_t size, double alpha, double beta, double k) {
  if (size < 1) throw py::value_error(std::string(kLocal) + ": size must be at least 1, got " + std::to_string(size));
  const std::int64_t most = std::max<std::int64_t>(m.columns - 1, 0);
  return {m.rows,
          m.columns,
          std::min(size / 2, most),
          std::min((size - 1) / 2, most),
          static_cast<float>(alpha / static_cast<double>(size)),
          static_cast<float>(beta),
          static_cast<float>(k)};
}

void local_fprop_binding(const std::string& dtype, std::int64_t size, double alpha, double beta, double k,
                         const py::object& x, const py::object& y, std::uintptr_t stream) {
  with_float_type(kLocal, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = view<const T>(x, kLocal, "x");
    const Matrix m = matrix_of(kLocal, in);
    const auto out = shaped_view<T>(y, kLocal, "y", m.shape(), kRowsOfX);
    require_apart(kLocal, out, in);
    const LocalResponse p = local_response_of(m, size, alpha, beta, k);
    run(kLocal, describe(in, out), [&] { return local_response_fprop<T>(p, in.data, out.data, stream_of(stream)); });
  });
}

void local_dgrad_binding(const std::string& dtype, std::int64_t size, double alpha, double beta, double k,
                         const py::object& dy, const py::object& x, const py::object& dx, std::uintptr_t stream) {
  with_float_type(kLocal, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = view<const T>(x, kLocal, "x");
    const Matrix m = matrix_of(kLocal, in);
    const auto gradient = shaped_view<const T>(dy, kLocal, "dy", m.shape(), kRowsOfX);
    const auto out = shaped_view<T>(dx, kLocal, "dx", m.shape(), kRowsOfX);
    require_apart(kLocal, out, in, gradient);
    const LocalResponse p = local_response_of(m, size, alpha, beta, k);
    run(kLocal, describe(gradient, in, out),
        [&] { return local_response_dgrad<T>(p, gradient.data, in.data, out.data, stream_of(stream)); });
  });
}

constexpr const char* kCommon =
    "\n\ndtype: 'float32', 'float16' or 'bfloat16', that of the arrays (rows,columns); weight and bias (columns,), "
    "sums "
    "and partial are float32, mean and inverse (rows,1) float64. All are C-contiguous, with the array interface of the "
    "module's machine; outputs share no memory.\n" GPUCNN_STREAM_AND_ERRORS;

}  // namespace

void register_row_norm(py::module_& m) {
  const py::arg dtype("dtype"), x("x"), y("y"), dy("dy"), dx("dx"), weight("weight"), mean("mean"), inverse("inverse"),
      size("size"), alpha("alpha"), beta("beta"), k("k"), stream("stream");
  const auto with_common = [](const char* text) { return std::string(text) + kCommon; };
  m.def("layer_norm_fprop", &layer_fprop_binding, py::arg("eps"), dtype, x, weight, py::arg("bias"), y, mean, inverse,
        stream, with_common("Writes y, and mean and 1 / deviation of each row; weight and bias may be None.").c_str());
  m.def("layer_norm_bprop", &layer_bprop_binding, dtype, dy, x, weight, mean, inverse, dx, py::arg("sums"),
        py::arg("partial"), stream,
        with_common("Writes dx, and dbias and dweight as the rows of sums (2,columns); either may be None. partial "
                    "(splits,2,columns) is to work in, None for one split.")
            .c_str());
  m.def("layer_norm_splits", &layer_splits_binding, dtype, py::arg("rows"), py::arg("columns"),
        "The splits that layer_norm_bprop cuts its sums over rows into.");
  m.def("local_response_fprop", &local_fprop_binding, dtype, size, alpha, beta, k, x, y, stream,
        with_common("Writes y = x / (k + alpha / size * sum of squares)**beta.").c_str());
  m.def("local_response_dgrad", &local_dgrad_binding, dtype, size, alpha, beta, k, dy, x, dx, stream,
        with_common("Writes dx, the gradient of local_response_fprop.").c_str());
}

}  // namespace gpucnn

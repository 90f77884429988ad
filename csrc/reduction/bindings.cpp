// Python's way to the launchers of reduction.h: checks that a call is safe, and launches without the GIL.
#include "common/array_view.h"
#include "common/binding.h"
#include "common/dispatch.h"
#include "common/narrow.h"
#include "common/run.h"
#include "reduction/reduction.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

namespace gpucnn {
namespace {

constexpr const char* kOp = "reduce";

const ReduceFunctions& functions() {
  static const ReduceFunctions all = [] {
    ReduceFunctions found;
    add_sums(found);
    add_powers(found);
    add_extrema(found);
    return found;
  }();
  return all;
}

const ReduceFunction& function_named(const std::string& name) {
  std::string names;
  for (const ReduceFunction& function : functions()) {
    if (name == function.name) return function;
    names += (names.empty() ? "" : ", ") + std::string(function.name);
  }
  throw py::value_error("reduce: no reduction '" + name + "'; there are " + names);
}

Finish finish_named(const std::string& name) {
  if (name == "none") return Finish::none;
  if (name == "divide") return Finish::divide;
  if (name == "root") return Finish::root;
  if (name == "log") return Finish::log;
  if (name == "power") return Finish::power;
  throw py::value_error("reduce: no finish '" + name + "'; there are none, divide, root, log, power");
}

Extents extents_of(const char* op, const Shape& shape) {
  if (shape.size() != 3) throw py::value_error(std::string(op) + ": x must be (outer, reduced, inner)");
  const Extents e{shape[0], shape[1], shape[2]};
  constexpr std::int64_t kMostElements = std::int64_t{1} << 38, kMostInner = std::int64_t{1} << 31;
  if (e.inner >= kMostInner) throw py::value_error(std::string(op) + ": inner must be below 2^31");
  std::int64_t size = 0;
  if (__builtin_mul_overflow(e.outer, e.reduced, &size) || __builtin_mul_overflow(size, e.inner, &size) ||
      size > kMostElements || __builtin_mul_overflow(e.outer, e.inner, &size) || size > kMostElements) {
    throw py::value_error(std::string(op) + ": x has more than 2^38 elements, or its result has");
  }
  return e;
}

Extents gradient_extents(const char* op, const Shape& shape) {
  const Extents e = extents_of(op, shape);
  if (e.reduced >= std::int64_t{1} << 31) throw py::value_error(std::string(op) + ": reduced must be below 2^31");
  return e;
}

template <typename T>
constexpr Storage kStorage = std::is_same_v<T, float>        ? Storage::float32
                             : std::is_same_v<T, simt::half> ? Storage::float16
                                                             : Storage::bfloat16;

template <typename T, typename Out, typename Centre>
void reduce_typed(const ReduceFunction& function, const py::object& x, const py::object& y, const py::object& centre,
                  const py::object& partial, double exponent, const std::string& finish, double finish_by,
                  std::uintptr_t stream) {
  const auto in = view<const T>(x, kOp, "x");
  const Extents e = extents_of(kOp, in.shape);
  const auto out = view<Out>(y, kOp, "y");
  require_shape(kOp, out, Shape{e.outer, e.inner}, "(outer, inner) of x");
  require_disjoint(kOp, out, in);
  const auto relative = optional_view<const Centre>(centre, kOp, "centre");
  if (function.has_centre != relative.has_value()) {
    throw py::value_error(std::string(kOp) + ": " + function.name + (relative ? " has no centre" : " needs a centre"));
  }
  if (relative) {
    require_shape(kOp, *relative, Shape{e.outer, e.inner}, "(outer, inner) of x");
    require_disjoint(kOp, out, *relative);
  }
  const std::int64_t splits = reduction_splits(e.reduced, e.inner);
  const auto parts = optional_view<float>(partial, kOp, "partial");
  if ((splits > 1) != parts.has_value()) {
    throw py::value_error(std::string(kOp) + ": partial must be " +
                          (splits > 1 ? "(outer, " + std::to_string(splits) + ", inner)" : "None") +
                          ", as reduce_splits() says");
  }
  if (parts) {
    require_shape(kOp, *parts, Shape{e.outer, splits, e.inner}, "(outer, splits, inner) of x");
    require_disjoint(kOp, *parts, in);
    require_disjoint(kOp, *parts, out);
    if (relative) require_disjoint(kOp, *parts, *relative);
  }
  const ReduceArguments arguments{in.data,
                                  e.outer,
                                  e.reduced,
                                  e.inner,
                                  relative ? relative->data : nullptr,
                                  kStorage<Centre>,
                                  narrowed(exponent),
                                  finish_named(finish),
                                  narrowed(finish_by),
                                  parts ? parts->data : nullptr,
                                  out.data,
                                  kStorage<Out>};
  if (out.size == 0) return;
  const ReduceLauncher launcher = std::is_same_v<T, float>        ? function.float32
                                  : std::is_same_v<T, simt::half> ? function.float16
                                                                  : function.bfloat16;
  run(kOp, describe(in, out, relative, parts), [&] { return launcher(arguments, stream_of(stream)); });
}

bool is_float32(const py::object& array) {
  if (array.is_none() || !py::hasattr(array, kInterface)) return false;
  const py::object interface = array.attr(kInterface);
  return py::isinstance<py::dict>(interface) && interface.cast<py::dict>().contains("typestr") &&
         py::str(interface["typestr"]).cast<std::string>() == "<f4";
}

void reduce_binding(const std::string& name, const std::string& dtype, const py::object& x, const py::object& y,
                    const py::object& centre, const py::object& partial, double exponent, const std::string& finish,
                    double finish_by, std::uintptr_t stream) {
  const ReduceFunction& function = function_named(name);
  with_float_type(kOp, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto call = [&](auto out, auto relative) {
      reduce_typed<T, typename decltype(out)::type, typename decltype(relative)::type>(
          function, x, y, centre, partial, exponent, finish, finish_by, stream);
    };
    const bool wide = is_float32(y), wide_centre = is_float32(centre);
    if (wide && wide_centre) return call(Type<float>{}, Type<float>{});
    if (wide) return call(Type<float>{}, type);
    if (wide_centre) return call(type, Type<float>{});
    return call(type, type);
  });
}

// Checks the arrays of var_grad and extremum_grad, whose float32 `statistic` is the mean or the counts, and calls
// body(dy, x, y, statistic, dx, extents).
template <typename Body>
void spread_binding(const char* name, const char* statistic_name, const std::string& dtype, const py::object& dy,
                    const py::object& x, const py::object& y, const py::object& statistic, const py::object& dx,
                    Body&& body) {
  with_float_type(name, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = view<const T>(x, name, "x");
    const Extents e = gradient_extents(name, in.shape);
    const Shape results{e.outer, e.inner};
    const auto gradient = view<const T>(dy, name, "dy"), result = view<const T>(y, name, "y");
    const auto numbers = view<const float>(statistic, name, statistic_name);
    const auto out = view<T>(dx, name, "dx");
    require_shape(name, gradient, results, "(outer, inner) of x");
    require_shape(name, result, results, "(outer, inner) of x");
    require_shape(name, numbers, results, "(outer, inner) of x");
    require_same_shape(name, in, out);
    require_disjoint(name, out, gradient);
    require_disjoint(name, out, result);
    require_disjoint(name, out, numbers);
    require_disjoint(name, out, in);
    if (in.size == 0) return;
    run(name, describe(gradient, in, result, numbers, out),
        [&] { return body(gradient.data, in.data, result.data, numbers.data, out.data, e); });
  });
}

void var_grad_binding(const std::string& dtype, const py::object& dy, const py::object& x, const py::object& y,
                      const py::object& mean, const py::object& dx, double divisor, bool root, std::uintptr_t stream) {
  spread_binding("var_grad", "mean", dtype, dy, x, y, mean, dx,
                 [&](auto... arguments) { return var_grad(arguments..., narrowed(divisor), root, stream_of(stream)); });
}

void extremum_grad_binding(const std::string& dtype, const py::object& dy, const py::object& x, const py::object& y,
                           const py::object& counts, const py::object& dx, std::uintptr_t stream) {
  spread_binding("extremum_grad", "counts", dtype, dy, x, y, counts, dx,
                 [&](auto... arguments) { return extremum_grad(arguments..., stream_of(stream)); });
}

void prod_grad_binding(const std::string& dtype, const py::object& dy, const py::object& x, const py::object& dx,
                       std::uintptr_t stream) {
  constexpr const char* kName = "prod_grad";
  with_float_type(kName, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = view<const T>(x, kName, "x");
    const Extents e = gradient_extents(kName, in.shape);
    const auto gradient = view<const T>(dy, kName, "dy");
    const auto out = view<T>(dx, kName, "dx");
    require_shape(kName, gradient, Shape{e.outer, e.inner}, "(outer, inner) of x");
    require_same_shape(kName, in, out);
    require_disjoint(kName, out, gradient);
    require_disjoint(kName, out, in);
    if (in.size == 0) return;
    run(kName, describe(gradient, in, out),
        [&] { return prod_grad<T>(gradient.data, in.data, out.data, e, stream_of(stream)); });
  });
}

}  // namespace

void register_reduction(py::module_& m) {
  m.def("reduce", &reduce_binding, py::arg("name"), py::arg("dtype"), py::arg("x"), py::arg("y"), py::arg("centre"),
        py::arg("partial"), py::arg("exponent"), py::arg("finish"), py::arg("finish_by"), py::arg("stream"),
        "y = finish(combined terms of x over its middle axis).\n\n"
        "name: of the reduction, such as 'sum'; of an unknown one the error lists all.\n"
        "dtype: 'float32', 'float16' or 'bfloat16', of x.\n"
        "x: (outer, reduced, inner), C-contiguous. y: (outer, inner), of dtype or float32.\n"
        "centre: (outer, inner), of dtype or float32, what terms are relative to, for 'sum_of_exponentials',\n"
        "'sum_of_squared_deviations' and 'count_of_equal'; else None.\n"
        "partial: (outer, reduce_splits(reduced, inner), inner) float32 workspace, None for one split.\n"
        "exponent: of 'sum_of_powers'.\n"
        "finish, finish_by: 'none', 'divide' by finish_by, 'root' of that, 'log' plus the centre, "
        "'power'.\n" GPUCNN_STREAM_AND_ERRORS);
  m.def("reduce_splits", &reduction_splits, py::arg("reduced"), py::arg("inner"),
        "The parts that the middle axis of (outer, reduced, inner) is cut into, at least 1.");
  m.def(
      "reduce_functions",
      [] {
        std::vector<std::string> names;
        for (const ReduceFunction& function : functions()) names.emplace_back(function.name);
        return names;
      },
      "The names of all reductions of reduce().");
  m.def(
      "var_grad", &var_grad_binding, py::arg("dtype"), py::arg("dy"), py::arg("x"), py::arg("y"), py::arg("mean"),
      py::arg("dx"), py::arg("divisor"), py::arg("root"), py::arg("stream"),
      "dx = 2 dy (x - mean) / divisor, or for a root y of the variance dy (x - mean) / (divisor y), 0 where y is 0.\n\n"
      "x, dx: (outer, reduced, inner); dy, y: (outer, inner), all of dtype; mean: (outer, inner) float32. Errors as\n"
      "for reduce().");
  m.def("extremum_grad", &extremum_grad_binding, py::arg("dtype"), py::arg("dy"), py::arg("x"), py::arg("y"),
        py::arg("counts"), py::arg("dx"), py::arg("stream"),
        "dx = dy / counts where x is the extremum y, else 0; counts: (outer, inner) float32. Shapes and errors as for\n"
        "var_grad().");
  m.def("prod_grad", &prod_grad_binding, py::arg("dtype"), py::arg("dy"), py::arg("x"), py::arg("dx"),
        py::arg("stream"),
        "dx = dy times the product of all other x along the middle axis; shapes and errors as for var_grad().");
}

}  // namespace gpucnn

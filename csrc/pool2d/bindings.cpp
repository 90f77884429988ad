// Python's way to the launchers of pool2d.h: checks that a call is safe, and launches without the GIL.
#include "common/array_view.h"
#include "common/binding.h"
#include "common/dispatch.h"
#include "common/problem_argument.h"
#include "common/run.h"
#include "pool2d/pool2d.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace gpucnn {
namespace {

constexpr const char* kMax = "max_pool2d";
constexpr const char* kAverage = "avg_pool2d";
constexpr const char* kLp = "lp_pool2d";

Pool2dProblem problem_of(const py::object& problem, const char* op) {
  const Pool2dProblem p = pool2d_problem(problem, op);
  if (p.padding.vertical > p.R / 2 || p.padding.horizontal > p.S / 2) {
    throw py::value_error(std::string(op) + ": padding must be at most half of the window");
  }
  return p;
}

// Of averages, whose windows have no gaps.
Pool2dProblem dense_problem_of(const py::object& problem, const char* op) {
  const Pool2dProblem p = problem_of(problem, op);
  if (p.dilation.vertical != 1 || p.dilation.horizontal != 1) {
    throw py::value_error(std::string(op) + ": dilation must be 1");
  }
  return p;
}

// Calls `body` with a value of the type that the problem's winners have.
template <typename Body>
void with_winner_type(const Pool2dProblem& p, Body&& body) {
  if (p.R * p.S <= kMostTapsOfByte) {
    body(std::uint8_t{});
  } else {
    body(std::int32_t{});
  }
}

// ------------------------------------------------------------------------------------------------------------ maximum

void maximum_fprop(const char* op, MaxOf of, const py::object& problem, const std::string& dtype, const py::object& x,
                   const py::object& y, const py::object& winners, std::uintptr_t stream) {
  const Pool2dProblem p = problem_of(problem, op);
  with_float_type(op, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    with_winner_type(p, [&](auto number) {
      using Winner = decltype(number);
      const auto in = images_view<const T>(x, op, "x", p);
      const auto out = outputs_view<T>(y, op, "y", p);
      std::optional<ArrayView<Winner>> who;
      if (!winners.is_none()) who = outputs_view<Winner>(winners, op, "winners", p);
      require_apart(op, out, in);
      require_apart(op, who, in, out);
      run(op, describe(in, out, who), [&] {
        return max_pool2d_direct_fprop<T, Winner>(p, of, in.data, out.data, pointer(who), stream_of(stream));
      });
    });
  });
}

void max_fprop(const py::object& problem, const std::string& dtype, const py::object& x, const py::object& y,
               const py::object& winners, std::uintptr_t stream) {
  maximum_fprop(kMax, MaxOf::values, problem, dtype, x, y, winners, stream);
}

void magnitude_fprop(const py::object& problem, const std::string& dtype, bool largest, const py::object& x,
                     const py::object& y, const py::object& winners, std::uintptr_t stream) {
  const MaxOf of = largest ? MaxOf::magnitudes : MaxOf::negative_magnitudes;
  maximum_fprop(kLp, of, problem, dtype, x, y, winners, stream);
}

void maximum_dgrad(const char* op, const py::object& problem, const std::string& dtype, const py::object& dy,
                   const py::object& winners, const py::object& x, const py::object& dx, std::uintptr_t stream) {
  const Pool2dProblem p = problem_of(problem, op);
  with_float_type(op, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    with_winner_type(p, [&](auto number) {
      using Winner = decltype(number);
      const auto gradient = outputs_view<const T>(dy, op, "dy", p);
      const auto who = outputs_view<const Winner>(winners, op, "winners", p);
      std::optional<ArrayView<const T>> cells;
      if (!x.is_none()) cells = images_view<const T>(x, op, "x", p);
      const auto out = images_view<T>(dx, op, "dx", p);
      require_apart(op, out, gradient, who, cells);
      run(op, describe(gradient, who, cells, out), [&] {
        return max_pool2d_direct_dgrad<T, Winner>(p, gradient.data, who.data, pointer(cells), out.data,
                                                  stream_of(stream));
      });
    });
  });
}

void max_dgrad(const py::object& problem, const std::string& dtype, const py::object& dy, const py::object& winners,
               const py::object& dx, std::uintptr_t stream) {
  maximum_dgrad(kMax, problem, dtype, dy, winners, py::none(), dx, stream);
}

void magnitude_dgrad(const py::object& problem, const std::string& dtype, const py::object& dy, const py::object& x,
                     const py::object& winners, const py::object& dx, std::uintptr_t stream) {
  if (x.is_none()) throw py::type_error(std::string(kLp) + ": argument 'x' must be an array, and is None");
  maximum_dgrad(kLp, problem, dtype, dy, winners, x, dx, stream);
}

void max_indices(const py::object& problem, const py::object& winners, const py::object& indices,
                 std::uintptr_t stream) {
  const Pool2dProblem p = problem_of(problem, kMax);
  with_winner_type(p, [&](auto number) {
    using Winner = decltype(number);
    const auto who = outputs_view<const Winner>(winners, kMax, "winners", p);
    const auto out = outputs_view<std::int64_t>(indices, kMax, "indices", p);
    require_apart(kMax, out, who);
    run(kMax, describe(who, out),
        [&] { return max_pool2d_direct_indices<Winner>(p, who.data, out.data, stream_of(stream)); });
  });
}

// ------------------------------------------------------------------------------------------------------------ average

AverageDivisor divisor_of(bool count_include_pad, std::optional<double> divisor_override) {
  if (divisor_override && static_cast<float>(*divisor_override) == 0.0f) {
    throw py::value_error(std::string(kAverage) + ": divisor_override must not be 0");
  }
  return {count_include_pad, divisor_override ? static_cast<float>(*divisor_override) : 0.0f};
}

void average_fprop(const py::object& problem, const std::string& dtype, bool count_include_pad,
                   std::optional<double> divisor_override, const py::object& x, const py::object& y,
                   std::uintptr_t stream) {
  const Pool2dProblem p = dense_problem_of(problem, kAverage);
  const AverageDivisor divisor = divisor_of(count_include_pad, divisor_override);
  with_float_type(kAverage, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = images_view<const T>(x, kAverage, "x", p);
    const auto out = outputs_view<T>(y, kAverage, "y", p);
    require_apart(kAverage, out, in);
    run(kAverage, describe(in, out),
        [&] { return avg_pool2d_direct_fprop<T>(p, divisor, in.data, out.data, stream_of(stream)); });
  });
}

void average_dgrad(const py::object& problem, const std::string& dtype, bool count_include_pad,
                   std::optional<double> divisor_override, const py::object& dy, const py::object& dx,
                   std::uintptr_t stream) {
  const Pool2dProblem p = dense_problem_of(problem, kAverage);
  const AverageDivisor divisor = divisor_of(count_include_pad, divisor_override);
  with_float_type(kAverage, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto gradient = outputs_view<const T>(dy, kAverage, "dy", p);
    const auto out = images_view<T>(dx, kAverage, "dx", p);
    require_apart(kAverage, out, gradient);
    run(kAverage, describe(gradient, out),
        [&] { return avg_pool2d_direct_dgrad<T>(p, divisor, gradient.data, out.data, stream_of(stream)); });
  });
}

std::int64_t global_parts(const py::object& problem) {
  const Pool2dProblem p = dense_problem_of(problem, kAverage);
  return global_average_parts(p.H * p.W);
}

void global_fprop(const py::object& problem, const std::string& dtype, std::optional<double> divisor_override,
                  const py::object& x, const py::object& parts, const py::object& y, std::uintptr_t stream) {
  const Pool2dProblem p = dense_problem_of(problem, kAverage);
  const bool whole = p.P == 1 && p.Q == 1 && p.R == p.H && p.S == p.W;
  if (!whole || p.padding.vertical != 0 || p.padding.horizontal != 0) {
    throw py::value_error(std::string(kAverage) + ": the global average needs one window that is the image");
  }
  const AverageDivisor divisor = divisor_of(true, divisor_override);
  const float divide_by = divisor.every != 0.0f ? divisor.every : static_cast<float>(p.H * p.W);
  with_float_type(kAverage, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = images_view<const T>(x, kAverage, "x", p);
    const auto out = outputs_view<T>(y, kAverage, "y", p);
    require_apart(kAverage, out, in);
    std::optional<ArrayView<float>> sums;
    const std::int64_t number = global_average_parts(p.H * p.W);
    if (number > 1) {
      sums = shaped_view<float>(parts, kAverage, "parts", {p.N, number, p.C}, "(N,parts,C) of the problem");
      require_apart(kAverage, *sums, in, out);
    }
    run(kAverage, describe(in, sums, out), [&] {
      return avg_pool2d_global_fprop<T>(p.N, p.H * p.W, p.C, divide_by, in.data, pointer(sums), out.data,
                                        stream_of(stream));
    });
  });
}

// ------------------------------------------------------------------------------------------------------ power average

Pool2dProblem lp_problem_of(const py::object& problem, double norm) {
  if (!std::isfinite(norm) || norm == 0) throw py::value_error(std::string(kLp) + ": norm must be finite and not 0");
  return dense_problem_of(problem, kLp);
}

void lp_fprop(const py::object& problem, const std::string& dtype, double norm, const py::object& x,
              const py::object& y, const py::object& sums, std::uintptr_t stream) {
  const Pool2dProblem p = lp_problem_of(problem, norm);
  with_float_type(kLp, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = images_view<const T>(x, kLp, "x", p);
    const auto out = outputs_view<T>(y, kLp, "y", p);
    const auto totals = outputs_view<float>(sums, kLp, "sums", p);
    require_apart(kLp, out, in, totals);
    require_apart(kLp, totals, in);
    run(kLp, describe(in, out, totals),
        [&] { return lp_pool2d_direct_fprop<T>(p, norm, in.data, out.data, totals.data, stream_of(stream)); });
  });
}

void lp_dgrad(const py::object& problem, const std::string& dtype, double norm, const py::object& dy,
              const py::object& x, const py::object& sums, const py::object& dx, std::uintptr_t stream) {
  const Pool2dProblem p = lp_problem_of(problem, norm);
  with_float_type(kLp, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto gradient = outputs_view<const T>(dy, kLp, "dy", p);
    const auto in = images_view<const T>(x, kLp, "x", p);
    const auto totals = outputs_view<const float>(sums, kLp, "sums", p);
    const auto out = images_view<T>(dx, kLp, "dx", p);
    require_apart(kLp, out, gradient, in, totals);
    run(kLp, describe(gradient, in, totals, out), [&] {
      return lp_pool2d_direct_dgrad<T>(p, norm, gradient.data, in.data, totals.data, out.data, stream_of(stream));
    });
  });
}

constexpr const char* kCommon =
    "\n\nproblem: a gpucnn.problem.Pool2dProblem. dtype: 'float32', 'float16' or 'bfloat16', what x, dx (N,H,W,C) and "
    "y, dy (N,P,Q,C) are stored in. winners (N,P,Q,C): uint8 where a window has 256 taps or fewer, else int32; indices "
    "(N,P,Q,C) int64; sums (N,P,Q,C) float32. All C-contiguous, with the array interface of the module's "
    "machine.\n" GPUCNN_STREAM_AND_ERRORS;

}  // namespace

void register_pool2d(py::module_& m) {
  const auto define = [&m](const char* name, auto binding, const std::string& text, auto... arguments) {
    m.def(name, binding, arguments..., (text + kCommon).c_str());
  };
  const py::arg problem("problem"), dtype("dtype"), x("x"), y("y"), winners("winners"), dy("dy"), dx("dx"),
      indices("indices"), stream("stream"), largest("largest"), include("count_include_pad"), every("divisor_override"),
      parts("parts"), norm("norm"), sums("sums");
  define("max_pool2d_direct_fprop", &max_fprop,
         "Writes y, the largest of each window, and which tap that was into winners unless it is None.", problem, dtype,
         x, y, winners, stream);
  define("max_pool2d_direct_dgrad", &max_dgrad, "Writes dx, the gradient with respect to x.", problem, dtype, dy,
         winners, dx, stream);
  define("max_pool2d_direct_indices", &max_indices,
         "Writes the positions h * W + w of the winners, -1 for a window without a cell in the image.", problem,
         winners, indices, stream);
  define(
      "avg_pool2d_direct_fprop", &average_fprop,
      "Writes y, the sum of each window over its number of cells, in the padding too with count_include_pad, or over "
      "divisor_override unless it is None.",
      problem, dtype, include, every, x, y, stream);
  define("avg_pool2d_direct_dgrad", &average_dgrad, "Writes dx, the gradient with respect to x.", problem, dtype,
         include, every, dy, dx, stream);
  define("avg_pool2d_global_parts", &global_parts, "The parts that avg_pool2d_global_fprop cuts an image into.",
         problem);
  define(
      "avg_pool2d_global_fprop", &global_fprop,
      "Writes y, the sum of each image over its number of cells or divisor_override: of one window that is the image. "
      "parts (N,parts,C) float32 is scratch memory, unused and None where avg_pool2d_global_parts() is 1.",
      problem, dtype, every, x, parts, y, stream);
  define("lp_pool2d_direct_fprop", &lp_fprop,
         "Writes sums, each window's sum of x**norm times R*S over its number of cells, and y = sums**(1/norm).",
         problem, dtype, norm, x, y, sums, stream);
  define("lp_pool2d_direct_dgrad", &lp_dgrad, "Writes dx, the gradient with respect to x.", problem, dtype, norm, dy, x,
         sums, dx, stream);
  define("lp_pool2d_magnitude_fprop", &magnitude_fprop,
         "Writes y, the largest |x| of each window or, not `largest`, the smallest, and which tap that was.", problem,
         dtype, largest, x, y, winners, stream);
  define("lp_pool2d_magnitude_dgrad", &magnitude_dgrad, "Writes dx, the gradient with respect to x.", problem, dtype,
         dy, x, winners, dx, stream);
}

}  // namespace gpucnn

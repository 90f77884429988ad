// Python's way to the launchers of upsample.h: checks that a call is safe, and launches without the GIL.
#include "common/array_view.h"
#include "common/binding.h"
#include "common/dispatch.h"
#include "common/problem_argument.h"
#include "common/run.h"
#include "upsample/upsample.h"

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

namespace gpucnn {
namespace {

constexpr const char* kInterpolate = "interpolate";
constexpr const char* kNails = "bed_of_nails";

template <typename T>
ArrayView<T> array_of(const py::object& array, const char* op, const char* argument, const Shape& shape) {
  return shaped_view<T>(array, op, argument, shape, "what the problem says");
}

// ------------------------------------------------------------------------------------------------------ interpolation

Interpolation way_of(const std::string& mode, bool corners, bool antialias) {
  if (mode == "nearest" || mode == "nearest-exact") {
    return mode == "nearest" ? Interpolation::nearest : Interpolation::nearest_exact;
  }
  if (mode != "bilinear") {
    throw py::value_error(std::string(kInterpolate) + ": mode must be nearest, nearest-exact or bilinear, got " + mode);
  }
  if (antialias) return corners ? Interpolation::tents_corners : Interpolation::tents;
  return corners ? Interpolation::bilinear_corners : Interpolation::bilinear;
}

Scale scale_of(const py::object& scale) {
  if (scale.is_none()) return {0, 0};
  if (!py::isinstance<py::tuple>(scale) || py::len(scale) != 2) {
    throw py::type_error(std::string(kInterpolate) + ": the problem's scale must be (vertical, horizontal) or None");
  }
  const auto both = scale.cast<py::tuple>();
  const Scale found{both[0].cast<double>(), both[1].cast<double>()};
  if (found.vertical == 0 || found.horizontal == 0) {
    throw py::value_error(std::string(kInterpolate) + ": scale must be finite and above 0");
  }
  return found;
}

InterpolateProblem interpolation_of(const py::object& problem) {
  const auto of = [&](const char* field) { return detail::number(problem, kInterpolate, field); };
  const Interpolation way = way_of(problem.attr("mode").cast<std::string>(), problem.attr("align_corners").cast<bool>(),
                                   problem.attr("antialias").cast<bool>());
  const InterpolateProblem p{of("N"), of("H"), of("W"), of("C"),
                             of("P"), of("Q"), way,     scale_of(problem.attr("scale"))};
  check(kInterpolate, p);
  return p;
}

void interpolate_fprop(const py::object& problem, const std::string& dtype, const py::object& x, const py::object& y,
                       std::uintptr_t stream) {
  const InterpolateProblem p = interpolation_of(problem);
  const bool moves = p.how == Interpolation::nearest || p.how == Interpolation::nearest_exact;
  with_float_type(kInterpolate, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = array_of<const T>(x, kInterpolate, "x", {p.N, p.H, p.W, p.C});
    const auto out = array_of<T>(y, kInterpolate, "y", {p.N, p.P, p.Q, p.C});
    require_disjoint(kInterpolate, out, in);
    run(kInterpolate, describe(in, out), [&] {
      if (moves) return interpolate_nearest_fprop(p, sizeof(T), in.data, out.data, stream_of(stream));
      return interpolate_weighted_fprop<T>(p, in.data, out.data, stream_of(stream));
    });
  });
}

void interpolate_dgrad_binding(const py::object& problem, const std::string& dtype, const py::object& dy,
                               const py::object& dx, std::uintptr_t stream) {
  const InterpolateProblem p = interpolation_of(problem);
  with_float_type(kInterpolate, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto gradient = array_of<const T>(dy, kInterpolate, "dy", {p.N, p.P, p.Q, p.C});
    const auto out = array_of<T>(dx, kInterpolate, "dx", {p.N, p.H, p.W, p.C});
    require_disjoint(kInterpolate, out, gradient);
    run(kInterpolate, describe(gradient, out),
        [&] { return interpolate_dgrad<T>(p, gradient.data, out.data, stream_of(stream)); });
  });
}

// ------------------------------------------------------------------------------------------------------- bed of nails

NailsProblem nails_of(const py::object& problem) {
  const auto of = [&](const char* field) { return detail::number(problem, kNails, field); };
  const Pair factor = detail::pair(problem, kNails, "factor");
  const NailsProblem p{of("N"), of("H"), of("W"), of("C"), factor.vertical, factor.horizontal};
  check(kNails, p);
  return p;
}

void nails(bool to_nails, const py::object& problem, const std::string& dtype, const py::object& from,
           const py::object& to, std::uintptr_t stream) {
  const NailsProblem p = nails_of(problem);
  const Shape small{p.N, p.H, p.W, p.C}, large{p.N, p.H * p.down, p.W * p.right, p.C};
  with_float_type(kNails, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = array_of<const T>(from, kNails, to_nails ? "x" : "dy", to_nails ? small : large);
    const auto out = array_of<T>(to, kNails, to_nails ? "y" : "dx", to_nails ? large : small);
    require_disjoint(kNails, out, in);
    run(kNails, describe(in, out), [&] {
      return (to_nails ? bed_of_nails_fprop : bed_of_nails_dgrad)(p, sizeof(T), in.data, out.data, stream_of(stream));
    });
  });
}

void nails_fprop(const py::object& problem, const std::string& dtype, const py::object& x, const py::object& y,
                 std::uintptr_t stream) {
  nails(true, problem, dtype, x, y, stream);
}

void nails_dgrad(const py::object& problem, const std::string& dtype, const py::object& dy, const py::object& dx,
                 std::uintptr_t stream) {
  nails(false, problem, dtype, dy, dx, stream);
}

// ------------------------------------------------------------------------------------------------------ pixel shuffle

template <typename T>
void shuffle_elements(const char* op, bool to_y, const ShuffleProblem& p, const py::object& from, const py::object& to,
                      std::uintptr_t stream) {
  const std::int64_t f = p.factor;
  const Shape x_shape{p.N, p.H, p.W, p.C * f * f}, y_shape{p.N, f * p.H, f * p.W, p.C};
  const auto in = array_of<const T>(from, op, to_y ? "x" : "y", to_y ? x_shape : y_shape);
  const auto out = array_of<T>(to, op, to_y ? "y" : "x", to_y ? y_shape : x_shape);
  require_disjoint(op, out, in);
  run(op, describe(in, out),
      [&] { return (to_y ? pixel_shuffle : pixel_unshuffle)(p, sizeof(T), in.data, out.data, stream_of(stream)); });
}

void shuffle(const char* op, bool to_y, const py::object& problem, int bytes, const py::object& from,
             const py::object& to, std::uintptr_t stream) {
  const auto of = [&](const char* field) { return detail::number(problem, op, field); };
  const ShuffleProblem p{of("N"), of("H"), of("W"), of("C"), of("factor")};
  check(op, p);
  if (bytes == 1) return shuffle_elements<std::uint8_t>(op, to_y, p, from, to, stream);
  if (bytes == 2) return shuffle_elements<simt::half>(op, to_y, p, from, to, stream);
  if (bytes == 4) return shuffle_elements<std::int32_t>(op, to_y, p, from, to, stream);
  if (bytes == 8) return shuffle_elements<std::int64_t>(op, to_y, p, from, to, stream);
  throw py::value_error(std::string(op) + ": elements must have 1, 2, 4 or 8 bytes, got " + std::to_string(bytes));
}

void shuffle_binding(const py::object& problem, int bytes, const py::object& x, const py::object& y,
                     std::uintptr_t stream) {
  shuffle("pixel_shuffle", true, problem, bytes, x, y, stream);
}

void unshuffle_binding(const py::object& problem, int bytes, const py::object& y, const py::object& x,
                       std::uintptr_t stream) {
  shuffle("pixel_unshuffle", false, problem, bytes, y, x, stream);
}

constexpr const char* kStream =
    "All C-contiguous, with the array interface of the module's machine.\n" GPUCNN_STREAM_AND_ERRORS;

}  // namespace

void register_upsample(py::module_& m) {
  const auto define = [&m](const char* name, auto binding, const std::string& text, auto... arguments) {
    m.def(name, binding, arguments..., (text + kStream).c_str());
  };
  const py::arg problem("problem"), dtype("dtype"), bytes("bytes"), x("x"), y("y"), dy("dy"), dx("dx"),
      stream("stream");
  const std::string images =
      "\n\nproblem: a gpucnn.reference.upsample problem. dtype: 'float32', 'float16' or 'bfloat16', what x, dx "
      "(N,H,W,C) "
      "and y, dy (N,P,Q,C) are stored in. ";
  const std::string shuffled =
      "\n\nproblem: a gpucnn.reference.upsample.ShuffleProblem. bytes: 1 (arrays are uint8), 2 (float16), 4 (int32) or "
      "8 "
      "(int64), whatever the elements stand for. x (N,H,W,C*f*f), y (N,f*H,f*W,C). ";
  define("interpolate_fprop", &interpolate_fprop, "Writes y, the images resized." + images, problem, dtype, x, y,
         stream);
  define("interpolate_dgrad", &interpolate_dgrad_binding, "Writes dx, the gradient with respect to x." + images,
         problem, dtype, dy, dx, stream);
  define("bed_of_nails_fprop", &nails_fprop, "Writes y, x at the top left of each cell and 0 elsewhere." + images,
         problem, dtype, x, y, stream);
  define("bed_of_nails_dgrad", &nails_dgrad, "Writes dx, dy at the top left of each cell." + images, problem, dtype, dy,
         dx, stream);
  define("pixel_shuffle", &shuffle_binding, "Writes y[f*h+i, f*w+j, c] = x[h, w, (c*f+i)*f+j]." + shuffled, problem,
         bytes, x, y, stream);
  define("pixel_unshuffle", &unshuffle_binding, "Writes x[h, w, (c*f+i)*f+j] = y[f*h+i, f*w+j, c]." + shuffled, problem,
         bytes, y, x, stream);
}

}  // namespace gpucnn

// Python's way to the launchers of pool2d.h: checks that a call is safe, and launches without the GIL.
#include "common/array_view.h"
#include "common/problem_argument.h"
#include "common/run.h"
#include "pool2d/pool2d.h"

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

namespace gpucnn {
namespace {

constexpr const char* kOp = "max_pool2d";

using Shape = std::vector<std::int64_t>;

Pool2dProblem problem_of(const py::object& problem) {
  const Pool2dProblem p = pool2d_problem(problem, kOp);
  if (p.padding.vertical > p.R / 2 || p.padding.horizontal > p.S / 2) {
    throw py::value_error(std::string(kOp) + ": padding must be at most half of the window");
  }
  return p;
}

template <typename T>
ArrayView<T> images(const py::object& array, const char* argument, const Pool2dProblem& p) {
  const auto found = view<T>(array, kOp, argument);
  require_shape(kOp, found, Shape{p.N, p.H, p.W, p.C}, "(N,H,W,C) of the problem");
  return found;
}

template <typename T>
ArrayView<T> outputs(const py::object& array, const char* argument, const Pool2dProblem& p) {
  const auto found = view<T>(array, kOp, argument);
  require_shape(kOp, found, Shape{p.N, p.P, p.Q, p.C}, "(N,P,Q,C) of the problem");
  return found;
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

void fprop_binding(const py::object& problem, const py::object& x, const py::object& y, const py::object& winners,
                   std::uintptr_t stream) {
  const Pool2dProblem p = problem_of(problem);
  with_winner_type(p, [&](auto type) {
    using Winner = decltype(type);
    const auto in = images<const float>(x, "x", p);
    const auto out = outputs<float>(y, "y", p);
    std::optional<ArrayView<Winner>> who;
    if (!winners.is_none()) who = outputs<Winner>(winners, "winners", p);
    require_disjoint(kOp, out, in);
    if (who) require_disjoint(kOp, *who, in);
    if (who) require_disjoint(kOp, *who, out);
    run(kOp, describe(in, out, who), [&] {
      return max_pool2d_direct_fprop<Winner>(p, in.data, out.data, who ? who->data : nullptr,
                                             reinterpret_cast<simt::Stream>(stream));
    });
  });
}

void dgrad_binding(const py::object& problem, const py::object& dy, const py::object& winners, const py::object& dx,
                   std::uintptr_t stream) {
  const Pool2dProblem p = problem_of(problem);
  with_winner_type(p, [&](auto type) {
    using Winner = decltype(type);
    const auto gradient = outputs<const float>(dy, "dy", p);
    const auto who = outputs<const Winner>(winners, "winners", p);
    const auto out = images<float>(dx, "dx", p);
    require_disjoint(kOp, out, gradient);
    require_disjoint(kOp, out, who);
    run(kOp, describe(gradient, who, out), [&] {
      return max_pool2d_direct_dgrad<Winner>(p, gradient.data, who.data, out.data,
                                             reinterpret_cast<simt::Stream>(stream));
    });
  });
}

void indices_binding(const py::object& problem, const py::object& winners, const py::object& indices,
                     std::uintptr_t stream) {
  const Pool2dProblem p = problem_of(problem);
  with_winner_type(p, [&](auto type) {
    using Winner = decltype(type);
    const auto who = outputs<const Winner>(winners, "winners", p);
    const auto out = outputs<std::int64_t>(indices, "indices", p);
    require_disjoint(kOp, out, who);
    run(kOp, describe(who, out), [&] {
      return max_pool2d_direct_indices<Winner>(p, who.data, out.data, reinterpret_cast<simt::Stream>(stream));
    });
  });
}

constexpr const char* kCommon =
    "\n\nproblem: a gpucnn.problem.Pool2dProblem. x, dx (N,H,W,C) and y, dy (N,P,Q,C) float32; winners (N,P,Q,C) uint8 "
    "where a window has 256 taps or fewer, else int32; indices (N,P,Q,C) int64: C-contiguous, with the array interface "
    "of the module's machine.\n"
    "stream: the handle of a CUDA stream; 0 is the default stream, and all that there is on the CPU.\n"
    "Raises TypeError and ValueError before anything is written; CudaError or SimtError where a launch or a kernel "
    "fails.";

}  // namespace

void register_pool2d(py::module_& m) {
  const auto define = [&m](const char* name, auto binding, const std::string& text, auto... arguments) {
    m.def(name, binding, arguments..., (text + kCommon).c_str());
  };
  const py::arg problem("problem"), x("x"), y("y"), winners("winners"), dy("dy"), dx("dx"), indices("indices"),
      stream("stream");
  define("max_pool2d_direct_fprop", &fprop_binding,
         "Writes y, the largest of each window, and which tap that was into winners unless it is None.", problem, x, y,
         winners, stream);
  define("max_pool2d_direct_dgrad", &dgrad_binding, "Writes dx, the gradient with respect to x.", problem, dy, winners,
         dx, stream);
  define("max_pool2d_direct_indices", &indices_binding,
         "Writes the positions h * W + w of the winners, -1 for a window without a cell in the image.", problem,
         winners, indices, stream);
}

}  // namespace gpucnn

// Python's way to the launchers of unfold.h: checks that a call is safe, and launches without the GIL.
#include "common/array_view.h"
#include "common/binding.h"
#include "common/dispatch.h"
#include "common/problem_argument.h"
#include "common/run.h"
#include "unfold/unfold.h"

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

namespace gpucnn {
namespace {

UnfoldProblem problem_of(const py::object& problem, const char* op) {
  const UnfoldProblem p{detail::windows(problem, op)};
  check(op, p);
  return p;
}

template <typename T>
ArrayView<T> image_of(const py::object& array, const char* op, const UnfoldProblem& p) {
  return images_view<T>(array, op, "x", p);
}

template <typename T>
ArrayView<T> columns_of(const py::object& array, const char* op, const UnfoldProblem& p) {
  return shaped_view<T>(array, op, "columns", {p.N, p.C * p.R * p.S, p.P * p.Q}, "(N,C*R*S,P*Q) of the problem");
}

void unfold_binding(const py::object& problem, const std::string& dtype, const py::object& x, const py::object& columns,
                    std::uintptr_t stream) {
  const char* const op = "unfold";
  const UnfoldProblem p = problem_of(problem, op);
  with_float_type(op, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = image_of<const T>(x, op, p);
    const auto out = columns_of<T>(columns, op, p);
    require_disjoint(op, out, in);
    run(op, describe(in, out), [&] { return unfold(p, sizeof(T), in.data, out.data, stream_of(stream)); });
  });
}

void fold_binding(const py::object& problem, const std::string& dtype, const py::object& columns, const py::object& x,
                  std::uintptr_t stream) {
  const char* const op = "fold";
  const UnfoldProblem p = problem_of(problem, op);
  with_float_type(op, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = columns_of<const T>(columns, op, p);
    const auto out = image_of<T>(x, op, p);
    require_disjoint(op, out, in);
    run(op, describe(in, out), [&] { return fold<T>(p, in.data, out.data, stream_of(stream)); });
  });
}

constexpr const char* kCommon =
    "\n\nproblem: a gpucnn.problem.Pool2dProblem. dtype: 'float32', 'float16' or 'bfloat16', what x (N,H,W,C) and "
    "columns (N,C*R*S,P*Q) are stored in, both C-contiguous, with the array interface of the module's "
    "machine.\n" GPUCNN_STREAM_AND_ERRORS;

}  // namespace

void register_unfold(py::module_& m) {
  const py::arg problem("problem"), dtype("dtype"), x("x"), columns("columns"), stream("stream");
  m.def("unfold", &unfold_binding, problem, dtype, x, columns, stream,
        (std::string("Writes columns, what each window sees, with zeros outside the image.") + kCommon).c_str());
  m.def("fold", &fold_binding, problem, dtype, columns, x, stream,
        (std::string("Writes x, for each element the sum of what the windows that see it have for it.") + kCommon)
            .c_str());
}

}  // namespace gpucnn

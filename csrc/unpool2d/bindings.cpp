// Python's way to the launchers of unpool2d.h: checks that a call is safe, and launches without the GIL.
#include "common/array_view.h"
#include "common/binding.h"
#include "common/dispatch.h"
#include "common/problem_argument.h"
#include "common/run.h"
#include "unpool2d/unpool2d.h"

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

namespace gpucnn {
namespace {

constexpr const char* kOp = "max_unpool2d";

Unpool2dProblem problem_of(const py::object& problem) {
  const auto of = [&](const char* field) { return detail::number(problem, kOp, field); };
  const Unpool2dProblem p{of("N"), of("P"), of("Q"), of("C"), of("H"), of("W")};
  check(kOp, p);
  return p;
}

// The elements as what they are moved as.
template <typename T>
using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint16_t>;

template <typename T>
const Bits<T>* bits(const T* data) {
  return reinterpret_cast<const Bits<T>*>(data);
}
template <typename T>
Bits<T>* bits(T* data) {
  return reinterpret_cast<Bits<T>*>(data);
}

void fprop(const py::object& problem, const std::string& dtype, const py::object& x, const py::object& indices,
           const py::object& numbers, const py::object& y, std::uintptr_t stream, const py::object& flag) {
  const Unpool2dProblem p = problem_of(problem);
  with_float_type(kOp, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = outputs_view<const T>(x, kOp, "x", p);
    const auto places = outputs_view<const std::int64_t>(indices, kOp, "indices", p);
    const auto out = images_view<T>(y, kOp, "y", p);
    require_apart(kOp, out, in, places);
    const auto note = optional_shaped_view<std::int64_t>(flag, kOp, "flag", {2}, "a code and a count");
    const auto launch = [&](const Arguments& arguments, std::int32_t* scratch) {
      run(kOp, arguments, [&] {
        return max_unpool2d_fprop<Bits<T>>(p, bits(in.data), places.data, scratch, bits(out.data), pointer(note),
                                           stream_of(stream));
      });
    };
    if (numbers.is_none() && sizeof(T) == 4) {
      launch(describe(in, places, out, note), reinterpret_cast<std::int32_t*>(out.data));
      return;
    }
    const auto scratch = images_view<std::int32_t>(numbers, kOp, "numbers", p);
    require_apart(kOp, scratch, out, in, places);
    launch(describe(in, places, scratch, out, note), scratch.data);
  });
}

void dgrad(const py::object& problem, const std::string& dtype, const py::object& dy, const py::object& indices,
           const py::object& dx, std::uintptr_t stream) {
  const Unpool2dProblem p = problem_of(problem);
  with_float_type(kOp, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto gradient = images_view<const T>(dy, kOp, "dy", p);
    const auto places = outputs_view<const std::int64_t>(indices, kOp, "indices", p);
    const auto out = outputs_view<T>(dx, kOp, "dx", p);
    require_apart(kOp, out, gradient, places);
    run(kOp, describe(gradient, places, out), [&] {
      return max_unpool2d_dgrad<Bits<T>>(p, bits(gradient.data), places.data, bits(out.data), stream_of(stream));
    });
  });
}

constexpr const char* kCommon =
    "\n\nproblem: a gpucnn.reference.unpool2d.Unpool2dProblem. dtype: 'float32', 'float16' or 'bfloat16', what x, dx "
    "(N,P,Q,C) and y, dy (N,H,W,C) are stored in. indices (N,P,Q,C): int64. All C-contiguous, with the array interface "
    "of the module's machine.\n" GPUCNN_STREAM_AND_ERRORS;

}  // namespace

void register_unpool2d(py::module_& m) {
  const py::arg problem("problem"), dtype("dtype"), x("x"), y("y"), indices("indices"), numbers("numbers"), dy("dy"),
      dx("dx"), stream("stream");
  m.def("max_unpool2d_fprop", &fprop, problem, dtype, x, indices, numbers, y, stream, py::arg("flag") = py::none(),
        (std::string(
             "Writes y, x at its indices and 0 elsewhere; of several values at one place the last. numbers "
             "(N,H,W,C) int32 is scratch memory; None for float32, where y's own will do. An index outside the image "
             "is noted in flag, int64 (2,) of gpucnn.flags, if it is not None.") +
         kCommon)
            .c_str());
  m.def("max_unpool2d_dgrad", &dgrad, problem, dtype, dy, indices, dx, stream,
        (std::string("Writes dx, dy at the indices.") + kCommon).c_str());
}

}  // namespace gpucnn

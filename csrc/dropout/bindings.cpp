// Python's way to the launchers of dropout.h: checks that a call is safe, and launches without the GIL.
#include "common/array_view.h"
#include "common/binding.h"
#include "common/dispatch.h"
#include "common/run.h"
#include "dropout/dropout.h"

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

namespace gpucnn {
namespace {

// ((middle, inner), (outer step, middle step, inner step)) of Places.
using Sizes = std::pair<std::int64_t, std::int64_t>;
using Steps = std::tuple<std::int64_t, std::int64_t, std::int64_t>;

Places places_of(const char* op, std::int64_t count, const Sizes& sizes, const Steps& steps) {
  const auto [middle, inner] = sizes;
  const auto [outer_step, middle_step, inner_step] = steps;
  constexpr std::int64_t kLimit = std::int64_t{1} << 31, kMost = std::int64_t{1} << 38;
  const auto is_step = [](std::int64_t step) { return step >= 0 && step < kMost; };
  if (count >= kMost || middle < 1 || inner < 1 || middle >= kLimit || inner >= kLimit || !is_step(outer_step) ||
      !is_step(middle_step) || !is_step(inner_step)) {
    throw py::value_error(std::string(op) + ": elements and steps must be below 2^38, sizes in [1, 2^31)");
  }
  return {count, middle, inner, outer_step, middle_step, inner_step};
}

std::uint64_t threshold_of(const char* op, double p) {
  if (!(p >= 0.0 && p <= 1.0)) throw py::value_error(std::string(op) + ": p must be a probability in [0, 1]");
  return static_cast<std::uint64_t>(p * 4294967296.0);
}

void apply_binding(const std::string& dtype, const py::object& x, const py::object& y, const Sizes& sizes,
                   const Steps& steps, double p, float scale, std::uint64_t seed, std::uint64_t call,
                   std::uintptr_t stream) {
  constexpr const char* op = "dropout";
  with_float_type(op, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = view<const T>(x, op, "x");
    const auto out = view<T>(y, op, "y");
    require_same_shape(op, in, out);
    require_disjoint(op, out, in);
    const Places places = places_of(op, in.size, sizes, steps);
    const std::uint64_t threshold = threshold_of(op, p);
    run(op, describe(in, out),
        [&] { return dropout_apply<T>(places, {seed, call}, threshold, scale, in.data, out.data, stream_of(stream)); });
  });
}

void mask_binding(const py::object& keep, const Sizes& sizes, const Steps& steps, double p, std::uint64_t seed,
                  std::uint64_t call, std::uintptr_t stream) {
  constexpr const char* op = "dropout";
  const auto out = view<std::uint8_t>(keep, op, "keep");
  const Places places = places_of(op, out.size, sizes, steps);
  const std::uint64_t threshold = threshold_of(op, p);
  run(op, describe(out), [&] { return dropout_mask(places, {seed, call}, threshold, out.data, stream_of(stream)); });
}

void slopes_binding(const std::string& dtype, const py::object& x, const py::object& slopes, const Sizes& sizes,
                    const Steps& steps, double lower, double upper, std::uint64_t seed, std::uint64_t call,
                    std::uintptr_t stream) {
  constexpr const char* op = "rrelu";
  with_float_type(op, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = view<const T>(x, op, "x");
    const auto out = view<T>(slopes, op, "slopes");
    require_same_shape(op, in, out);
    require_disjoint(op, out, in);
    const Places places = places_of(op, in.size, sizes, steps);
    run(op, describe(in, out), [&] {
      return rrelu_slopes<T>(places, {seed, call}, (upper - lower) * 0x1p-32, lower, in.data, out.data,
                             stream_of(stream));
    });
  });
}

}  // namespace

void register_dropout(py::module_& m) {
  const std::string common =
      "\n\nElement ((a * middle) + b) * inner + c of memory draws number a * steps[0] + b * steps[1] + c * steps[2] of "
      "the call under the seed; sizes is (middle, inner). Arrays are C-contiguous, with the array interface of the "
      "module's machine; dtype is 'float32', 'float16' or 'bfloat16'.\n" GPUCNN_STREAM_AND_ERRORS;
  const py::arg dtype("dtype"), x("x"), y("y"), keep("keep"), slopes("slopes"), sizes("sizes"), steps("steps"), p("p"),
      scale("scale"), lower("lower"), upper("upper"), seed("seed"), call("call"), stream("stream");
  m.def("dropout_apply", &apply_binding, dtype, x, y, sizes, steps, p, scale, seed, call, stream,
        ("Writes y: 0 with probability p, else x * scale." + common).c_str());
  m.def("dropout_mask", &mask_binding, keep, sizes, steps, p, seed, call, stream,
        ("Writes keep (uint8): 0 with probability p, else 1." + common).c_str());
  m.def("rrelu_slopes", &slopes_binding, dtype, x, slopes, sizes, steps, lower, upper, seed, call, stream,
        ("Writes slopes: a number between lower and upper where x <= 0, else 1." + common).c_str());
}

}  // namespace gpucnn

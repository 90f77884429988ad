// Python's way to the launchers of norm.h for batch, instance and group norm: checks that a call is safe, and launches
// without the GIL.
#include "common/array_view.h"
#include "common/binding.h"
#include "common/dispatch.h"
#include "common/problem_argument.h"
#include "common/run.h"
#include "norm/norm.h"

#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace gpucnn {

namespace {

constexpr const char* kOp = "norm";

[[noreturn]] void refuse(const std::string& why) {
  throw py::value_error(std::string(kOp) + ": " + why);
}

float decimal(const py::object& problem, const char* field) {
  try {
    return static_cast<float>(problem.attr(field).cast<double>());
  } catch (const py::cast_error&) {
    throw py::type_error(std::string(kOp) + ": the problem's " + field + " must be a number or None");
  }
}

// Of a gpucnn.reference.norm_problem.NormProblem.
NormProblem problem_of(const py::object& problem) {
  const auto of = [&](const char* field) { return detail::number(problem, kOp, field); };
  NormProblem p{of("B"), of("M"), of("C"), of("groups"), decimal(problem, "eps"), !problem.attr("momentum").is_none(),
                0.0f,    false,   0.0f};
  if (p.own) p.momentum = decimal(problem, "momentum");
  p.cut = !problem.attr("limit").is_none();
  if (p.cut) p.limit = decimal(problem, "limit");
  constexpr std::int64_t kMost = std::int64_t{1} << 31, kMostElements = std::int64_t{1} << 38;
  if (p.B < 0 || p.M < 0 || p.C < 0 || p.B >= kMost || p.C >= kMost)
    refuse("B and C must be in [0, 2^31), M at least 0");
  if (p.groups < (p.C ? 1 : 0) || (p.C && p.C % p.groups != 0)) refuse("groups must divide C");
  if (!p.own && (p.B > 1 || p.groups != p.C)) refuse("running statistics are those of one set and of each channel");
  if (p.cut && !(p.limit > 0.0f)) refuse("limit must be positive");
  if (!p.empty()) {
    if (p.B > kMostElements / p.M || p.B * p.M > kMostElements / p.C) refuse("(B,M,C) has more than 2^38 elements");
    if (norm_blocks(p) >= kMost) refuse("(B,M,C) takes more blocks than a launch can have");
  }
  return p;
}

std::int64_t ceil_of(std::int64_t number, std::int64_t divisor) {
  return number / divisor + (number % divisor != 0);
}

constexpr const char* kImages = "(B,M,C) of the problem";
constexpr const char* kChannels = "(C,) of the problem";
constexpr const char* kSets = "(B,C) of the problem";

void fprop_binding(const py::object& problem, const std::string& dtype, const py::object& x, const py::object& weight,
                   const py::object& bias, const py::object& running_mean, const py::object& running_var,
                   const py::object& residual, const py::object& y, const py::object& mean, const py::object& inverse,
                   const py::object& partial, const py::object& coefficients, std::uintptr_t stream,
                   const py::object& taken, std::int64_t rows_taken) {
  const NormProblem p = problem_of(problem);
  if (!taken.is_none()) {
    if (rows_taken < 1) refuse("rows_taken must be at least 1");
    if (!p.own || p.B != 1 || p.groups != p.C) refuse("moments that are taken are a batch norm's");
  }
  with_float_type(kOp, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const Shape images{p.B, p.M, p.C}, channels{p.C}, sets{p.B, p.C};
    const auto in = shaped_view<const T>(x, kOp, "x", images, kImages);
    const auto factors = optional_shaped_view<const float>(weight, kOp, "weight", channels, kChannels);
    const auto offsets = optional_shaped_view<const float>(bias, kOp, "bias", channels, kChannels);
    const auto kept_mean = optional_shaped_view<float>(running_mean, kOp, "running_mean", channels, kChannels);
    const auto kept_var = optional_shaped_view<float>(running_var, kOp, "running_var", channels, kChannels);
    const auto added = optional_shaped_view<const T>(residual, kOp, "residual", images, kImages);
    const auto out = shaped_view<T>(y, kOp, "y", images, kImages);
    const auto means = shaped_view<double>(mean, kOp, "mean", sets, kSets),
               inverses = shaped_view<double>(inverse, kOp, "inverse", sets, kSets);
    const std::int64_t there = taken.is_none() ? 0 : ceil_of(p.M, rows_taken);
    const auto given = optional_shaped_view<const float>(taken, kOp, "taken", {2 * there + 1, p.C},
                                                         "(2*splits+1,C) of the problem and rows_taken");
    const std::int64_t splits = given ? norm_condensed_splits(there) : norm_splits(p, sizeof(T));
    const bool is_condensed = splits < there;
    const std::int64_t rows_of_split = given    ? ceil_of(there, std::max<std::int64_t>(splits, 1)) * rows_taken
                                       : splits ? ceil_of(p.M, splits)
                                                : 0;
    const auto parts = optional_shaped_view<float>(partial, kOp, "partial", {p.B, 2 * splits + 1, p.C},
                                                   "(B,2*splits+1,C) of the problem");
    const auto linear = shaped_view<float>(coefficients, kOp, "coefficients", {3, p.B, p.C}, "(3,B,C) of the problem");
    if (kept_mean.has_value() != kept_var.has_value()) refuse("running_mean and running_var go together");
    if (!p.own && !kept_mean) refuse("running_mean and running_var are needed where momentum is None");
    if (p.own && kept_mean && p.groups != p.C) refuse("running statistics are those of each channel");
    if (p.own && !parts && (!given || is_condensed)) refuse("partial is needed where momentum is a number");
    require_apart(kOp, out, in, factors, offsets, kept_mean, kept_var, added, means, inverses, parts, linear);
    require_apart(kOp, means, in, inverses, kept_mean, kept_var, parts, linear, added, factors, offsets);
    require_apart(kOp, inverses, in, kept_mean, kept_var, parts, linear, added, factors, offsets);
    require_apart(kOp, linear, in, kept_mean, kept_var, parts, added, factors, offsets);
    require_apart(kOp, parts, in, kept_mean, kept_var, added, factors, offsets);
    for (const auto& written : {parts, kept_mean, kept_var}) require_apart(kOp, written, given);
    require_apart(kOp, given, out, means, inverses, linear);
    require_apart(kOp, kept_mean, in, kept_var, added, factors, offsets);
    require_apart(kOp, kept_var, in, added, factors, offsets);
    const NormParameters of{pointer(factors), pointer(offsets), pointer(kept_mean), pointer(kept_var)};
    const auto queue = stream_of(stream);
    run(kOp, describe(in, factors, offsets, kept_mean, kept_var, added, given, out, means, inverses, parts, linear),
        [&] {
          simt::Status status = simt::kSuccess;
          if (is_condensed) {
            status = norm_condense(p, there, rows_taken, given->data, parts->data, queue);
          } else if (p.own && !given) {
            status = norm_moments<T>(p, in.data, parts->data, queue);
          }
          const float* const from = given && !is_condensed ? given->data : pointer(parts);
          if (status == simt::kSuccess) {
            status = norm_statistics(p, splits, rows_of_split, from, pointer(parts), of, means.data, inverses.data,
                                     linear.data, queue);
          }
          if (status != simt::kSuccess) return status;
          return norm_scale_shift<T>(p, in.data, pointer(added), linear.data, out.data, queue);
        });
  });
}

void bprop_binding(const py::object& problem, const std::string& dtype, const py::object& dy, const py::object& x,
                   const py::object& y, const py::object& weight, const py::object& mean, const py::object& inverse,
                   const py::object& dx, const py::object& dweight, const py::object& dbias, const py::object& passed,
                   const py::object& partial, const py::object& coefficients, std::uintptr_t stream) {
  const NormProblem p = problem_of(problem);
  with_float_type(kOp, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const Shape images{p.B, p.M, p.C}, channels{p.C}, sets{p.B, p.C};
    const auto gradient = shaped_view<const T>(dy, kOp, "dy", images, kImages);
    const auto in = optional_shaped_view<const T>(x, kOp, "x", images, kImages),
               out = optional_shaped_view<const T>(y, kOp, "y", images, kImages);
    const auto factors = optional_shaped_view<const float>(weight, kOp, "weight", channels, kChannels);
    const auto means = shaped_view<const double>(mean, kOp, "mean", sets, kSets);
    const auto inverses = shaped_view<const double>(inverse, kOp, "inverse", sets, kSets);
    const auto to = optional_shaped_view<T>(dx, kOp, "dx", images, kImages),
               through = optional_shaped_view<T>(passed, kOp, "passed", images, kImages);
    const auto to_weight = optional_shaped_view<float>(dweight, kOp, "dweight", channels, kChannels);
    const auto to_bias = optional_shaped_view<float>(dbias, kOp, "dbias", channels, kChannels);
    const std::int64_t splits = norm_splits(p, sizeof(T));
    const auto parts =
        optional_shaped_view<float>(partial, kOp, "partial", {p.B, 2 * splits, p.C}, "(B,2*splits,C) of the problem");
    const auto linear = shaped_view<float>(coefficients, kOp, "coefficients", {4, p.B, p.C}, "(4,B,C) of the problem");
    if (p.cut && !out) refuse("y is needed where limit is a number");
    if (!in && (to_weight || (to && p.own)))
      refuse("x is needed for dweight, and for dx with the sets' own statistics");
    if (!parts && (to_weight || to_bias || (to && p.own))) {
      refuse("partial is needed for dweight and dbias, and for dx with the sets' own statistics");
    }
    const auto apart_from_inputs = [&](const auto& one) {
      require_apart(kOp, one, gradient, in, out, factors, means, inverses);
    };
    apart_from_inputs(linear);
    apart_from_inputs(parts), require_apart(kOp, parts, linear);
    apart_from_inputs(to), require_apart(kOp, to, linear, parts, through, to_weight, to_bias);
    apart_from_inputs(through), require_apart(kOp, through, linear, parts, to_weight, to_bias);
    apart_from_inputs(to_weight), require_apart(kOp, to_weight, linear, parts, to_bias);
    apart_from_inputs(to_bias), require_apart(kOp, to_bias, linear, parts);
    const auto queue = stream_of(stream);
    const T* const cut_by = p.cut ? pointer(out) : nullptr;
    run(kOp, describe(gradient, in, out, factors, means, inverses, to, through, to_weight, to_bias, parts, linear),
        [&] {
          simt::Status status = simt::kSuccess;
          if (parts) {
            status = norm_gradient_sums<T>(p, gradient.data, pointer(in), cut_by, means.data, pointer(through),
                                           parts->data, queue);
          }
          if (status == simt::kSuccess) {
            status =
                norm_gradient_coefficients(p, parts ? splits : 0, pointer(parts), pointer(factors), means.data,
                                           inverses.data, linear.data, pointer(to_weight), pointer(to_bias), queue);
          }
          if (status != simt::kSuccess || (!to && (parts || !through))) return status;
          const bool is_written = parts && through;  // the sums' pass has left there what gets through
          return norm_dgrad<T>(p, is_written ? through->data : gradient.data, p.own && to ? pointer(in) : nullptr,
                               is_written ? nullptr : cut_by, linear.data, pointer(to),
                               is_written ? nullptr : pointer(through), queue);
        });
  });
}

constexpr const char* kCommon =
    "\n\nproblem: a NormProblem. dtype: 'float32', 'float16' or 'bfloat16', that of the arrays (B,M,C); weight, bias, "
    "running_mean, running_var, dweight, dbias (C,), partial and coefficients are float32, mean and inverse (B,C) "
    "float64. All are C-contiguous, with the array interface of the module's machine; outputs share no "
    "memory.\n" GPUCNN_STREAM_AND_ERRORS;

}  // namespace

void register_norm(py::module_& m) {
  const py::arg problem("problem"), dtype("dtype"), x("x"), y("y"), weight("weight"), mean("mean"), inverse("inverse"),
      partial("partial"), coefficients("coefficients"), stream("stream");
  m.def("norm_fprop", &fprop_binding, problem, dtype, x, weight, py::arg("bias"), py::arg("running_mean"),
        py::arg("running_var"), py::arg("residual"), y, mean, inverse, partial, coefficients, stream,
        py::arg("taken") = py::none(), py::arg("rows_taken") = 0,
        (std::string("Writes y, mean and 1 / deviation, and moves the running statistics.\n\n"
                     "weight, bias, running statistics and residual may be None; partial (B,2*splits+1,C) and "
                     "coefficients (3,B,C) are to work in, partial None where momentum is.\n\n"
                     "taken (2*splits+1,C): of a batch norm partial statistics of splits of rows_taken positions, the "
                     "last of those that are left, where something else has taken them: x is then read for y alone, "
                     "and partial, of norm_condensed_splits(splits), is None where these are as many.") +
         kCommon)
            .c_str());
  m.def("norm_bprop", &bprop_binding, problem, dtype, py::arg("dy"), x, y, weight, mean, inverse, py::arg("dx"),
        py::arg("dweight"), py::arg("dbias"), py::arg("passed"), partial, coefficients, stream,
        (std::string("Writes dx, dweight, dbias and what of dy gets through the cut, each of which may be None.\n\n"
                     "partial (B,2*splits,C) and coefficients (4,B,C) are to work in, partial None where no sums over "
                     "positions are needed.") +
         kCommon)
            .c_str());
  m.def(
      "norm_condensed_splits",
      [](std::int64_t splits) {
        if (splits < 0) refuse("splits must be at least 0");
        return norm_condensed_splits(splits);
      },
      py::arg("splits"), "How many norm_fprop makes of so many splits that are taken elsewhere.");
  m.def(
      "norm_splits",
      [](const py::object& p, const std::string& name) {
        std::int64_t splits = 0;
        with_float_type(kOp, name,
                        [&](auto type) { splits = norm_splits(problem_of(p), sizeof(typename decltype(type)::type)); });
        return splits;
      },
      problem, dtype, "The splits that norm_fprop and norm_bprop cut each set into.");
}

}  // namespace gpucnn

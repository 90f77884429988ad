// Python's way to the launchers of optim.h: checks that a call is safe, and launches without the GIL.
#include "common/array_view.h"
#include "common/binding.h"
#include "common/dispatch.h"
#include "common/run.h"
#include "optim/optim.h"

#include <pybind11/pybind11.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace gpucnn {
namespace {

constexpr std::int64_t kMostElements = std::int64_t{1} << 38;

// The tensors of a call, and all their arrays.
struct Tensors {
  std::vector<OptimTensor> each;
  Arguments arguments;
};

// `states` is a tuple of lists, of which the last holds the masters where there are any.
template <typename T>
Tensors tensors_of(const char* op, const py::list& parameters, const py::list& gradients, const py::tuple& states,
                   std::size_t most_states, bool has_masters) {
  Tensors found;
  const std::size_t kept = states.size() - (has_masters ? 1 : 0);
  if (has_masters && (sizeof(T) != 2 || states.empty())) {
    throw py::value_error(std::string(op) + ": masters, the last list of state, are of 16-bit parameters");
  }
  if (kept > most_states) throw py::value_error(std::string(op) + ": too many lists of state");
  bool even = gradients.size() == parameters.size();
  for (const py::handle state : states) even = even && py::len(state) == parameters.size();
  if (!even) throw py::value_error(std::string(op) + ": parameters, gradients and state must be as many of each");
  constexpr const char* kStates[] = {"the first state", "the second state", "the master"};
  found.each.reserve(parameters.size());
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const auto parameter = view<T>(parameters[i], op, "parameter");
    const auto gradient = view<const T>(gradients[i], op, "gradient");
    require_same_shape(op, parameter, gradient);
    require_disjoint(op, parameter, gradient);
    if (parameter.size >= kMostElements) throw py::value_error(std::string(op) + ": 2^38 elements or more");
    detail::add_argument(found.arguments, parameter);
    detail::add_argument(found.arguments, gradient);
    OptimTensor tensor{parameter.data, gradient.data, {nullptr, nullptr}, nullptr, parameter.size};
    for (std::size_t s = 0; s < states.size(); ++s) {
      const auto state = view<float>(states[s].cast<py::list>()[i], op, kStates[s < kept ? s : 2]);
      require_same_shape(op, parameter, state);
      require_disjoint(op, state, parameter);
      require_disjoint(op, state, gradient);
      detail::add_argument(found.arguments, state);
      (s < kept ? tensor.state[s] : tensor.master) = state.data;
    }
    found.each.push_back(tensor);
  }
  return found;
}

double number(const py::object& problem, const char* field) {
  return problem.attr(field).cast<double>();
}

// What a step depends on, as Python has it.
struct Conditions {
  py::object flag;
  bool advances;
  py::object loss_scale, found;
};

template <typename Rule, typename Step>
void step(const char* op, const std::string& dtype, const Rule& rule, const py::object& problem,
          const py::list& parameters, const py::list& gradients, const py::tuple& states, std::size_t most_states,
          const Conditions& conditions, std::uintptr_t stream, Step launch) {
  with_float_type(op, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const bool has_masters = problem.attr("master").cast<bool>();
    Tensors tensors = tensors_of<T>(op, parameters, gradients, states, most_states, has_masters);
    const auto note = optional_shaped_view<std::int64_t>(conditions.flag, op, "flag", {2}, "a code and a count");
    const auto scale = optional_shaped_view<const float>(conditions.loss_scale, op, "loss_scale", {1}, "one number");
    const auto found = optional_shaped_view<const std::int32_t>(conditions.found, op, "found", {1}, "one number");
    if (note) detail::add_argument(tensors.arguments, *note);
    if (scale) detail::add_argument(tensors.arguments, *scale);
    if (found) detail::add_argument(tensors.arguments, *found);
    const Guard guard{note ? note->data : nullptr, conditions.advances, scale ? scale->data : nullptr,
                      found ? found->data : nullptr};
    run(op, tensors.arguments, [&] { return launch(type, rule, tensors.each, guard, stream_of(stream)); });
  });
}

void sgd_binding(const std::string& dtype, const py::object& problem, const py::list& parameters,
                 const py::list& gradients, const py::tuple& states, const py::object& flag, bool advances,
                 std::uintptr_t stream, const py::object& loss_scale, const py::object& found) {
  const auto real = [&](const char* field) { return static_cast<float>(number(problem, field)); };
  const Sgd rule{real("lr"),
                 real("momentum"),
                 static_cast<float>(1.0 - number(problem, "dampening")),
                 real("weight_decay"),
                 problem.attr("nesterov").cast<bool>(),
                 problem.attr("first").cast<bool>()};
  step("sgd", dtype, rule, problem, parameters, gradients, states, 1, {flag, advances, loss_scale, found}, stream,
       [](auto type, const auto&... all) { return sgd_step<typename decltype(type)::type>(all...); });
}

void adam_binding(const std::string& dtype, const py::object& problem, const py::list& parameters,
                  const py::list& gradients, const py::tuple& states, const py::object& flag, bool advances,
                  std::uintptr_t stream, const py::object& loss_scale, const py::object& found) {
  if (states.size() != (problem.attr("master").cast<bool>() ? 3 : 2)) {
    throw py::value_error("adam: the state is means and squares");
  }
  const double lr = number(problem, "lr"), decay = number(problem, "weight_decay"), beta1 = number(problem, "beta1"),
               beta2 = number(problem, "beta2"), count = number(problem, "step");
  const bool decoupled = problem.attr("decoupled").cast<bool>();
  // In double precision, as Python has them, and rounded once.
  const Adam rule{static_cast<float>(decoupled ? 1.0 - lr * decay : 1.0),
                  static_cast<float>(decoupled ? 0.0 : decay),
                  static_cast<float>(beta1),
                  static_cast<float>(1.0 - beta1),
                  static_cast<float>(beta2),
                  static_cast<float>(1.0 - beta2),
                  static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(beta2, count))),
                  static_cast<float>(number(problem, "eps")),
                  static_cast<float>(lr / (1.0 - std::pow(beta1, count)))};
  step("adam", dtype, rule, problem, parameters, gradients, states, 2, {flag, advances, loss_scale, found}, stream,
       [](auto type, const auto&... all) { return adam_step<typename decltype(type)::type>(all...); });
}

void unscale_binding(const std::string& dtype, bool divides, const py::list& gradients, const py::object& loss_scale,
                     const py::object& found, std::uintptr_t stream) {
  constexpr const char* kOp = "unscale";
  with_float_type(kOp, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto scale = shaped_view<const float>(loss_scale, kOp, "loss_scale", {1}, "one number");
    const auto word = shaped_view<std::int32_t>(found, kOp, "found", {1}, "one number");
    std::vector<OptimTensor> tensors;
    Arguments arguments = describe(scale, word);
    for (const py::handle each : gradients) {
      const auto gradient = view<T>(py::reinterpret_borrow<py::object>(each), kOp, "gradient");
      if (gradient.size >= kMostElements) throw py::value_error("unscale: 2^38 elements or more");
      require_disjoint(kOp, gradient, scale);
      require_disjoint(kOp, gradient, word);
      detail::add_argument(arguments, gradient);
      tensors.push_back({gradient.data, nullptr, {nullptr, nullptr}, nullptr, gradient.size});
    }
    run(kOp, arguments, [&] { return unscale<T>(tensors, scale.data, word.data, divides, stream_of(stream)); });
  });
}

void next_scale_binding(const py::object& problem, const py::object& scale_array, const py::object& clean_array,
                        const py::list& found, const py::object& next_scale_array, const py::object& next_clean_array,
                        std::uintptr_t stream) {
  constexpr const char* kOp = "next_scale";
  const auto scale = shaped_view<const float>(scale_array, kOp, "scale", {1}, "one number");
  const auto clean = shaped_view<const std::int32_t>(clean_array, kOp, "clean", {1}, "one number");
  const auto next = shaped_view<float>(next_scale_array, kOp, "next_scale", {1}, "one number");
  const auto next_clean = shaped_view<std::int32_t>(next_clean_array, kOp, "next_clean", {1}, "one number");
  require_disjoint(kOp, next, scale);
  require_disjoint(kOp, next_clean, clean);
  if (found.size() > kMostFound) throw py::value_error("next_scale: what more than 64 optimisers found");
  Arguments arguments = describe(scale, clean, next, next_clean);
  std::vector<const std::int32_t*> words;
  for (const py::handle each : found) {
    const auto word =
        shaped_view<const std::int32_t>(py::reinterpret_borrow<py::object>(each), kOp, "found", {1}, "one number");
    detail::add_argument(arguments, word);
    words.push_back(word.data);
  }
  const ScaleRule rule{static_cast<float>(number(problem, "growth")), static_cast<float>(number(problem, "backoff")),
                       problem.attr("interval").cast<std::int32_t>()};
  run(kOp, arguments,
      [&] { return next_scale(rule, scale.data, clean.data, words, next.data, next_clean.data, stream_of(stream)); });
}

}  // namespace

void register_optim(py::module_& m) {
  const std::string common =
      "\n\ndtype: 'float32', 'float16' or 'bfloat16', that of parameters, which are written, and gradients: lists of "
      "as "
      "many arrays, C-contiguous, with the array interface of the module's machine. states: a tuple of lists of "
      "float32 "
      "arrays, written too; if problem.master, the last is of float32 copies of the parameters. flag: int64 (2,) of "
      "gpucnn.flags, or None; while it is raised nothing is written. advances: count the step there. loss_scale: "
      "float32 (1,), what gradients are divided by, or None. found: int32 (1,), or None; unless it is 0 nothing is "
      "written.\n" GPUCNN_STREAM_AND_ERRORS;
  const auto define = [&](const char* name, auto binding, const std::string& text) {
    m.def(name, binding, py::arg("dtype"), py::arg("problem"), py::arg("parameters"), py::arg("gradients"),
          py::arg("states"), py::arg("flag"), py::arg("advances"), py::arg("stream"),
          py::arg("loss_scale") = py::none(), py::arg("found") = py::none(), (text + common).c_str());
  };
  define("sgd_step", &sgd_binding,
         "One step of stochastic gradient descent as gpucnn.ops.optim.SGDProblem has it; states: () without momentum, "
         "else (velocities,).");
  define("adam_step", &adam_binding,
         "One step of Adam or AdamW as gpucnn.ops.optim.AdamProblem has it; states: (means, squares).");
  m.def("unscale", &unscale_binding, py::arg("dtype"), py::arg("divides"), py::arg("gradients"), py::arg("loss_scale"),
        py::arg("found"), py::arg("stream"),
        "found = 1 if one of the gradients, a list of C-contiguous arrays of `dtype`, is infinite or NaN; they are "
        "divided by loss_scale if `divides`. loss_scale: float32 (1,). found: int32 (1,).\n" GPUCNN_STREAM_AND_ERRORS);
  m.def("next_scale", &next_scale_binding, py::arg("problem"), py::arg("scale"), py::arg("clean"), py::arg("found"),
        py::arg("next_scale"), py::arg("next_clean"), py::arg("stream"),
        "The scale of losses after a step, as gpucnn.ops.optim.ScaleProblem has it. scale, next_scale: float32 (1,). "
        "clean, next_clean: int32 (1,), steps without trouble. found: a list of up to 64 int32 "
        "(1,).\n" GPUCNN_STREAM_AND_ERRORS);
}

}  // namespace gpucnn

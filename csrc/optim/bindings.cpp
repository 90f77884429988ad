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

// The tensors of a call, and all their arrays. `states` is a tuple of lists.
struct Tensors {
  std::vector<OptimTensor> each;
  Arguments arguments;
};

template <typename T>
Tensors tensors_of(const char* op, const py::list& parameters, const py::list& gradients, const py::tuple& states,
                   std::size_t most_states) {
  Tensors found;
  if (states.size() > most_states) throw py::value_error(std::string(op) + ": too many lists of state");
  bool even = gradients.size() == parameters.size();
  for (const py::handle state : states) even = even && py::len(state) == parameters.size();
  if (!even) throw py::value_error(std::string(op) + ": parameters, gradients and state must be as many of each");
  constexpr const char* kStates[] = {"the first state", "the second state"};
  found.each.reserve(parameters.size());
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const auto parameter = view<T>(parameters[i], op, "parameter");
    const auto gradient = view<const T>(gradients[i], op, "gradient");
    require_same_shape(op, parameter, gradient);
    require_disjoint(op, parameter, gradient);
    if (parameter.size >= kMostElements) throw py::value_error(std::string(op) + ": 2^38 elements or more");
    detail::add_argument(found.arguments, parameter);
    detail::add_argument(found.arguments, gradient);
    OptimTensor tensor{parameter.data, gradient.data, {nullptr, nullptr}, parameter.size};
    for (std::size_t s = 0; s < states.size(); ++s) {
      const auto state = view<float>(states[s].cast<py::list>()[i], op, kStates[s]);
      require_same_shape(op, parameter, state);
      require_disjoint(op, state, parameter);
      require_disjoint(op, state, gradient);
      detail::add_argument(found.arguments, state);
      tensor.state[s] = state.data;
    }
    found.each.push_back(tensor);
  }
  return found;
}

double number(const py::object& problem, const char* field) {
  return problem.attr(field).cast<double>();
}

template <typename Rule, typename Step>
void step(const char* op, const std::string& dtype, const Rule& rule, const py::list& parameters,
          const py::list& gradients, const py::tuple& states, std::size_t most_states, const py::object& flag,
          bool advances, std::uintptr_t stream, Step launch) {
  with_float_type(op, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    Tensors tensors = tensors_of<T>(op, parameters, gradients, states, most_states);
    const auto note = optional_view<std::int64_t>(flag, op, "flag");
    if (note) {
      require_shape(op, *note, std::vector<std::int64_t>{2}, "a code and a count");
      detail::add_argument(tensors.arguments, *note);
    }
    run(op, tensors.arguments,
        [&] { return launch(type, rule, tensors.each, note ? note->data : nullptr, advances, stream_of(stream)); });
  });
}

void sgd_binding(const std::string& dtype, const py::object& problem, const py::list& parameters,
                 const py::list& gradients, const py::tuple& states, const py::object& flag, bool advances,
                 std::uintptr_t stream) {
  const auto real = [&](const char* field) { return static_cast<float>(number(problem, field)); };
  const Sgd rule{real("lr"),
                 real("momentum"),
                 static_cast<float>(1.0 - number(problem, "dampening")),
                 real("weight_decay"),
                 problem.attr("nesterov").cast<bool>(),
                 problem.attr("first").cast<bool>()};
  step("sgd", dtype, rule, parameters, gradients, states, 1, flag, advances, stream,
       [](auto type, const auto&... all) { return sgd_step<typename decltype(type)::type>(all...); });
}

void adam_binding(const std::string& dtype, const py::object& problem, const py::list& parameters,
                  const py::list& gradients, const py::tuple& states, const py::object& flag, bool advances,
                  std::uintptr_t stream) {
  if (states.size() != 2) throw py::value_error("adam: the state is means and squares");
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
  step("adam", dtype, rule, parameters, gradients, states, 2, flag, advances, stream,
       [](auto type, const auto&... all) { return adam_step<typename decltype(type)::type>(all...); });
}

}  // namespace

void register_optim(py::module_& m) {
  const std::string common =
      "\n\ndtype: 'float32', 'float16' or 'bfloat16', that of parameters, which are written, and gradients: lists of "
      "as "
      "many arrays, C-contiguous, with the array interface of the module's machine. states: a tuple of lists of "
      "float32 "
      "arrays, written too. flag: int64 (2,) of gpucnn.flags, or None; while it is raised nothing is written. "
      "advances: "
      "count the step there.\n" GPUCNN_STREAM_AND_ERRORS;
  const auto define = [&](const char* name, auto binding, const std::string& text) {
    m.def(name, binding, py::arg("dtype"), py::arg("problem"), py::arg("parameters"), py::arg("gradients"),
          py::arg("states"), py::arg("flag"), py::arg("advances"), py::arg("stream"), (text + common).c_str());
  };
  define("sgd_step", &sgd_binding,
         "One step of stochastic gradient descent as gpucnn.ops.optim.SGDProblem has it; states: () without momentum, "
         "else (velocities,).");
  define("adam_step", &adam_binding,
         "One step of Adam or AdamW as gpucnn.ops.optim.AdamProblem has it; states: (means, squares).");
}

}  // namespace gpucnn

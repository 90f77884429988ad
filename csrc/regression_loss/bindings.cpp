// Python's way to the launchers of regression_loss.h: checks that a call is safe, and launches without the GIL.
#include "common/array_view.h"
#include "common/binding.h"
#include "common/dispatch.h"
#include "common/run.h"
#include "common/shares.h"
#include "regression_loss/regression_loss.h"

#include <pybind11/pybind11.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace gpucnn {
namespace {

constexpr std::array<std::pair<const char*, Loss>, 7> kLosses{{{"mse", Loss::mse},
                                                               {"l1", Loss::l1},
                                                               {"huber", Loss::huber},
                                                               {"bce", Loss::bce},
                                                               {"bce_with_logits", Loss::bce_with_logits},
                                                               {"kl_div", Loss::kl_div},
                                                               {"kl_div_log", Loss::kl_div_log}}};

// The loss's name as messages have it, and which it is.
std::pair<const char*, Loss> loss_of(const std::string& name) {
  for (const auto& each : kLosses) {
    if (name == each.first) return each;
  }
  throw py::value_error("there is no loss '" + name + "'");
}

float optional_number(const py::object& problem, const char* field) {
  return py::hasattr(problem, field) ? problem.attr(field).cast<float>() : 1.0f;
}

template <typename T>
struct Inputs {
  ArrayView<const T> x, t;
  std::optional<ArrayView<const T>> w;
  float delta, scale, divisor;

  LossOperands<T> operands() const {
    return {x.data, t.data, pointer(w), x.size, w ? w->size : 0, delta, scale, divisor};
  }
  template <typename Output>
  void require_apart(const char* op, const Output& output) const {
    gpucnn::require_apart(op, output, x, t, w);
  }
};

// problem: a LossProblem of gpucnn.reference.regression_loss.
template <typename T>
Inputs<T> inputs_of(const char* op, Loss kind, const py::object& problem, const py::object& x, const py::object& t,
                    const py::object& w) {
  const Inputs<T> in{view<const T>(x, op, "x"),          view<const T>(t, op, "t"),
                     optional_view<const T>(w, op, "w"), optional_number(problem, "delta"),
                     optional_number(problem, "scale"),  problem.attr("divisor").cast<float>()};
  require_same_shape(op, in.x, in.t);
  if (in.x.size >= std::int64_t{1} << 38) throw py::value_error(std::string(op) + ": 2^38 elements or more");
  if (in.w && kind != Loss::bce_with_logits) throw py::value_error(std::string(op) + ": it has no factor w");
  if (in.w && in.x.size > 0 &&
      (in.w->size == 0 || in.x.size % in.w->size != 0 ||
       (in.w->size != in.x.size && in.w->size >= std::int64_t{1} << 31))) {
    throw py::value_error(std::string(op) + ": 'w' of shape " + in_words(in.w->shape) + " can't be repeated over " +
                          in_words(in.x.shape));
  }
  return in;
}

void fprop_binding(const std::string& name, const std::string& dtype, const py::object& problem, const py::object& x,
                   const py::object& t, const py::object& w, const py::object& loss, const py::object& memory,
                   const py::object& flag, bool check_loss, std::uintptr_t stream) {
  const auto [op, kind] = loss_of(name);
  const auto which = kind;
  with_float_type(op, dtype, [&, op = op](auto type) {
    using T = typename decltype(type)::type;
    const Inputs<T> in = inputs_of<T>(op, which, problem, x, t, w);
    const bool reduce = problem.attr("reduce").cast<bool>();
    const auto out = shaped_view<T>(loss, op, "loss", reduce ? Shape{} : in.x.shape, "that of the loss");
    in.require_apart(op, out);
    std::optional<ArrayView<std::int32_t>> sums;
    if (reduce) {
      sums = shaped_view<std::int32_t>(memory, op, "memory", {kSummingWords}, "loss_words of the module");
    }
    const auto note = optional_shaped_view<std::int64_t>(flag, op, "flag", {2}, "a code and a count");
    run(op, describe(in.x, in.t, in.w, out, sums, note), [&] {
      return regression_loss_fprop<T>(which, in.operands(), reduce, out.data,
                                      sums ? reinterpret_cast<unsigned*>(sums->data) : nullptr, pointer(note),
                                      check_loss, stream_of(stream));
    });
  });
}

void dgrad_binding(const std::string& name, const std::string& dtype, const py::object& problem, const py::object& x,
                   const py::object& t, const py::object& w, const py::object& dy, bool by_target,
                   const py::object& gradient, std::uintptr_t stream) {
  const auto [op, kind] = loss_of(name);
  const auto which = kind;
  with_float_type(op, dtype, [&, op = op](auto type) {
    using T = typename decltype(type)::type;
    const Inputs<T> in = inputs_of<T>(op, which, problem, x, t, w);
    const auto above = view<const T>(dy, op, "dy");
    if (above.size != 1) require_same_shape(op, in.x, above);
    const auto out = view<T>(gradient, op, "gradient");
    require_same_shape(op, in.x, out);
    in.require_apart(op, out);
    require_apart(op, out, above);
    run(op, describe(in.x, in.t, in.w, above, out), [&] {
      return regression_loss_dgrad<T>(which, in.operands(), above.data, above.size == 1, by_target, out.data,
                                      stream_of(stream));
    });
  });
}

}  // namespace

void register_regression_loss(py::module_& m) {
  const std::string common =
      "\n\nname: 'mse', 'l1', 'huber', 'bce', 'bce_with_logits', 'kl_div' or 'kl_div_log'. problem: a LossProblem of "
      "gpucnn.reference.regression_loss. dtype: 'float32', 'float16' or 'bfloat16', that of x and t of one shape, w "
      "(of "
      "bce_with_logits, repeated over the elements as they lie; or None), loss, gradient and dy, which is of their "
      "shape "
      "or one element. memory (loss_words,) int32 of zeros, to sum in; None where nothing is reduced. flag (2,) int64 "
      "of "
      "gpucnn.flags, or None; check_loss: note there a loss that is not finite. Arrays are C-contiguous, with the "
      "array "
      "interface of the module's machine.\n" GPUCNN_STREAM_AND_ERRORS;
  const py::arg name("name"), dtype("dtype"), problem("problem"), x("x"), t("t"), w("w"), loss("loss"),
      memory("memory"), flag("flag"), check_loss("check_loss"), dy("dy"), by_target("by_target"), gradient("gradient"),
      stream("stream");
  m.def("regression_loss_fprop", &fprop_binding, name, dtype, problem, x, t, w, loss, memory, flag, check_loss, stream,
        ("Writes the loss of each element, of x's shape, or their sum over problem.divisor, ()." + common).c_str());
  m.def("regression_loss_dgrad", &dgrad_binding, name, dtype, problem, x, t, w, dy, by_target, gradient, stream,
        ("Writes the gradient with respect to x, or to t." + common).c_str());
}

}  // namespace gpucnn

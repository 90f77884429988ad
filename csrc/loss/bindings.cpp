// Python's way to the launchers of loss.h: checks that a call is safe, and launches without the GIL.
#include "common/array_view.h"
#include "common/binding.h"
#include "common/dispatch.h"
#include "common/run.h"
#include "loss/arguments.h"
#include "loss/loss.h"

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace gpucnn {
namespace {

// A call's problem and the inputs that both passes have.
template <typename T>
struct Inputs {
  CrossEntropy problem;
  ArrayView<const T> scores;
  std::optional<ArrayView<const std::int64_t>> targets;
  std::optional<ArrayView<const T>> probabilities;
  std::optional<ArrayView<const T>> weight;

  Rows<T> rows() const { return {scores.data, pointer(targets), pointer(probabilities), pointer(weight)}; }
  Arguments describe(const Arguments& others) const {
    Arguments all = gpucnn::describe(scores, targets, probabilities, weight);
    all.insert(all.end(), others.begin(), others.end());
    return all;
  }
  template <typename Output>
  void require_apart(const char* op, const Output& output) const {
    gpucnn::require_apart(op, output, scores, targets, probabilities, weight);
  }
};

// problem: a CrossEntropyProblem or NLLProblem of gpucnn.reference.loss.
template <typename T>
Inputs<T> inputs_of(const char* op, const py::object& problem, const py::object& scores, const py::object& targets,
                    const py::object& probabilities, const py::object& weight) {
  Inputs<T> in{{},
               view<const T>(scores, op, "scores"),
               optional_view<const std::int64_t>(targets, op, "targets"),
               optional_view<const T>(probabilities, op, "probabilities"),
               optional_view<const T>(weight, op, "weight")};
  if (in.scores.shape.size() != 2) {
    throw py::value_error(std::string(op) + ": 'scores' must have shape (rows, classes), got " +
                          in_words(in.scores.shape));
  }
  const std::int64_t rows = in.scores.shape[0], classes = in.scores.shape[1];
  if (rows >= std::int64_t{1} << 38 || classes >= std::int64_t{1} << 31) {
    throw py::value_error(std::string(op) + ": 'scores' of shape " + in_words(in.scores.shape) +
                          " has 2^38 rows or 2^31 classes or more");
  }
  if (in.targets.has_value() == in.probabilities.has_value()) {
    throw py::value_error(std::string(op) + ": one of targets and probabilities is wanted");
  }
  if (in.targets) require_shape(op, *in.targets, Shape{rows}, "one a row of scores");
  if (in.probabilities) require_shape(op, *in.probabilities, in.scores.shape, "that of scores");
  if (in.weight) require_shape(op, *in.weight, Shape{classes}, "one a class");
  const float smoothing = py::hasattr(problem, "label_smoothing") ? problem.attr("label_smoothing").cast<float>() : 0;
  in.problem = {rows, classes, problem.attr("ignore_index").cast<std::int64_t>(), smoothing,
                reduction_of(op, problem.attr("reduction").cast<std::string>())};
  return in;
}

// The shape of a loss, and of the gradient with respect to it.
Shape shape_of_loss(const CrossEntropy& p) {
  return p.reduction == Reduction::none ? Shape{p.rows} : Shape{};
}

void cross_entropy_fprop_binding(const std::string& dtype, const py::object& problem, const py::object& logits,
                                 const py::object& targets, const py::object& probabilities, const py::object& weight,
                                 const py::object& loss, const py::object& statistics, const py::object& total,
                                 const py::object& memory, const py::object& flag, bool check_loss,
                                 std::uintptr_t stream) {
  constexpr const char* op = "cross_entropy";
  with_float_type(op, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const Inputs<T> in = inputs_of<T>(op, problem, logits, targets, probabilities, weight);
    const auto out = shaped_view<T>(loss, op, "loss", shape_of_loss(in.problem), "that of the loss");
    const auto kept = shaped_view<float>(statistics, op, "statistics", Shape{in.probabilities ? 3 : 2, in.problem.rows},
                                         "numbers of each row");
    const Summing summing = summing_of(op, in.problem.reduction, total, memory);
    const auto note = flag_of(op, flag);
    in.require_apart(op, out);
    in.require_apart(op, kept);
    require_apart(op, kept, out);
    run(op, in.describe(describe(out, kept, summing.total, summing.memory, note)), [&] {
      return cross_entropy_fprop<T>(in.problem, in.rows(), out.data, kept.data, pointer(summing.total),
                                    reinterpret_cast<unsigned*>(pointer(summing.memory)), pointer(note), check_loss,
                                    stream_of(stream));
    });
  });
}

void cross_entropy_dgrad_binding(const std::string& dtype, const py::object& problem, const py::object& dy,
                                 const py::object& logits, const py::object& statistics, const py::object& total,
                                 const py::object& targets, const py::object& probabilities, const py::object& weight,
                                 const py::object& gradient, bool by_probabilities, std::uintptr_t stream) {
  constexpr const char* op = "cross_entropy";
  with_float_type(op, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const Inputs<T> in = inputs_of<T>(op, problem, logits, targets, probabilities, weight);
    const auto above = shaped_view<const T>(dy, op, "dy", shape_of_loss(in.problem), "that of the loss");
    const auto kept = shaped_view<const float>(statistics, op, "statistics",
                                               Shape{in.probabilities ? 3 : 2, in.problem.rows}, "numbers of each row");
    const auto divisor = divisor_view(op, in.problem.reduction, total);
    const auto out = shaped_view<T>(gradient, op, "gradient", in.scores.shape, "that of the logits");
    if (by_probabilities && !in.probabilities) {
      throw py::value_error("cross_entropy: class indices have no gradient");
    }
    in.require_apart(op, out);
    require_apart(op, out, above, kept);
    run(op, in.describe(describe(above, kept, divisor, out)), [&] {
      return cross_entropy_dgrad<T>(in.problem, in.rows(), above.data, kept.data, pointer(divisor), out.data,
                                    by_probabilities, stream_of(stream));
    });
  });
}

void nll_loss_fprop_binding(const std::string& dtype, const py::object& problem, const py::object& log_p,
                            const py::object& targets, const py::object& weight, const py::object& loss,
                            const py::object& total, const py::object& memory, const py::object& flag, bool check_loss,
                            std::uintptr_t stream) {
  constexpr const char* op = "nll_loss";
  with_float_type(op, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const Inputs<T> in = inputs_of<T>(op, problem, log_p, targets, py::none(), weight);
    const auto out = shaped_view<T>(loss, op, "loss", shape_of_loss(in.problem), "that of the loss");
    const Summing summing = summing_of(op, in.problem.reduction, total, memory);
    const auto note = flag_of(op, flag);
    in.require_apart(op, out);
    run(op, in.describe(describe(out, summing.total, summing.memory, note)), [&] {
      return nll_loss_fprop<T>(in.problem, in.rows(), out.data, pointer(summing.total),
                               reinterpret_cast<unsigned*>(pointer(summing.memory)), pointer(note), check_loss,
                               stream_of(stream));
    });
  });
}

void nll_loss_dgrad_binding(const std::string& dtype, const py::object& problem, const py::object& dy,
                            const py::object& total, const py::object& targets, const py::object& weight,
                            const py::object& gradient, std::uintptr_t stream) {
  constexpr const char* op = "nll_loss";
  with_float_type(op, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto out = view<T>(gradient, op, "gradient");
    Inputs<T> in = inputs_of<T>(op, problem, gradient, targets, py::none(), weight);
    const auto above = shaped_view<const T>(dy, op, "dy", shape_of_loss(in.problem), "that of the loss");
    const auto divisor = divisor_view(op, in.problem.reduction, total);
    require_apart(op, out, above);
    require_disjoint(op, out, *in.targets);
    if (in.weight) require_disjoint(op, out, *in.weight);
    run(op, describe(above, in.targets, in.weight, divisor, out), [&] {
      return nll_loss_dgrad<T>(in.problem, in.rows(), above.data, pointer(divisor), out.data, stream_of(stream));
    });
  });
}

constexpr const char* kCommon =
    "\n\ndtype: 'float32', 'float16' or 'bfloat16', that of scores (logits; log-probabilities), probabilities and "
    "gradient (M,C), weight (C,) or None, loss and dy, which are () where problem.reduction is 'mean' or 'sum' and "
    "(M,) "
    "where it is 'none'. targets (M,) int64, or None for probabilities. statistics (2,M), with probabilities (3,M), "
    "and total () float32. memory (loss_words,) int32 of zeros, to sum in. total and memory may be None with 'none'. "
    "flag (2,) int64 of gpucnn.flags, or None; check_loss: note there a loss that is not finite. Arrays are "
    "C-contiguous, with the array interface of the module's machine.\n" GPUCNN_STREAM_AND_ERRORS;

}  // namespace

void register_loss(py::module_& m) {
  const auto define = [&m](const char* name, auto binding, const std::string& text, auto... arguments) {
    m.def(name, binding, arguments..., (text + kCommon).c_str());
  };
  const py::arg dtype("dtype"), problem("problem"), logits("logits"), log_p("log_p"), targets("targets"),
      probabilities("probabilities"), weight("weight"), loss("loss"), statistics("statistics"), total("total"),
      memory("memory"), flag("flag"), check_loss("check_loss"), dy("dy"), gradient("gradient"),
      by_probabilities("by_probabilities"), stream("stream");
  m.attr("loss_words") = kSummingWords;
  define("cross_entropy_fprop", &cross_entropy_fprop_binding,
         "Writes the softmax cross-entropy of logits with targets or probabilities into loss, what backward needs into "
         "statistics, and what a mean divides by into total.",
         dtype, problem, logits, targets, probabilities, weight, loss, statistics, total, memory, flag, check_loss,
         stream);
  define("cross_entropy_dgrad", &cross_entropy_dgrad_binding,
         "Writes the gradient with respect to the logits, or to the probabilities.", dtype, problem, dy, logits,
         statistics, total, targets, probabilities, weight, gradient, by_probabilities, stream);
  define("nll_loss_fprop", &nll_loss_fprop_binding,
         "Writes minus each row's log-probability of its target into loss, and what a mean divides by into total.",
         dtype, problem, log_p, targets, weight, loss, total, memory, flag, check_loss, stream);
  define("nll_loss_dgrad", &nll_loss_dgrad_binding, "Writes the gradient with respect to the log-probabilities.", dtype,
         problem, dy, total, targets, weight, gradient, stream);
}

}  // namespace gpucnn

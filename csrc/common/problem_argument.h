// gpucnn.problem's descriptions as those of problem.h, checked. For bindings.cpp files.
#pragma once

#include "common/problem.h"

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

namespace gpucnn {

namespace detail {

inline std::int64_t whole(const pybind11::handle& value, const char* op, const char* field) {
  try {
    return value.cast<std::int64_t>();
  } catch (const pybind11::cast_error&) {
    throw pybind11::type_error(std::string(op) + ": the problem's " + field + " must be 64-bit integers, got " +
                               pybind11::repr(value).cast<std::string>());
  }
}

inline std::int64_t number(const pybind11::object& problem, const char* op, const char* field) {
  return whole(problem.attr(field), op, field);
}

inline Pair pair(const pybind11::object& problem, const char* op, const char* field) {
  const pybind11::object values = problem.attr(field);
  if (!pybind11::isinstance<pybind11::tuple>(values) || pybind11::len(values) != 2) {
    throw pybind11::type_error(std::string(op) + ": the problem's " + field + " must be (vertical, horizontal), got " +
                               pybind11::repr(values).cast<std::string>());
  }
  const auto both = values.cast<pybind11::tuple>();
  return {whole(both[0], op, field), whole(both[1], op, field)};
}

inline Windows windows(const pybind11::object& problem, const char* op) {
  const auto of = [&](const char* field) { return number(problem, op, field); };
  return {of("N"),
          of("H"),
          of("W"),
          of("C"),
          of("R"),
          of("S"),
          of("P"),
          of("Q"),
          pair(problem, op, "stride"),
          pair(problem, op, "padding"),
          pair(problem, op, "dilation")};
}

}  // namespace detail

// The gpucnn.problem.Conv2dProblem that `op` was called with. Throws AttributeError and TypeError where it is none,
// ValueError where check() refuses it.
inline Conv2dProblem conv2d_problem(const pybind11::object& problem, const char* op) {
  const Conv2dProblem p{detail::windows(problem, op), detail::number(problem, op, "K"),
                        detail::number(problem, op, "groups")};
  check(op, p);
  return p;
}

// As conv2d_problem(), of a gpucnn.problem.Pool2dProblem.
inline Pool2dProblem pool2d_problem(const pybind11::object& problem, const char* op) {
  const Pool2dProblem p{detail::windows(problem, op)};
  check(op, p);
  return p;
}

}  // namespace gpucnn

// What bindings say again and again: an array whose shape is known, outputs that share no memory, the stream, and the
// end of every docstring. For bindings.cpp files.
#pragma once

#include "common/array_view.h"
#include "simt/status.h"

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

// The last lines of a binding's docstring.
#define GPUCNN_STREAM_AND_ERRORS                                                                            \
  "stream: the handle of a CUDA stream; 0 is the default stream, and all that there is on the CPU.\n"       \
  "Raises TypeError and ValueError before anything is written; CudaError or SimtError where a launch or a " \
  "kernel fails."

namespace gpucnn {

using Shape = std::vector<std::int64_t>;

inline simt::Stream stream_of(std::uintptr_t handle) {
  return reinterpret_cast<simt::Stream>(handle);
}

// As view(), of an array that must have the shape `expected`, which follows from what `because` says.
template <typename T>
ArrayView<T> shaped_view(const py::object& array, const char* op, const char* argument, const Shape& expected,
                         const std::string& because) {
  const auto found = view<T>(array, op, argument);
  require_shape(op, found, expected, because);
  return found;
}

// As shaped_view(), and nothing where the user passed None.
template <typename T>
std::optional<ArrayView<T>> optional_shaped_view(const py::object& array, const char* op, const char* argument,
                                                 const Shape& expected, const std::string& because) {
  if (array.is_none()) return std::nullopt;
  return shaped_view<T>(array, op, argument, expected, because);
}

// As optional_shaped_view(), of float32 to work in that one part needs not: (count, sums...), where None will not do
// for several.
inline std::optional<ArrayView<float>> parts_view(const py::object& array, const char* op, std::int64_t count,
                                                  const Shape& sums, const std::string& because) {
  Shape expected{count};
  expected.insert(expected.end(), sums.begin(), sums.end());
  if (array.is_none() && count > 1) {
    throw py::value_error(std::string(op) + ": argument 'partial' must be an array of shape " + in_words(expected) +
                          ": " + because);
  }
  return optional_shaped_view<float>(array, op, "partial", expected, because);
}

// What a problem's images lie in, and what a window of them makes one element of.
template <typename T, typename Problem>
ArrayView<T> images_view(const py::object& array, const char* op, const char* argument, const Problem& p) {
  return shaped_view<T>(array, op, argument, {p.N, p.H, p.W, p.C}, "(N,H,W,C) of the problem");
}
template <typename T, typename Problem>
ArrayView<T> outputs_view(const py::object& array, const char* op, const char* argument, const Problem& p) {
  return shaped_view<T>(array, op, argument, {p.N, p.P, p.Q, p.C}, "(N,P,Q,C) of the problem");
}

template <typename T>
T* pointer(const std::optional<ArrayView<T>>& array) {
  return array ? array->data : nullptr;
}

namespace detail {

template <typename T>
const ArrayView<T>* there(const ArrayView<T>& array) {
  return &array;
}
template <typename T>
const ArrayView<T>* there(const std::optional<ArrayView<T>>& array) {
  return array ? &*array : nullptr;
}

template <typename Output, typename Other>
void require_apart(const char* op, const Output& output, const Other& other) {
  if (there(output) && there(other)) require_disjoint(op, *there(output), *there(other));
}

}  // namespace detail

// Throws ValueError where an output shares memory with one of the others, of which some may be None, as it may itself.
template <typename Output, typename... Others>
void require_apart(const char* op, const Output& output, const Others&... others) {
  (detail::require_apart(op, output, others), ...);
}

}  // namespace gpucnn

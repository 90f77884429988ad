// Python's way to the launchers of ordering.h: checks that a call is safe, and launches without the GIL.
#include "common/array_view.h"
#include "common/binding.h"
#include "common/dispatch.h"
#include "common/run.h"
#include "ordering/ordering.h"

#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace gpucnn {
namespace {

// The array about its axis number `axis`.
template <typename T>
Along along_of(const char* op, const ArrayView<T>& array, std::int64_t axis) {
  const auto axes = static_cast<std::int64_t>(array.shape.size());
  if (axis < 0 || axis >= axes) {
    throw py::value_error(std::string(op) + ": '" + array.argument + "' of shape " + in_words(array.shape) +
                          " has no axis " + std::to_string(axis));
  }
  Along along{1, array.shape[axis], 1};
  for (std::int64_t i = 0; i < axes; ++i) {
    if (array.shape[i] == 0) {
      if (i != axis) along.outer = 0;
      continue;
    }
    if (i < axis) along.outer *= array.shape[i];
    if (i > axis) along.inner *= array.shape[i];
  }
  constexpr std::int64_t kLimit = std::int64_t{1} << 31, kMost = std::int64_t{1} << 38;
  if (along.size >= kLimit || along.inner >= kLimit || array.size >= kMost) {
    throw py::value_error(std::string(op) + ": '" + array.argument + "' of shape " + in_words(array.shape) +
                          " is longer than 2^31 along or after the axis, or has 2^38 elements");
  }
  return along;
}

Shape with_length(Shape shape, std::int64_t axis, std::int64_t length) {
  shape[axis] = length;
  return shape;
}

void extremum_binding(const std::string& dtype, const py::object& x, const py::object& index, std::int64_t axis,
                      bool largest, std::uintptr_t stream) {
  const char* op = largest ? "argmax" : "argmin";
  with_float_type(op, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = view<const T>(x, op, "x");
    const Along along = along_of(op, in, axis);
    if (along.size == 0 && along.outer * along.inner > 0) throw py::value_error(std::string(op) + ": no elements");
    const auto out = view<std::int64_t>(index, op, "index");
    require_shape(op, out, with_length(in.shape, axis, 1), "that of x, 1 along the axis");
    require_disjoint(op, out, in);
    run(op, describe(in, out), [&] { return extremum<T>(along, in.data, out.data, largest, stream_of(stream)); });
  });
}

// The integer as wide as T, by which elements are moved.
template <std::size_t kBytes>
struct BitsOf;
template <>
struct BitsOf<1> {
  using type = std::uint8_t;
};
template <>
struct BitsOf<2> {
  using type = std::uint16_t;
};
template <>
struct BitsOf<4> {
  using type = std::uint32_t;
};
template <>
struct BitsOf<8> {
  using type = std::uint64_t;
};

template <typename Body>
void with_type(const char* op, const std::string& dtype, Body&& body) {
  if (dtype == "int64") return body(Type<std::int64_t>{});
  if (dtype == "int32") return body(Type<std::int32_t>{});
  if (dtype == "uint8") return body(Type<std::uint8_t>{});
  with_float_type(op, dtype, body);
}

void take_binding(const std::string& dtype, const py::object& x, const py::object& index, const py::object& y,
                  std::int64_t axis, std::uintptr_t stream) {
  constexpr const char* op = "take";
  with_type(op, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using Bits = typename BitsOf<sizeof(T)>::type;
    const auto in = view<const T>(x, op, "x");
    const Along along = along_of(op, in, axis);
    const auto where = view<const std::int64_t>(index, op, "index");
    static_cast<void>(along_of(op, where, axis));
    require_shape(op, where, with_length(in.shape, axis, where.shape[axis]), "that of x but along the axis");
    const auto out = view<T>(y, op, "y");
    require_same_shape(op, where, out);
    require_disjoint(op, out, in);
    require_disjoint(op, out, where);
    run(op, describe(in, where, out), [&] {
      return take<Bits>(along, where.shape[axis], reinterpret_cast<const Bits*>(in.data), where.data,
                        reinterpret_cast<Bits*>(out.data), stream_of(stream));
    });
  });
}

void put_binding(const std::string& dtype, const py::object& x, const py::object& index, const py::object& y,
                 std::int64_t axis, std::uintptr_t stream) {
  constexpr const char* op = "put";
  with_type(op, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using Bits = typename BitsOf<sizeof(T)>::type;
    const auto in = view<const T>(x, op, "x");
    const auto where = view<const std::int64_t>(index, op, "index");
    require_same_shape(op, in, where);
    static_cast<void>(along_of(op, where, axis));
    const auto out = view<T>(y, op, "y");
    const Along along = along_of(op, out, axis);
    require_shape(op, out, with_length(in.shape, axis, along.size), "that of x but along the axis");
    require_disjoint(op, out, in);
    require_disjoint(op, out, where);
    run(op, describe(in, where, out), [&] {
      return put<Bits>(along, in.shape[axis], reinterpret_cast<const Bits*>(in.data), where.data,
                       reinterpret_cast<Bits*>(out.data), stream_of(stream));
    });
  });
}

void running_sum_binding(const std::string& dtype, const py::object& x, const py::object& y, std::int64_t axis,
                         bool backwards, std::uintptr_t stream) {
  constexpr const char* op = "cumsum";
  with_float_type(op, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = view<const T>(x, op, "x");
    const Along along = along_of(op, in, axis);
    const auto out = view<T>(y, op, "y");
    require_same_shape(op, in, out);
    require_disjoint(op, out, in);
    run(op, describe(in, out), [&] { return running_sum<T>(along, in.data, out.data, backwards, stream_of(stream)); });
  });
}

}  // namespace

void register_ordering(py::module_& m) {
  const std::string common =
      "\n\ndtype: 'float32', 'float16' or 'bfloat16', for take and put also 'uint8', 'int32' and 'int64'. Arrays are "
      "C-contiguous, with the array interface of the module's machine; outputs share no memory with inputs. axis is "
      "counted from 0.\n" GPUCNN_STREAM_AND_ERRORS;
  const py::arg dtype("dtype"), x("x"), index("index"), y("y"), axis("axis"), largest("largest"), stream("stream"),
      backwards("backwards");
  m.def("extremum", &extremum_binding, dtype, x, index, axis, largest, stream,
        ("Writes index (int64, of length 1 along the axis): where the first maximum or minimum is, or the first NaN." +
         common)
            .c_str());
  m.def("take", &take_binding, dtype, x, index, y, axis, stream,
        ("Writes y: the elements of x at the positions index along the axis; 0 for a position outside." + common)
            .c_str());
  m.def(
      "put", &put_binding, dtype, x, index, y, axis, stream,
      ("Writes the elements of x into y at the positions index along the axis, of which none may come twice." + common)
          .c_str());
  m.def("running_sum", &running_sum_binding, dtype, x, y, axis, backwards, stream,
        ("Writes y: the running sums of x along the axis, or those from the last element on." + common).c_str());
}

}  // namespace gpucnn

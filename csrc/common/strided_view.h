// A Python object's array interface as a pointer, a shape and strides, for kernels that take any memory order. For
// bindings.cpp files; what array_view.h says of the interface holds here too.
#pragma once

#include "common/array_view.h"

#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace gpucnn {

// An array whose elements are `itemsize` bytes each and lie anywhere: with gaps, backwards, repeated.
struct StridedView {
  char* data;                         // the first element, aligned to itemsize; may be null where size is 0
  std::vector<std::int64_t> shape;    // each [0, 2^63)
  std::vector<std::int64_t> strides;  // in elements, as many as lengths; of an axis of length 1 it means nothing
  std::int64_t size;                  // elements
  int itemsize;                       // 1, 2, 4 or 8
  std::string typestr;
  const char* argument;  // what the op calls it
  char* lowest;          // the range of memory that its elements lie in
  std::int64_t extent;   // in bytes
  bool is_contiguous;    // in C order
};

namespace detail {

inline void add_argument(Arguments& arguments, const StridedView& array) {
  arguments.push_back({array.argument, "", array.shape, array.lowest, array.extent});
}

// The bytes of an element whose type the interface calls `typestr`.
inline int itemsize_of(const std::string& typestr, const std::string& where) {
  const char byte_order = typestr.empty() ? ' ' : typestr[0];
  const std::string bytes = typestr.size() < 3 ? "" : typestr.substr(2);
  if ((byte_order == '<' || byte_order == '|') && (bytes == "1" || bytes == "2" || bytes == "4" || bytes == "8")) {
    return bytes[0] - '0';
  }
  throw py::type_error(where + " must have elements of 1, 2, 4 or 8 bytes in native order and is '" + typestr + "'");
}

// Whether no two elements of `array` share memory, as far as strides that nest in one another show.
inline bool is_injective(const StridedView& array) {
  std::vector<std::pair<std::int64_t, std::int64_t>> axes;  // |stride|, length
  for (std::size_t i = 0; i < array.shape.size(); ++i) {
    if (array.shape[i] > 1) axes.emplace_back(std::abs(array.strides[i]), array.shape[i]);
  }
  std::sort(axes.begin(), axes.end());
  std::int64_t reach = 0;  // of the axes before, from the first element to the last
  for (const auto& [stride, length] : axes) {
    if (stride <= reach) return false;
    reach += stride * (length - 1);
  }
  return true;
}

}  // namespace detail

// The array behind `array`, which the user passed to `op` as `argument` and which is written if `written`.
// Throws TypeError where it is no array of the module's machine, ValueError where its memory can't be used as is.
inline StridedView strided_view(const py::object& array, const char* op, const char* argument, bool written) {
  std::string where = std::string(op) + ": argument '" + argument + "'";
  const py::dict interface = detail::interface_of(array, where);
  StridedView view{};
  view.argument = argument;
  view.shape = detail::integers(interface["shape"], where, "shape");
  where += " of shape " + in_words(view.shape);
  view.typestr = py::str(interface["typestr"]);
  view.itemsize = detail::itemsize_of(view.typestr, where);
  view.size = detail::count_elements(view.shape, static_cast<std::size_t>(view.itemsize), where);
  if (interface.contains("mask") && !interface["mask"].is_none()) {
    throw py::value_error(where + " is masked, which no kernel heeds");
  }

  const detail::Memory memory = detail::memory_of(interface, where);
  if (view.size > 0 && memory.address == 0) throw py::value_error(where + " has a null pointer");
  if (memory.address % static_cast<std::uintptr_t>(view.itemsize) != 0) {
    throw py::value_error(where + " is not aligned to " + std::to_string(view.itemsize) + " bytes");
  }
  if (written && memory.readonly) throw py::value_error(where + " is read-only and would be written");
  view.data = view.lowest = reinterpret_cast<char*>(memory.address);

  std::int64_t dense = 1;  // the stride of a C-contiguous array
  view.strides.resize(view.shape.size());
  for (std::size_t i = view.shape.size(); i-- > 0;) {
    view.strides[i] = dense;
    dense *= std::max<std::int64_t>(1, view.shape[i]);
  }
  view.is_contiguous = true;
  view.extent = view.size * view.itemsize;
  if (view.size == 0 || !interface.contains("strides") || interface["strides"].is_none()) return view;

  const std::vector<std::int64_t> strides = detail::integers(interface["strides"], where, "strides");
  if (strides.size() != view.shape.size()) throw py::value_error(where + " has strides of another rank");
  view.is_contiguous = detail::is_contiguous(view.shape, strides, static_cast<std::size_t>(view.itemsize));
  if (view.is_contiguous) return view;
  std::int64_t before = 0, after = 0;  // bytes from the first element to the ends of the range
  for (std::size_t i = 0; i < strides.size(); ++i) {
    if (view.shape[i] == 1) {
      view.strides[i] = 0;
      continue;
    }
    std::int64_t reach = 0;
    if (strides[i] % view.itemsize != 0) {
      throw py::value_error(where + " has strides that are no multiple of its elements' size");
    }
    if (__builtin_mul_overflow(strides[i], view.shape[i] - 1, &reach) ||
        __builtin_add_overflow(reach < 0 ? before : after, reach, reach < 0 ? &before : &after)) {
      throw py::value_error(where + " reaches over more bytes than 64 bits can count");
    }
    view.strides[i] = strides[i] / view.itemsize;
  }
  view.lowest += before;
  view.extent = after - before + view.itemsize;
  if (written && !detail::is_injective(view)) {
    throw py::value_error(where + " has elements that share memory and would be written");
  }
  return view;
}

// As view() for an array of T in any memory order.
template <typename T>
StridedView strided_view_of(const py::object& array, const char* op, const char* argument, bool written) {
  StridedView found = strided_view(array, op, argument, written);
  if (found.typestr != ElementType<T>::typestr) {
    throw py::type_error(std::string(op) + ": argument '" + argument + "' of shape " + in_words(found.shape) +
                         " must be " + ElementType<T>::name + " ('" + ElementType<T>::typestr + "') and is '" +
                         found.typestr + "'");
  }
  return found;
}

// Throws ValueError where the ranges of memory of two arrays overlap; unless both are one contiguous array, which an
// elementwise kernel may read and write.
inline void require_apart(const char* op, const StridedView& a, const StridedView& b) {
  const auto a_begin = reinterpret_cast<std::uintptr_t>(a.lowest), b_begin = reinterpret_cast<std::uintptr_t>(b.lowest);
  const bool overlap = a_begin < b_begin + static_cast<std::uintptr_t>(b.extent) &&
                       b_begin < a_begin + static_cast<std::uintptr_t>(a.extent);
  const bool same =
      a.data == b.data && a.is_contiguous && b.is_contiguous && a.shape == b.shape && a.itemsize == b.itemsize;
  if (overlap && !same) {
    throw py::value_error(std::string(op) + ": '" + a.argument + "' of shape " + in_words(a.shape) + " and '" +
                          b.argument + "' of shape " + in_words(b.shape) +
                          " overlap in memory without being the same array");
  }
}

}  // namespace gpucnn

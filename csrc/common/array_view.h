// A Python object's array interface as a checked pointer and shape. For bindings.cpp files.
//
// Everything here is arithmetic on what the object claims, so it works (and is tested) without a GPU; whether memory
// is where it is said to be is run.h's to ask. Version 3 of the interface, on a device as cupy, PyTorch and Numba offer
// it, in CPU memory as numpy does.
#pragma once

#include "simt/float16.h"

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

namespace gpucnn {

namespace py = pybind11;

// The attribute by which an array says where it lies, who has it, and how to make an array contiguous.
#ifdef GPUCNN_FOR_CUDA
inline constexpr const char* kInterface = "__cuda_array_interface__";
inline constexpr const char* kArrays = "on a CUDA device, such as a cupy.ndarray";
inline constexpr const char* kMakeContiguous = "cupy.ascontiguousarray()";
#else
inline constexpr const char* kInterface = "__array_interface__";
inline constexpr const char* kArrays = "in CPU memory, such as a numpy.ndarray";
inline constexpr const char* kMakeContiguous = "numpy.ascontiguousarray()";
#endif

// How the array interface and users spell a C++ element type.
template <typename T>
struct ElementType;

template <>
struct ElementType<float> {
  static constexpr const char* typestr = "<f4";
  static constexpr const char* name = "float32";
};

template <>
struct ElementType<double> {
  static constexpr const char* typestr = "<f8";
  static constexpr const char* name = "float64";
};

template <>
struct ElementType<simt::half> {
  static constexpr const char* typestr = "<f2";
  static constexpr const char* name = "float16";
};

// numpy has no bfloat16; ml_dtypes' looks like two bytes of no type in an array interface.
template <>
struct ElementType<simt::bfloat16> {
  static constexpr const char* typestr = "<V2";
  static constexpr const char* name = "bfloat16";
};

template <>
struct ElementType<std::uint8_t> {
  static constexpr const char* typestr = "|u1";
  static constexpr const char* name = "uint8";
};

template <>
struct ElementType<std::int32_t> {
  static constexpr const char* typestr = "<i4";
  static constexpr const char* name = "int32";
};

template <>
struct ElementType<std::int64_t> {
  static constexpr const char* typestr = "<i8";
  static constexpr const char* name = "int64";
};

// A C-contiguous array of T. ArrayView<const float> is an input; ArrayView<float> an output, known to be writable.
template <typename T>
struct ArrayView {
  T* data;                          // aligned to sizeof(T); may be null where size is 0
  std::vector<std::int64_t> shape;  // each [0, 2^63)
  std::int64_t size;                // elements; their bytes fit 64 bits too
  const char* argument;             // what the op calls it

  std::int64_t bytes() const { return size * static_cast<std::int64_t>(sizeof(T)); }
};

// (2, 3) as "(2, 3)", and one number as "(2,)", as Python prints them.
inline std::string in_words(const std::vector<std::int64_t>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

// What is left of a view when its element type no longer matters: for messages, and for run().
struct Argument {
  const char* name;
  const char* type;
  std::vector<std::int64_t> shape;
  const void* data;
  std::int64_t bytes;
};

using Arguments = std::vector<Argument>;

// "x float32 (2, 3), y float32 (2, 3)", for messages.
inline std::string in_words(const Arguments& arguments) {
  std::string text;
  for (const Argument& argument : arguments) {
    text +=
        (text.empty() ? "" : ", ") + std::string(argument.name) + " " + argument.type + " " + in_words(argument.shape);
  }
  return text;
}

namespace detail {

// A tuple of the interface that must hold integers. Throws TypeError where it does not.
inline std::vector<std::int64_t> integers(const py::object& value, const std::string& where, const char* key) {
  const std::string rule = where + ": the interface's " + key + " must be a tuple of 64-bit integers";
  if (!py::isinstance<py::tuple>(value)) throw py::type_error(rule);
  std::vector<std::int64_t> numbers;
  for (const py::handle item : value) {
    try {
      numbers.push_back(item.cast<std::int64_t>());
    } catch (const py::cast_error&) {
      throw py::type_error(rule);
    }
  }
  return numbers;
}

// "cupy.ndarray", and "list" for what is built in.
inline std::string type_of(const py::object& object) {
  const py::object type = py::type::of(object);
  const auto module = py::str(type.attr("__module__")).cast<std::string>();
  return (module == "builtins" ? "" : module + ".") + py::str(type.attr("__qualname__")).cast<std::string>();
}

// The interface's dict. Throws TypeError for an object without one; what its own property raises passes through.
inline py::dict interface_of(const py::object& array, const std::string& where) {
  const auto found = py::reinterpret_steal<py::object>(PyObject_GetAttrString(array.ptr(), kInterface));
  if (!found) {
    if (!PyErr_ExceptionMatches(PyExc_AttributeError)) throw py::error_already_set();
    PyErr_Clear();
    throw py::type_error(where + " must be an array " + kArrays + ", and is a " + type_of(array));
  }
  if (!py::isinstance<py::dict>(found)) throw py::type_error(where + ": " + kInterface + " is not a dict");
  for (const char* key : {"shape", "typestr", "data", "version"}) {
    if (!found.contains(key)) throw py::type_error(where + ": " + kInterface + " has no '" + key + "'");
  }
  return found;
}

// Elements of `shape`; throws ValueError for a negative length and where the bytes do not fit 64 bits.
inline std::int64_t count_elements(const std::vector<std::int64_t>& shape, std::size_t itemsize,
                                   const std::string& where) {
  bool empty = false, overflow = false;
  std::int64_t bytes = static_cast<std::int64_t>(itemsize);
  for (const std::int64_t length : shape) {
    if (length < 0) throw py::value_error(where + " has a negative length");
    if (length == 0) empty = true;
    overflow = __builtin_mul_overflow(bytes, length, &bytes) || overflow;
  }
  if (empty) return 0;
  if (overflow) throw py::value_error(where + " takes more bytes than 64 bits can count");
  return bytes / static_cast<std::int64_t>(itemsize);
}

// Whether `strides` (bytes) are those of a C-contiguous array. Along an axis of length 1 any stride is.
inline bool is_contiguous(const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& strides,
                          std::size_t itemsize) {
  std::int64_t expected = static_cast<std::int64_t>(itemsize);
  for (std::size_t i = shape.size(); i-- > 0;) {
    if (shape[i] != 1 && strides[i] != expected) return false;
    expected *= shape[i];
  }
  return true;
}

struct Memory {
  std::uintptr_t address;
  bool readonly;
};

// The interface's data. Throws TypeError where it is not a pair of an address and a flag.
inline Memory memory_of(const py::dict& interface, const std::string& where) {
  const std::string rule = where + ": the interface's data must be an (address, read-only) pair";
  const py::object data = interface["data"];
  if (!py::isinstance<py::tuple>(data) || py::len(data) != 2) throw py::type_error(rule);
  const auto pair = data.cast<py::tuple>();
  try {
    return {pair[0].is_none() ? 0 : pair[0].cast<std::uintptr_t>(), pair[1].cast<bool>()};
  } catch (const py::cast_error&) {
    throw py::type_error(rule);
  }
}

}  // namespace detail

// The array behind `array`, which the user passed to `op` as `argument`.
// Throws TypeError where it is no array of T of the module's machine, ValueError where its memory can't be used as is.
template <typename T>
ArrayView<T> view(const py::object& array, const char* op, const char* argument) {
  using Element = ElementType<std::remove_const_t<T>>;
  std::string where = std::string(op) + ": argument '" + argument + "'";
  const py::dict interface = detail::interface_of(array, where);

  const std::vector<std::int64_t> shape = detail::integers(interface["shape"], where, "shape");
  where += " of shape " + in_words(shape);
  const std::string typestr = py::str(interface["typestr"]);
  if (typestr != Element::typestr) {
    throw py::type_error(where + " must be " + Element::name + " ('" + Element::typestr + "') and is '" + typestr +
                         "'");
  }
  const std::int64_t size = detail::count_elements(shape, sizeof(T), where);

  if (interface.contains("strides") && !interface["strides"].is_none()) {
    const std::vector<std::int64_t> strides = detail::integers(interface["strides"], where, "strides");
    if (strides.size() != shape.size()) throw py::value_error(where + " has strides of another rank");
    if (size > 0 && !detail::is_contiguous(shape, strides, sizeof(T))) {
      throw py::value_error(where + " must be C-contiguous; " + kMakeContiguous + " makes it so");
    }
  }
  if (interface.contains("mask") && !interface["mask"].is_none()) {
    throw py::value_error(where + " is masked, which no kernel heeds");
  }

  const detail::Memory memory = detail::memory_of(interface, where);
  if (size > 0 && memory.address == 0) throw py::value_error(where + " has a null pointer");
  if (memory.address % alignof(T) != 0) {
    throw py::value_error(where + " is not aligned to " + std::to_string(alignof(T)) + " bytes");
  }
  if (!std::is_const_v<T> && memory.readonly) throw py::value_error(where + " is read-only and would be written");
  return {reinterpret_cast<T*>(memory.address), shape, size, argument};
}

// As view(), and nothing where the user passed None.
template <typename T>
std::optional<ArrayView<T>> optional_view(const py::object& array, const char* op, const char* argument) {
  if (array.is_none()) return std::nullopt;
  return view<T>(array, op, argument);
}

namespace detail {

template <typename T>
void add_argument(Arguments& arguments, const ArrayView<T>& array) {
  using Element = ElementType<std::remove_const_t<T>>;
  arguments.push_back({array.argument, Element::name, array.shape, array.data, array.bytes()});
}

template <typename T>
void add_argument(Arguments& arguments, const std::optional<ArrayView<T>>& array) {
  if (array) add_argument(arguments, *array);
}

}  // namespace detail

// All arrays of a call, views and optional views, in the order in which messages are to name them.
template <typename... Views>
Arguments describe(const Views&... views) {
  Arguments arguments;
  arguments.reserve(sizeof...(views));
  (detail::add_argument(arguments, views), ...);
  return arguments;
}

// Throws ValueError unless `array` has the shape `expected`, which follows from what `because` says.
template <typename T>
void require_shape(const char* op, const ArrayView<T>& array, const std::vector<std::int64_t>& expected,
                   const std::string& because) {
  if (array.shape != expected) {
    throw py::value_error(std::string(op) + ": argument '" + array.argument + "' of shape " + in_words(array.shape) +
                          " must have shape " + in_words(expected) + ": " + because);
  }
}

// Throws ValueError unless both have the same shape.
template <typename T, typename U>
void require_same_shape(const char* op, const ArrayView<T>& a, const ArrayView<U>& b) {
  if (a.shape != b.shape) {
    throw py::value_error(std::string(op) + ": '" + a.argument + "' of shape " + in_words(a.shape) + " and '" +
                          b.argument + "' of shape " + in_words(b.shape) + " must have the same shape");
  }
}

namespace detail {

template <typename T, typename U>
bool overlap(const ArrayView<T>& a, const ArrayView<U>& b) {
  const auto a_begin = reinterpret_cast<std::uintptr_t>(a.data), b_begin = reinterpret_cast<std::uintptr_t>(b.data);
  return a_begin < b_begin + static_cast<std::uintptr_t>(b.bytes()) &&
         b_begin < a_begin + static_cast<std::uintptr_t>(a.bytes());
}

}  // namespace detail

// Throws ValueError where two arrays share memory: for kernels that read again what others may have written.
template <typename T, typename U>
void require_disjoint(const char* op, const ArrayView<T>& a, const ArrayView<U>& b) {
  if (detail::overlap(a, b)) {
    throw py::value_error(std::string(op) + ": '" + a.argument + "' of shape " + in_words(a.shape) + " and '" +
                          b.argument + "' of shape " + in_words(b.shape) + " overlap in memory");
  }
}

// Throws ValueError where two arrays share some of their memory without being the same: elementwise kernels may work
// in place, and no order of threads is right for anything between.
template <typename T, typename U>
void require_same_or_disjoint(const char* op, const ArrayView<T>& a, const ArrayView<U>& b) {
  const bool same = static_cast<const void*>(a.data) == static_cast<const void*>(b.data) && a.bytes() == b.bytes();
  if (detail::overlap(a, b) && !same) {
    throw py::value_error(std::string(op) + ": '" + a.argument + "' and '" + b.argument + "' of shape " +
                          in_words(a.shape) + " overlap in memory without being the same array");
  }
}

}  // namespace gpucnn

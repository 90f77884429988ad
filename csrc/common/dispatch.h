// From a dtype's name, as Python passes it, to the C++ type of the elements. For bindings.cpp files.
#pragma once

#include "simt/float16.h"

#include <stdexcept>
#include <string>
#include <utility>

namespace gpucnn {

// A type as a value: what a generic lambda is called with.
template <typename T>
struct Type {
  using type = T;
};

// Calls body(Type<T>{}) with the type in which `dtype` is stored: float, half or bfloat16.
// Throws std::invalid_argument, which Python sees as ValueError, for any other.
template <typename Body>
void with_float_type(const char* op, const std::string& dtype, Body&& body) {
  if (dtype == "float32") return std::forward<Body>(body)(Type<float>{});
  if (dtype == "float16") return std::forward<Body>(body)(Type<simt::half>{});
  if (dtype == "bfloat16") return std::forward<Body>(body)(Type<simt::bfloat16>{});
  throw std::invalid_argument(std::string(op) + ": dtype must be float32, float16 or bfloat16, got " + dtype);
}

}  // namespace gpucnn

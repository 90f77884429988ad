// Kernels with planted bugs, and correct ones, that the tests of the checkers run by name (tests/simt_checks.py).
//
// A case is a function that launches and says whether the results are right. What a report has to name is marked in the
// source by a comment "@name" at the end of the line.
#pragma once

#include "simt/ptx.h"

#include <cstddef>
#include <cstdlib>

namespace cases {

using namespace gpucnn;

struct Case {
  Case(const char* name, bool (*run)());

  const char* name;
  bool (*run)();
  const Case* next;
};

// A function body follows: `return` whether results are right.
#define CASE(name)                                      \
  static bool name();                                   \
  static const ::cases::Case name##_case(#name, &name); \
  static bool name()

// An array as a binding would announce it, in an allocation of its own, whose ends AddressSanitizer knows. Zeros at
// first; aligned to 16 bytes.
template <typename T>
class Array {
 public:
  explicit Array(std::size_t size) : size_(size), data_(static_cast<T*>(std::calloc(size, sizeof(T)))) {
    simt::register_buffer(data_, size * sizeof(T));
  }
  ~Array() {
    simt::unregister_buffer(data_);
    std::free(data_);
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  T* data() { return data_; }
  std::size_t size() const { return size_; }
  T& operator[](std::size_t i) { return data_[i]; }

 private:
  std::size_t size_;
  T* data_;
};

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes, Arguments... arguments) {
  if (simt::launch(kernel, grid, block, shared_bytes, nullptr, arguments...) != simt::kSuccess) std::abort();
}

}  // namespace cases

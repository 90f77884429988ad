// check() of csrc/common/check.h for ctypes: what a launch that ended with `code` raises, or null.
#include "common/check.h"

#include <string>

extern "C" const char* error_of(int code, const char* op, const char* arguments, int lost) {
  static std::string text;
  device_is_lost = lost != 0;
  try {
    gpucnn::require_device(op);
    gpucnn::check(static_cast<cudaError_t>(code), op, arguments);
    return nullptr;
  } catch (const gpucnn::CudaError& error) {
    text = error.what();
    return text.c_str();
  }
}

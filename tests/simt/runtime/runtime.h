// Small kernels that the tests of the runtime drive through ctypes. Every function here is called from Python.
//
// A function returns null, or the text of the Fault that its launch ended with, valid until the next one.
#pragma once

#include "simt/ptx.h"

#include <string>

#define TEST_FUNCTION extern "C" __attribute__((visibility("default"))) const char*

using namespace gpucnn;

template <typename... Parameters, typename... Arguments>
const char* fault_of(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
                     Arguments... arguments) {
  static thread_local std::string text;
  try {
    const simt::Status status = simt::launch(kernel, grid, block, shared_bytes, nullptr, arguments...);
    if (status == simt::kSuccess) return nullptr;
    text = "a status other than success";
  } catch (const simt::Fault& fault) {
    text = fault.what();
  }
  return text.c_str();
}

__device__ __forceinline__ int linear_thread() {
  return static_cast<int>(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
}

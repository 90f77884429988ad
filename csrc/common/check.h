// CUDA's error codes as exceptions that say what was tried, on which device, and what to do about it.
//
// Host code only. Launchers return cudaError_t; bindings, which know the user's terms, pass it to check().
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace gpucnn {

// Python sees it as gpucnn._cuda.CudaError, a RuntimeError.
class CudaError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// 13000 -> "13.0", the way CUDA counts versions.
inline std::string version_in_words(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

struct DeviceCount {
  int count;            // devices that can be used, 0 or more
  std::string message;  // why there are none; empty if there are
};

// Where there is no driver, too old a driver or no device, the count is 0: a machine without a GPU is no error.
// Anything else that CUDA reports is one, and throws CudaError.
inline DeviceCount count_devices() {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code == cudaSuccess && count > 0) return {count, ""};
  if (code == cudaSuccess || code == cudaErrorNoDevice) {
    return {0, "the driver sees no GPU (CUDA_VISIBLE_DEVICES can hide one, and so can a container)"};
  }
  if (code == cudaErrorInsufficientDriver) {
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (driver == 0) return {0, "no NVIDIA driver (libcuda.so.1) can be loaded"};
    return {0, "the driver supports CUDA " + version_in_words(driver) + " and this extension was built with CUDA " +
                   version_in_words(runtime) + ": update the driver, or reinstall with a CUDA " +
                   std::to_string(driver / 1000) + " toolkit"};
  }
  throw CudaError(std::string("devices can't be counted: ") + cudaGetErrorName(code) + ": " + cudaGetErrorString(code));
}

// The current device's index. Throws CudaError where there is no device. To be called before any pointer is trusted.
inline int require_device(const char* op) {
  static const DeviceCount devices = count_devices();
  if (devices.count == 0) throw CudaError(std::string(op) + ": no CUDA device: " + devices.message);
  int device = 0;
  const cudaError_t code = cudaGetDevice(&device);
  if (code != cudaSuccess) {
    throw CudaError(std::string(op) + ": " + cudaGetErrorName(code) + ": " + cudaGetErrorString(code));
  }
  return device;
}

// The current device as "NVIDIA H100 80GB HBM3 (cuda:0, sm_90)"; "an unknown device" if CUDA can't tell any more.
inline std::string current_device_in_words() {
  int device = 0;
  cudaDeviceProp properties{};
  if (cudaGetDevice(&device) != cudaSuccess || cudaGetDeviceProperties(&properties, device) != cudaSuccess) {
    return "an unknown device";
  }
  return std::string(properties.name) + " (cuda:" + std::to_string(device) + ", sm_" +
         std::to_string(properties.major * 10 + properties.minor) + ")";
}

// What a user can do about `code`; empty where there is nothing useful to say.
inline const char* remedy(cudaError_t code) {
  switch (code) {
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
      return "; this build has no code for that device: reinstall with its architecture in GPUCNN_ARCHS";
    case cudaErrorUnsupportedPtxVersion:
      return "; the driver is too old for this build's PTX: update it, or reinstall with the device's architecture in "
             "GPUCNN_ARCHS";
    case cudaErrorMemoryAllocation:
      return "; the device's memory is used up: free some, or take a smaller batch";
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorLaunchFailure:
      return "; an earlier launch may be the cause (CUDA_LAUNCH_BLOCKING=1 tells which); CUDA is unusable in this "
             "process from now on";
    case cudaErrorInvalidConfiguration:
    case cudaErrorInvalidValue:
    case cudaErrorLaunchOutOfResources:
      return "; the device does not take that launch: kernel=\"...\" asks for another kernel, of which "
             "`gpucnn explain` names all, and gpucnn.use_backend(\"reference\") does without";
    default:
      return "";
  }
}

// `op` and `arguments` ("x float32 (2, 3)") are what the user called.
[[noreturn]] inline void throw_cuda_error(cudaError_t code, const char* op, const std::string& arguments) {
  throw CudaError(std::string(op) + ": " + cudaGetErrorName(code) + ": " + cudaGetErrorString(code) + " (" + arguments +
                  ", on " + current_device_in_words() + ")" + remedy(code));
}

// Throws CudaError unless `code` is success.
inline void check(cudaError_t code, const char* op, const std::string& arguments) {
  if (code != cudaSuccess) throw_cuda_error(code, op, arguments);
}

}  // namespace gpucnn

// As much of CUDA's runtime as csrc/common/check.h asks for, of a machine with one GPU that a test describes: so what is
// said of a failed launch is seen without a GPU. The names and numbers of errors are CUDA's.
#pragma once

#include <cstdio>

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInsufficientDriver = 35,
  cudaErrorInvalidDeviceFunction = 98,
  cudaErrorNoDevice = 100,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorUnsupportedPtxVersion = 222,
  cudaErrorIllegalAddress = 700,
  cudaErrorLaunchOutOfResources = 701,
  cudaErrorMisalignedAddress = 716,
  cudaErrorLaunchFailure = 719,
  cudaErrorUnknown = 999,
};

struct cudaDeviceProp {
  char name[256];
  int major, minor;
};

inline bool device_is_lost = false;  // CUDA then answers nothing any more

inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return device_is_lost ? cudaErrorUnknown : cudaSuccess;
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  std::snprintf(properties->name, sizeof properties->name, "Some GPU");
  properties->major = 9, properties->minor = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
inline const char* cudaGetErrorName(cudaError_t) {
  return "cudaErrorOfSomeName";
}
inline const char* cudaGetErrorString(cudaError_t) {
  return "what CUDA says of it";
}

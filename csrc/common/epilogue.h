// What a forward kernel does to a finished sum before it is rounded and stored: bias, then ReLU. For .cu files.
#pragma once

#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {

template <typename T>
struct Epilogue {
  const T* bias;  // (K,), or null
  bool relu;

  // The bias of filter k.
  __device__ __forceinline__ float offset(std::int64_t k) const {
    return bias == nullptr ? 0.0f : simt::to_float(bias[k]);
  }

  // max(value, 0) where ReLU was asked for; a NaN stays one.
  __device__ __forceinline__ float clip(float value) const { return relu && value < 0.0f ? 0.0f : value; }

  // The output of filter k whose products sum up to `sum`.
  __device__ __forceinline__ float operator()(float sum, std::int64_t k) const { return clip(sum + offset(k)); }
};

}  // namespace gpucnn

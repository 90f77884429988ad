// What functions of single elements share. For device code.
//
// fminf() and fmaxf() give the number where the other is NaN; these give the NaN, as numpy's and PyTorch's do.
#pragma once

#include "simt/simt.h"

namespace gpucnn {

__device__ __forceinline__ float larger(float a, float b) {
  return a > b || a != a ? a : b;
}

__device__ __forceinline__ float smaller(float a, float b) {
  return a < b || a != a ? a : b;
}

__device__ __forceinline__ float clip(float x, float least, float greatest) {
  return smaller(larger(x, least), greatest);
}

__device__ __forceinline__ float sigmoid_of(float x) {
  return 1.0f / (1.0f + expf(-x));
}

}  // namespace gpucnn

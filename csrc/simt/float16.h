// The 16-bit floating-point types by name, for menus of launchers and bindings. Kernels include simt/simt.h, which
// converts them too.
#pragma once

#include "simt/status.h"

#if defined(__CUDACC__) || defined(GPUCNN_FOR_CUDA)

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace gpucnn::simt {

using half = __half;
using bfloat16 = __nv_bfloat16;

}  // namespace gpucnn::simt

#else

#include <cstdint>

namespace gpucnn::simt {

struct alignas(2) half {
  std::uint16_t bits;
};
struct alignas(2) bfloat16 {
  std::uint16_t bits;
};

}  // namespace gpucnn::simt

#endif

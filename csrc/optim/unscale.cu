// Scaling of losses: gradients are divided by the scale, and found out about; then the scale grows or shrinks.
//
//   unscale      found = 1 if a gradient is infinite or NaN;  g /= scale, if asked to
//   next_scale   scale *= backoff where one was found, else growth every `interval` steps, as long as that is finite
//
// Micikevicius et al., "Mixed precision training" (2018), section 3.2; the rule of the scale is PyTorch's. Nothing of
// it waits for the host: the optimisers' kernels read what was found (multi_tensor.cu).
//
// Layout   flat memory.
// Launch   unscale: a table of up to 64 tensors by value, more tensors being more launches. next_scale: one thread.
// Block    256 threads, 4,096 elements of one tensor, which it finds in the table by halving.
// Thread   packs of 16 bytes, elements one by one where a tensor is not aligned and at its end. One that met trouble
//          says so by one integer atomic, whose result does not depend on the order of threads.
// Limits   2^31 blocks a launch; tensors of up to 2^38 elements; 64 words of what was found.
// Bound    memory: reads g, 4 bytes an element of float32, and writes as many if it divides. On an H100 (copy 3.0 TB/s)
//          ResNet-50, 25.6 M gradients, takes 34 us, and 68 us.
// Measured not run on hardware yet.
#include "common/flag.h"
#include "common/pack.h"
#include "optim/optim.h"
#include "optim/tensor_table.h"
#include "simt/simt.h"

#include <algorithm>
#include <cstdint>

namespace gpucnn {
namespace {

template <typename T>
__global__ void __launch_bounds__(kTableThreads)
    unscale_kernel(const __grid_constant__ TensorTable table, const float* __restrict__ scale,
                   std::int32_t* __restrict__ found, bool divides) {
  const float inverse = 1.0f / *scale;
  unsigned largest = 0;  // magnitude, as bits, which have the order of numbers with infinity and NaN at their end
  for_each_pack<kPack<T>>(table, [&](auto width, const OptimTensor& tensor, std::int64_t at) {
    constexpr int kWidth = decltype(width)::value;
    T* const gradient = static_cast<T*>(tensor.parameter) + at;
    Floats<kWidth> g = load<kWidth>(gradient);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const unsigned magnitude = __float_as_uint(g[i]) & 0x7fffffffu;
      largest = magnitude > largest ? magnitude : largest;
      g[i] = __fmul_rn(g[i], inverse);
    }
    if (divides) store(gradient, g);
  });
  if (largest >= 0x7f800000u) atomicMax(found, 1);
}

struct Found {
  const std::int32_t* words[kMostFound];
  int count;
};

__global__ void __launch_bounds__(1)
    next_scale_kernel(const __grid_constant__ ScaleRule rule, const __grid_constant__ Found found,
                      const float* __restrict__ scale, const std::int32_t* __restrict__ clean,
                      float* __restrict__ next_scale, std::int32_t* __restrict__ next_clean) {
  bool trouble = false;
  for (int i = 0; i < found.count; ++i) trouble = trouble || *found.words[i] != 0;
  float next = *scale;
  std::int32_t steps = 0;
  if (trouble) {
    next = __fmul_rn(next, rule.backoff);
  } else if (*clean + 1 < rule.interval) {
    steps = *clean + 1;
  } else if (const float grown = __fmul_rn(next, rule.growth); is_finite(grown)) {
    next = grown;
  }
  *next_scale = next;
  *next_clean = steps;
}

}  // namespace

template <typename T>
simt::Status unscale(const std::vector<OptimTensor>& tensors, const float* loss_scale, std::int32_t* found,
                     bool divides, simt::Stream stream) {
  return for_each_table(tensors, false, [&](unsigned blocks, const TensorTable& table, bool) {
    return simt::launch(unscale_kernel<T>, dim3(blocks), dim3(kTableThreads), 0, stream, table, loss_scale, found,
                        divides);
  });
}

template simt::Status unscale<float>(const std::vector<OptimTensor>&, const float*, std::int32_t*, bool, simt::Stream);
template simt::Status unscale<simt::half>(const std::vector<OptimTensor>&, const float*, std::int32_t*, bool,
                                          simt::Stream);
template simt::Status unscale<simt::bfloat16>(const std::vector<OptimTensor>&, const float*, std::int32_t*, bool,
                                              simt::Stream);

simt::Status next_scale(const ScaleRule& rule, const float* scale, const std::int32_t* clean,
                        const std::vector<const std::int32_t*>& found, float* next_scale, std::int32_t* next_clean,
                        simt::Stream stream) {
  Found words{};
  words.count = static_cast<int>(found.size());
  std::copy(found.begin(), found.end(), words.words);
  return simt::launch(next_scale_kernel, dim3(1), dim3(1), 0, stream, rule, words, scale, clean, next_scale,
                      next_clean);
}

}  // namespace gpucnn

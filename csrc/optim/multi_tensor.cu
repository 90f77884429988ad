// Stochastic gradient descent and Adam over many tensors in one launch, in place: with gradient g, parameter p
//
//   SGD    g += decay * p;  v = first ? g : momentum * v + undampened * g;  p -= lr * (nesterov ? g + momentum * v : v)
//   Adam   p *= shrink;  g += decay * p;  m = beta1 * m + rest1 * g;  s = beta2 * s + rest2 * g * g;
//          p -= rate * (m / (sqrt(s) * scale + eps))
//
// A gradient is divided by the loss's scale first, if there is one. A 16-bit parameter that has a master, its copy in
// float32, is updated there and rounded; where it is not what the master rounds to, somebody else has written it, and
// the master begins anew from there.
//
// Every operation is rounded by itself, none fused with another, so that float32 parameters have the bits of the array
// code (gpucnn/reference/optim.py). It is not slower: memory is what is waited for.
//
// Layout   flat memory; parameter, gradient, state and master of a tensor in one order.
// Launch   a table of up to 64 tensors by value, in the 4 KB that a kernel's parameters may take; more
//          tensors are more launches. A tensor without elements takes no block.
// Block    256 threads, 4,096 elements of one tensor, which it finds in the table by halving.
// Thread   packs of four: 16 bytes of float32, state among it; elements one by one where one of the
//          tensor's arrays is not aligned, and at its end.
// Limits   2^31 blocks a launch; tensors of up to 2^38 elements.
// Bound    memory, in float32: SGD with momentum 20 bytes an element (reads p, g, v; writes p, v), Adam 28. On an H100
//          (copy 3.0 TB/s) ResNet-50, 25.6 M parameters in 161 tensors, takes 170 us, and 239 us, in 3 launches. In 16
//          bits 14 and 22 bytes, with a master 22 and 30.
// Measured not run on hardware yet.
#include "common/flag.h"
#include "common/pack.h"
#include "optim/optim.h"
#include "optim/tensor_table.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {
namespace {

static_assert(sizeof(TensorTable) + sizeof(Adam) + sizeof(Guard) <= 4096, "a kernel's parameters");

// The operations, each rounded: nvcc would otherwise fuse a product and a sum.
__device__ __forceinline__ float times(float a, float b) {
  return __fmul_rn(a, b);
}
__device__ __forceinline__ float plus(float a, float b) {
  return __fadd_rn(a, b);
}

__device__ __forceinline__ float updated(const Sgd& rule, float p, float g, float& velocity, float&, bool has_state) {
  if (rule.weight_decay != 0.0f) g = plus(g, times(rule.weight_decay, p));
  if (has_state) {
    if (rule.first) {
      velocity = g;
    } else {
      velocity = plus(times(velocity, rule.momentum), rule.undampened == 1.0f ? g : times(rule.undampened, g));
    }
    g = rule.nesterov ? plus(g, times(rule.momentum, velocity)) : velocity;
  }
  return plus(p, -times(rule.lr, g));
}

__device__ __forceinline__ float updated(const Adam& rule, float p, float g, float& mean, float& square, bool) {
  if (rule.shrink != 1.0f) p = times(p, rule.shrink);
  if (rule.weight_decay != 0.0f) g = plus(g, times(rule.weight_decay, p));
  mean = plus(times(mean, rule.beta1), times(rule.rest1, g));
  square = plus(times(square, rule.beta2), times(rule.rest2, times(g, g)));
  const float denominator = plus(times(sqrtf(square), rule.scale), rule.eps);
  return plus(p, -times(rule.rate, mean / denominator));
}

template <typename T, int kWidth, typename Rule>
__device__ __forceinline__ void update(const Rule& rule, const OptimTensor& tensor, std::int64_t at, float inverse) {
  T* const parameter = static_cast<T*>(tensor.parameter) + at;
  float* const first = tensor.state[0];
  float* const second = tensor.state[1];
  float* const master = sizeof(T) < sizeof(float) ? tensor.master : nullptr;
  Floats<kWidth> p = load<kWidth>(parameter), a, b;
  const Floats<kWidth> g = load<kWidth>(static_cast<const T*>(tensor.gradient) + at);
  if (first != nullptr) a = load<kWidth>(first + at);
  if (second != nullptr) b = load<kWidth>(second + at);
  if (master != nullptr) {
    const Floats<kWidth> kept = load<kWidth>(master + at);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      if (simt::to_float(simt::from_float<T>(kept[i])) == p[i]) p[i] = kept[i];
    }
  }
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    p[i] = updated(rule, p[i], times(g[i], inverse), a[i], b[i], first != nullptr);
  }
  store(parameter, p);
  if (first != nullptr) store(first + at, a);
  if (second != nullptr) store(second + at, b);
  if (master != nullptr) store(master + at, p);
}

template <typename T, typename Rule>
__global__ void __launch_bounds__(kTableThreads)
    step_kernel(const __grid_constant__ Rule rule, const __grid_constant__ TensorTable table,
                const __grid_constant__ Guard guard) {
  const bool skipped = is_raised(guard.flag) || (guard.found != nullptr && *guard.found != 0);
  if (guard.advances && blockIdx.x == 0 && threadIdx.x == 0 && guard.flag != nullptr) ++guard.flag[1];
  if (skipped) return;
  const float inverse = guard.loss_scale == nullptr ? 1.0f : 1.0f / *guard.loss_scale;
  // Of 16 bits too, whose state is float32: accesses to it leave no gaps.
  for_each_pack<kPack<float>>(table, [&](auto width, const OptimTensor& tensor, std::int64_t at) {
    update<T, decltype(width)::value>(rule, tensor, at, inverse);
  });
}

// At least one launch where a step is to be counted.
template <typename T, typename Rule>
simt::Status step_all(const Rule& rule, const std::vector<OptimTensor>& tensors, const Guard& guard,
                      simt::Stream stream) {
  const bool counts = guard.advances && guard.flag != nullptr;
  return for_each_table(tensors, counts, [&](unsigned blocks, const TensorTable& table, bool is_last) {
    Guard mine = guard;
    mine.advances = guard.advances && is_last;
    return simt::launch(step_kernel<T, Rule>, dim3(blocks), dim3(kTableThreads), 0, stream, rule, table, mine);
  });
}

}  // namespace

template <typename T>
simt::Status sgd_step(const Sgd& rule, const std::vector<OptimTensor>& tensors, const Guard& guard,
                      simt::Stream stream) {
  return step_all<T>(rule, tensors, guard, stream);
}

template <typename T>
simt::Status adam_step(const Adam& rule, const std::vector<OptimTensor>& tensors, const Guard& guard,
                       simt::Stream stream) {
  return step_all<T>(rule, tensors, guard, stream);
}

#define GPUCNN_OPTIM(T)                                                                                       \
  template simt::Status sgd_step<T>(const Sgd&, const std::vector<OptimTensor>&, const Guard&, simt::Stream); \
  template simt::Status adam_step<T>(const Adam&, const std::vector<OptimTensor>&, const Guard&, simt::Stream);
GPUCNN_OPTIM(float)
GPUCNN_OPTIM(simt::half)
GPUCNN_OPTIM(simt::bfloat16)
#undef GPUCNN_OPTIM

}  // namespace gpucnn

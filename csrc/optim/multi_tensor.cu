// Stochastic gradient descent and Adam over many tensors in one launch, in place: with gradient g, parameter p
//
//   SGD    g += decay * p;  v = first ? g : momentum * v + undampened * g;  p -= lr * (nesterov ? g + momentum * v : v)
//   Adam   p *= shrink;  g += decay * p;  m = beta1 * m + rest1 * g;  s = beta2 * s + rest2 * g * g;
//          p -= rate * (m / (sqrt(s) * scale + eps))
//
// Every operation is rounded by itself, none fused with another, so that float32 parameters have the bits of the array
// code (gpucnn/reference/optim.py). It is not slower: memory is what is waited for.
//
// Layout   flat memory; parameter, gradient and state of a tensor in one order.
// Launch   a table of up to kTensors tensors by value, in the 4 KB that a kernel's parameters may take; more
//          tensors are more launches. A tensor without elements takes no block.
// Block    256 threads, 4,096 elements of one tensor, which it finds in the table by halving.
// Thread   packs of four: 16 bytes of float32, state among it; elements one by one where one of the
//          tensor's arrays is not aligned, and at its end.
// Limits   2^31 blocks a launch; tensors of up to 2^38 elements.
// Bound    memory, in float32: SGD with momentum 20 bytes an element (reads p, g, v; writes p, v), Adam 28. On an H100
//          (copy 3.0 TB/s) ResNet-50, 25.6 M parameters in 161 tensors, takes 170 us, and 239 us, in 3 launches.
// Measured not run on hardware yet.
#include "common/flag.h"
#include "common/index.h"
#include "common/pack.h"
#include "optim/optim.h"
#include "simt/simt.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kThreads = 256;
constexpr int kElements = 4096;  // of a block
constexpr int kTensors = 64;     // of a launch; a power of two

struct Table {
  OptimTensor tensors[kTensors];
  std::int32_t first_block[kTensors];  // of each tensor, rising; those after the last begin beyond the grid
};
static_assert(sizeof(Table) + sizeof(Adam) + 16 <= 4096, "a kernel's parameters");

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
__device__ __forceinline__ void update(const Rule& rule, const OptimTensor& tensor, std::int64_t at) {
  T* const parameter = static_cast<T*>(tensor.parameter) + at;
  float* const first = tensor.state[0];
  float* const second = tensor.state[1];
  Floats<kWidth> p = load<kWidth>(parameter), a, b;
  const Floats<kWidth> g = load<kWidth>(static_cast<const T*>(tensor.gradient) + at);
  if (first != nullptr) a = load<kWidth>(first + at);
  if (second != nullptr) b = load<kWidth>(second + at);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) p[i] = updated(rule, p[i], g[i], a[i], b[i], first != nullptr);
  store(parameter, p);
  if (first != nullptr) store(first + at, a);
  if (second != nullptr) store(second + at, b);
}

template <typename T, typename Rule>
__global__ void __launch_bounds__(kThreads)
    step_kernel(const __grid_constant__ Rule rule, const __grid_constant__ Table table, std::int64_t* __restrict__ flag,
                bool advances) {
  const bool raised = is_raised(flag);
  if (advances && blockIdx.x == 0 && threadIdx.x == 0 && flag != nullptr) ++flag[1];
  if (raised) return;
  const int block = static_cast<int>(blockIdx.x);
  int number = 0;  // of the last tensor that begins at this block or before
#pragma unroll
  for (int step = kTensors / 2; step > 0; step /= 2) number += table.first_block[number + step] <= block ? step : 0;

  const OptimTensor& tensor = table.tensors[number];
  const std::int64_t begin = std::int64_t{block - table.first_block[number]} * kElements;
  const std::int64_t end = min(begin + kElements, tensor.size);
  const auto address = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p); };
  const bool aligned =
      (address(tensor.parameter) | address(tensor.gradient) | address(tensor.state[0]) | address(tensor.state[1])) %
          16 ==
      0;
  constexpr int kWidth = kPack<float>;  // of 16 bits too, whose state is float32: accesses to it leave no gaps
  const std::int64_t packed = aligned ? begin + (end - begin) / kWidth * kWidth : begin;
  for (std::int64_t at = begin + threadIdx.x * kWidth; at < packed; at += kThreads * kWidth) {
    update<T, kWidth>(rule, tensor, at);
  }
  for (std::int64_t at = packed + threadIdx.x; at < end; at += kThreads) update<T, 1>(rule, tensor, at);
}

// In launches of kTensors; at least one where a step is to be counted.
template <typename T, typename Rule>
simt::Status step_all(const Rule& rule, const std::vector<OptimTensor>& tensors, std::int64_t* flag, bool advances,
                      simt::Stream stream) {
  std::size_t next = 0;
  do {
    Table table{};
    std::int64_t blocks = 0;
    int count = 0;
    for (; next < tensors.size() && count < kTensors; ++next) {
      const OptimTensor& tensor = tensors[next];
      const std::int64_t more = blocks_of(kElements, tensor.size);
      if (more == 0) continue;
      if (blocks + more >= 0x7fffffff) break;
      table.tensors[count] = tensor;
      table.first_block[count++] = static_cast<std::int32_t>(blocks);
      blocks += more;
    }
    const bool is_last = next == tensors.size();
    if (blocks == 0 && !(advances && flag != nullptr)) return simt::kSuccess;
    if (blocks == 0) {  // one for the count alone, of a tensor without elements
      count = blocks = 1;
    }
    std::fill(table.first_block + count, table.first_block + kTensors, 0x7fffffff);
    const simt::Status status = simt::launch(step_kernel<T, Rule>, dim3(static_cast<unsigned>(blocks)), dim3(kThreads),
                                             0, stream, rule, table, flag, advances && is_last);
    if (status != simt::kSuccess) return status;
  } while (next < tensors.size());
  return simt::kSuccess;
}

}  // namespace

template <typename T>
simt::Status sgd_step(const Sgd& rule, const std::vector<OptimTensor>& tensors, std::int64_t* flag, bool advances,
                      simt::Stream stream) {
  return step_all<T>(rule, tensors, flag, advances, stream);
}

template <typename T>
simt::Status adam_step(const Adam& rule, const std::vector<OptimTensor>& tensors, std::int64_t* flag, bool advances,
                       simt::Stream stream) {
  return step_all<T>(rule, tensors, flag, advances, stream);
}

#define GPUCNN_OPTIM(T)                                                                                              \
  template simt::Status sgd_step<T>(const Sgd&, const std::vector<OptimTensor>&, std::int64_t*, bool, simt::Stream); \
  template simt::Status adam_step<T>(const Adam&, const std::vector<OptimTensor>&, std::int64_t*, bool, simt::Stream);
GPUCNN_OPTIM(float)
GPUCNN_OPTIM(simt::half)
GPUCNN_OPTIM(simt::bfloat16)
#undef GPUCNN_OPTIM

}  // namespace gpucnn

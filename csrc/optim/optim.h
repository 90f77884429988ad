// Update rules over many tensors at once: the menu of launchers.
//
// T, the storage type of parameters and gradients: float, simt::half, simt::bfloat16; state is float32. Pointers are
// memory of the machine that the kernels are built for, each tensor's arrays of one size and in one order.
#pragma once

#include "simt/float16.h"
#include "simt/status.h"

#include <cstdint>
#include <vector>

namespace gpucnn {

// One tensor: its parameter, gradient, and up to two arrays of state (velocity; mean and square), null if there is
// none.
struct OptimTensor {
  void* parameter;
  const void* gradient;
  float* state[2];
  std::int64_t size;  // elements, [0, 2^38)
};

struct Sgd {
  float lr, momentum, undampened, weight_decay;  // undampened: 1 - dampening
  bool nesterov;
  bool first;  // the velocity becomes the gradient
};

struct Adam {
  float shrink;        // what a parameter is multiplied by first: 1 - lr * decay, or 1
  float weight_decay;  // of the gradient
  float beta1, rest1;  // rest: 1 - beta
  float beta2, rest2;
  float scale, eps, rate;  // parameter -= rate * mean / (sqrt(square) * scale + eps)
};

// One step of all `tensors`. Changes nothing while `flag` (common/flag.h; may be null) is raised; counts the step there
// if `advances`, which the last call of a step does.
template <typename T>
[[nodiscard]] simt::Status sgd_step(const Sgd& rule, const std::vector<OptimTensor>& tensors, std::int64_t* flag,
                                    bool advances, simt::Stream stream);
template <typename T>
[[nodiscard]] simt::Status adam_step(const Adam& rule, const std::vector<OptimTensor>& tensors, std::int64_t* flag,
                                     bool advances, simt::Stream stream);

}  // namespace gpucnn

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

// One tensor: its parameter, gradient, and what belongs to it, null if there is none.
struct OptimTensor {
  void* parameter;
  const void* gradient;
  float* state[2];    // velocity; mean and square
  float* master;      // float32 copy of a 16-bit parameter, which the step is made of
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

// Under which conditions a step is made. Each pointer may be null.
struct Guard {
  std::int64_t* flag;         // common/flag.h: nothing is changed while it is raised; steps are counted there,
  bool advances;              // this one too, which the last call of a step says
  const float* loss_scale;    // what gradients are to be divided by
  const std::int32_t* found;  // of unscale(): nothing is changed if it is not 0
};

// One step of all `tensors`.
template <typename T>
[[nodiscard]] simt::Status sgd_step(const Sgd& rule, const std::vector<OptimTensor>& tensors, const Guard& guard,
                                    simt::Stream stream);
template <typename T>
[[nodiscard]] simt::Status adam_step(const Adam& rule, const std::vector<OptimTensor>& tensors, const Guard& guard,
                                     simt::Stream stream);

// Whether all gradients, which are the `parameter`s of `tensors`, are finite: found is set to 1 if one is not. Divides
// them by *loss_scale if `divides`.
template <typename T>
[[nodiscard]] simt::Status unscale(const std::vector<OptimTensor>& tensors, const float* loss_scale,
                                   std::int32_t* found, bool divides, simt::Stream stream);

constexpr int kMostFound = 64;  // of next_scale(): optimisers in one step

// What the loss is scaled by next, and after how many steps without trouble that is. next_*: as scale and clean.
struct ScaleRule {
  float growth, backoff;
  std::int32_t interval;
};
[[nodiscard]] simt::Status next_scale(const ScaleRule& rule, const float* scale, const std::int32_t* clean,
                                      const std::vector<const std::int32_t*>& found, float* next_scale,
                                      std::int32_t* next_clean, simt::Stream stream);

}  // namespace gpucnn

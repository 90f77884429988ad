// Rectifiers: piecewise linear activations and exponential linear units, as functions of single elements. For device
// code.
//
// The formulas are gpucnn/reference/rectifier.py's. `saved` is the forward's output where that alone determines the
// slope, else its input.
#pragma once

#include "elementwise/number.h"
#include "simt/simt.h"

namespace gpucnn {

struct Relu {
  __device__ float operator()(float x) const { return larger(x, 0.0f); }
};
// Of softshrink too: a NaN in y lets dy pass, as in PyTorch.
struct ReluGrad {
  __device__ float operator()(float dy, float y) const { return y != 0.0f ? dy : 0.0f; }
};

struct Hardtanh {
  float least, greatest;
  __device__ float operator()(float x) const { return clip(x, least, greatest); }
};
struct HardtanhGrad {
  float least, greatest;
  __device__ float operator()(float dy, float y) const { return y > least && y < greatest ? dy : 0.0f; }
};

struct LeakyRelu {
  float slope;
  __device__ float operator()(float x) const { return x > 0.0f ? x : x * slope; }
};
struct LeakyReluGrad {
  float slope;
  __device__ float operator()(float dy, float saved) const { return saved > 0.0f ? dy : dy * slope; }
};

struct Threshold {
  float threshold, value;
  __device__ float operator()(float x) const { return x <= threshold ? value : x; }
};
struct ThresholdGrad {
  float threshold;
  __device__ float operator()(float dy, float x) const { return x <= threshold ? 0.0f : dy; }
};

struct Hardshrink {
  float lambd;
  __device__ float operator()(float x) const { return fabsf(x) <= lambd ? 0.0f : x; }
};
struct HardshrinkGrad {
  float lambd;
  __device__ float operator()(float dy, float x) const { return fabsf(x) <= lambd ? 0.0f : dy; }
};

struct Softshrink {
  float lambd;
  __device__ float operator()(float x) const { return x - clip(x, -lambd, lambd); }
};

// scale * x where x > 0, else scale * alpha * (exp(input_scale * x) - 1): elu, celu and selu.
struct Elu {
  float alpha, scale, input_scale;
  __device__ float operator()(float x) const { return (x <= 0.0f ? expm1f(x * input_scale) * alpha : x) * scale; }
};
// Below 0 the slope over `scale` is alpha * input_scale * exp(input_scale * x), which follows from y too.
struct EluGradOfOutput {
  float alpha, scale, input_scale;
  __device__ float operator()(float dy, float y) const {
    return (y <= 0.0f ? (y / scale + alpha) * input_scale * dy : dy) * scale;
  }
};
struct EluGradOfInput {
  float alpha, scale, input_scale;
  __device__ float operator()(float dy, float x) const {
    return (x <= 0.0f ? expf(x * input_scale) * (alpha * input_scale) * dy : dy) * scale;
  }
};

struct Prelu {
  __device__ float operator()(float x, float weight) const { return x > 0.0f ? x : x * weight; }
};
struct PreluGrad {
  __device__ float operator()(float dy, float x, float weight) const { return x > 0.0f ? dy : dy * weight; }
};
// What each element adds to the gradient of its weight.
struct PreluWeightGrad {
  __device__ float operator()(float dy, float x) const { return x > 0.0f ? 0.0f : dy * x; }
};

}  // namespace gpucnn

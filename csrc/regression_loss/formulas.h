// The losses of gpucnn/reference/regression_loss.py, each as three functions of an input x and a target t: the
// element's loss and its slopes by x and by t. For .cu files. NaN comes through all of them, except l1's slope, which
// is 0 then.
#pragma once

#include "simt/simt.h"

namespace gpucnn::loss {

// What a formula knows beside x and t.
struct Constants {
  float delta, scale;  // of huber
  float weight;        // of bce_with_logits' positive part
  bool is_weighted;
};

struct Mse {
  __device__ __forceinline__ static float value(float x, float t, const Constants&) { return (x - t) * (x - t); }
  __device__ __forceinline__ static float by_x(float x, float t, const Constants&) { return 2.0f * (x - t); }
  __device__ __forceinline__ static float by_t(float x, float t, const Constants&) { return -2.0f * (x - t); }
};

struct L1 {
  __device__ __forceinline__ static float value(float x, float t, const Constants&) { return fabsf(x - t); }
  __device__ __forceinline__ static float by_x(float x, float t, const Constants&) {
    return x > t ? 1.0f : x < t ? -1.0f : 0.0f;
  }
  __device__ __forceinline__ static float by_t(float x, float t, const Constants& c) { return -by_x(x, t, c); }
};

// scale * d^2 / 2 where d = |x - t| is below delta, else scale * delta * (d - delta / 2).
struct Huber {
  __device__ __forceinline__ static float value(float x, float t, const Constants& c) {
    const float distance = fabsf(x - t), half = 0.5f * fminf(distance, c.delta);
    return (distance - half) * (half * (2.0f * c.scale));
  }
  __device__ __forceinline__ static float by_x(float x, float t, const Constants& c) {
    const float difference = x - t;
    return (difference > c.delta ? c.delta : difference < -c.delta ? -c.delta : difference) * c.scale;
  }
  __device__ __forceinline__ static float by_t(float x, float t, const Constants& c) { return -by_x(x, t, c); }
};

// -(t log(x) + (1 - t) log(1 - x)), each logarithm at least -100, the slope's divisor at least 1e-12.
struct Bce {
  __device__ __forceinline__ static float at_least(float value, float least) { return value < least ? least : value; }
  __device__ __forceinline__ static float value(float x, float t, const Constants&) {
    const float positive = at_least(logf(x), -100.0f), negative = at_least(log1pf(-x), -100.0f);
    return -((positive - negative) * t + negative);
  }
  __device__ __forceinline__ static float by_x(float x, float t, const Constants&) {
    return (x - t) / at_least((1.0f - x) * x, 1e-12f);
  }
  __device__ __forceinline__ static float by_t(float x, float, const Constants&) { return log1pf(-x) - logf(x); }
  __device__ __forceinline__ static bool is_probability(float x) { return x >= 0.0f && x <= 1.0f; }
};

// (1 - t) x + (1 + (w - 1) t) log(1 + exp(-x)).
struct BceWithLogits {
  __device__ __forceinline__ static float softplus_of_negative(float x) {
    return log1pf(expf(-fabsf(x))) - fminf(x, 0.0f);
  }
  __device__ __forceinline__ static float value(float x, float t, const Constants& c) {
    const float factor = c.is_weighted ? (c.weight - 1.0f) * t + 1.0f : 1.0f;
    return softplus_of_negative(x) * factor + (1.0f - t) * x;
  }
  __device__ __forceinline__ static float by_x(float x, float t, const Constants& c) {
    const float probability = 1.0f / (1.0f + expf(-x));
    return c.is_weighted ? probability * ((c.weight - 1.0f) * t + 1.0f) - c.weight * t : probability - t;
  }
  __device__ __forceinline__ static float by_t(float x, float, const Constants& c) {
    return c.is_weighted ? softplus_of_negative(x) * (c.weight - 1.0f) - x : -x;
  }
};

// t (log(t) - x), and 0 of a finite x for t = 0.
struct KlDiv {
  __device__ __forceinline__ static float value(float x, float t, const Constants&) {
    return (t != 0.0f ? logf(t) * t : 0.0f) - t * x;
  }
  __device__ __forceinline__ static float by_x(float, float t, const Constants&) { return -t; }
  __device__ __forceinline__ static float by_t(float x, float t, const Constants&) { return logf(t) + 1.0f - x; }
};

// exp(t) (t - x).
struct KlDivLog {
  __device__ __forceinline__ static float value(float x, float t, const Constants&) { return (t - x) * expf(t); }
  __device__ __forceinline__ static float by_x(float, float t, const Constants&) { return -expf(t); }
  __device__ __forceinline__ static float by_t(float x, float t, const Constants&) { return (t - x + 1.0f) * expf(t); }
};

}  // namespace gpucnn::loss

// Smooth activations, sigmoids and self-gated units, and the gradients of all that need no parameters of an array, as
// functions of single elements. For device code.
//
// The formulas are gpucnn/reference/activation.py's. A gradient takes the forward's output y where that alone
// determines the slope, else its input x.
#pragma once

#include "elementwise/number.h"
#include "simt/simt.h"

namespace gpucnn {

struct Sigmoid {
  __device__ float operator()(float x) const { return sigmoid_of(x); }
};
struct SigmoidGrad {
  __device__ float operator()(float dy, float y) const { return (1.0f - y) * y * dy; }
};

struct Tanh {
  __device__ float operator()(float x) const { return tanhf(x); }
};
struct TanhGrad {
  __device__ float operator()(float dy, float y) const { return (1.0f - y * y) * dy; }
};

struct Tanhshrink {
  __device__ float operator()(float x) const { return x - tanhf(x); }
};
struct TanhshrinkGrad {
  __device__ float operator()(float dy, float x) const {
    const float t = tanhf(x);
    return t * t * dy;
  }
};

struct Softsign {
  __device__ float operator()(float x) const { return x / (fabsf(x) + 1.0f); }
};
// dy / (1 + |x|)^2, and 1 / (1 + |x|) is 1 - |y|.
struct SoftsignGrad {
  __device__ float operator()(float dy, float y) const {
    const float rest = 1.0f - fabsf(y);
    return rest * rest * dy;
  }
};

// log(1 + exp(-|x|)), between 0 and log 2.
__device__ __forceinline__ float log1p_exp(float x) {
  return log1pf(expf(-fabsf(x)));
}

struct LogSigmoid {
  __device__ float operator()(float x) const { return smaller(x, 0.0f) - log1p_exp(x); }
};
// dy * sigmoid(-x), which is 1 - exp(y).
struct LogSigmoidGrad {
  __device__ float operator()(float dy, float y) const { return -(expm1f(y) * dy); }
};

// log(1 + exp(beta * x)) / beta, and x itself where beta * x exceeds the threshold.
struct Softplus {
  float beta, threshold;
  __device__ float operator()(float x) const {
    const float scaled = x * beta;
    return scaled > threshold ? x : (log1p_exp(scaled) + larger(scaled, 0.0f)) / beta;
  }
};
struct SoftplusGrad {
  float beta, threshold;
  __device__ float operator()(float dy, float x) const {
    const float scaled = x * beta;
    return scaled > threshold ? dy : sigmoid_of(scaled) * dy;
  }
};

struct Hardsigmoid {
  __device__ float operator()(float x) const { return clip(x + 3.0f, 0.0f, 6.0f) / 6.0f; }
};
struct HardsigmoidGrad {
  __device__ float operator()(float dy, float x) const { return (fabsf(x) < 3.0f ? dy : 0.0f) / 6.0f; }
};

struct Silu {
  __device__ float operator()(float x) const { return x / (1.0f + expf(-x)); }
};
struct SiluGrad {
  __device__ float operator()(float dy, float x) const {
    const float s = sigmoid_of(x);
    return ((1.0f - s) * x + 1.0f) * s * dy;
  }
};

// The quotient before it meets x, which may be as large as numbers get.
struct Hardswish {
  __device__ float operator()(float x) const { return clip(x + 3.0f, 0.0f, 6.0f) / 6.0f * x; }
};
// dy * (x/3 + 1/2) within (-3, 3), 0 up to -3, dy from 3 on.
struct HardswishGrad {
  __device__ float operator()(float dy, float x) const {
    return x <= -3.0f ? 0.0f : x < 3.0f ? (x / 3.0f + 0.5f) * dy : dy;
  }
};

// From here on tanh(softplus(x)) rounds to 1, and nothing in its formula overflows up to here.
inline constexpr float kMishLinear = 20.0f;

// x * tanh(softplus(x)); with e = exp(x) and n = e * (e + 2) the factor is n / (n + 2).
struct Mish {
  __device__ float operator()(float x) const {
    const float e = expf(smaller(x, kMishLinear)), n = e * (e + 2.0f);
    return n / (n + 2.0f) * x;
  }
};
// dy * (t + x * sigmoid(x) * (1 - t^2)) with t = n / (n + 2): the second term is 4 x e (e + 1) / (n + 2)^2.
struct MishGrad {
  __device__ float operator()(float dy, float x) const {
    const float limited = smaller(x, kMishLinear), e = expf(limited), n = e * (e + 2.0f), share = n + 2.0f;
    return (n / share + limited * e * (e + 1.0f) / share / share * 4.0f) * dy;
  }
};

inline constexpr float kRootOfHalf = 0.70710678118654752f;
inline constexpr float kBellTop = 0.39894228040143268f;  // 1 / sqrt(2 pi)
inline constexpr float kNoTail = 15.0f;                  // from here on exp(-x^2 / 2) rounds to 0

// 1 - Phi(t) for t >= 0, Phi the normal distribution function.
__device__ __forceinline__ float normal_tail(float t) {
  return 0.5f * erfcf(t * kRootOfHalf);
}

// x * Phi(x): max(x, 0) - |x| * (1 - Phi(|x|)).
struct Gelu {
  __device__ float operator()(float x) const {
    const float limited = smaller(fabsf(x), kNoTail);
    return larger(x, 0.0f) - normal_tail(limited) * limited;
  }
};
// dy * (Phi(x) + x * Phi'(x)).
struct GeluGrad {
  __device__ float operator()(float dy, float x) const {
    const float limited = smaller(fabsf(x), kNoTail), tail = normal_tail(limited);
    const float bell = expf(limited * limited * -0.5f) * kBellTop * x;
    return ((x < 0.0f ? tail : 1.0f - tail) + bell) * dy;
  }
};

inline constexpr float kGeluInner = 0.79788456080286536f;  // sqrt(2 / pi)
inline constexpr float kGeluCube = 0.044715f;
inline constexpr float kGeluFlat = 10.0f;  // beyond it the tangent rounds to 1 and its slope to 0

__device__ __forceinline__ float gelu_tangent(float x) {
  return tanhf((x * x * kGeluCube + 1.0f) * x * kGeluInner);
}

// x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))).
struct GeluTanh {
  __device__ float operator()(float x) const { return (gelu_tangent(x) + 1.0f) * 0.5f * x; }
};
// dy / 2 * (1 + t + x * (1 - t^2) * sqrt(2 / pi) * (1 + 3 * 0.044715 * x^2)) with t the tangent.
struct GeluTanhGrad {
  __device__ float operator()(float dy, float x) const {
    const float limited = clip(x, -kGeluFlat, kGeluFlat), t = gelu_tangent(limited);
    const float inner = (limited * limited * (3.0f * kGeluCube) + 1.0f) * limited * (1.0f - t * t) * kGeluInner;
    return (t + 1.0f + inner) * dy * 0.5f;
  }
};

// a * sigmoid(b), both halves of a gated linear unit's input; its gradient by a is Gated(dy, b).
struct Gated {
  __device__ float operator()(float a, float b) const { return sigmoid_of(b) * a; }
};
// By b.
struct GateGrad {
  __device__ float operator()(float dy, float a, float b) const {
    const float s = sigmoid_of(b);
    return s * (1.0f - s) * a * dy;
  }
};

}  // namespace gpucnn

// Gradients of extrema, bounds and reductions, element by element. Layout, blocks, threads, limits and the bound are
// those of map.h.
#include "elementwise/map.h"
#include "elementwise/number.h"

namespace gpucnn {
namespace {

// What of dy goes to a in the maximum of a and b: all, half where they are equal, none where it is less.
struct MaximumGrad {
  __device__ float operator()(float dy, float a, float b) const { return a < b ? 0.0f : a == b ? dy * 0.5f : dy; }
};

struct ClampGrad {
  float least, greatest;
  __device__ float operator()(float dy, float x) const { return x >= least && x <= greatest ? dy : 0.0f; }
};

// dy * exp(x - y), y the logarithm of the sum of exponentials; 0 where all x are -infinity.
struct LogSumExpGrad {
  __device__ float operator()(float dy, float x, float y) const { return dy * expf(x - (y == -INFINITY ? 0.0f : y)); }
};

// y = |x|_2: dy * x / y, and 0 where y is 0.
struct Norm2Grad {
  __device__ float operator()(float dy, float x, float y) const { return x * (y == 0.0f ? 0.0f : dy / y); }
};

struct Norm1Grad {
  __device__ float operator()(float dy, float x) const {
    return (x != x ? x : static_cast<float>((x > 0.0f) - (x < 0.0f))) * dy;
  }
};

// dy * sign(x) * (|x| / y) ** (p - 1), and 0 where the norm y is 0, and where x is and the slope would be infinite.
struct NormGrad {
  float p;
  __device__ float operator()(float dy, float x, float y) const {
    const float sign = x != x ? x : static_cast<float>((x > 0.0f) - (x < 0.0f));
    const bool flat = y == 0.0f || (x == 0.0f && p < 1.0f);
    return flat ? 0.0f : dy * sign * powf(fabsf(x) / y, p - 1.0f);
  }
};

}  // namespace

void add_gradients(MapFunctions& functions) {
  functions.insert(functions.end(), {walked<MaximumGrad>("maximum_grad"), flat<ClampGrad>("clamp_grad"),
                                     walked<LogSumExpGrad>("logsumexp_grad"), walked<Norm2Grad>("norm_2_grad"),
                                     walked<Norm1Grad>("norm_1_grad"), walked<NormGrad>("norm_grad")});
}

}  // namespace gpucnn

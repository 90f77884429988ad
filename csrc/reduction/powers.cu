// Sums of squares and other powers, for norms, and of squared deviations, for variances. Layout, blocks, threads,
// limits and the bound are those of reduce.h.
#include "reduction/reduce.h"

namespace gpucnn {
namespace {

struct SumOfSquares : Adding {
  __device__ static float term(float x, float, float) { return x * x; }
};

// |x|^exponent; for an exponent of 0 the number of x that are not 0.
struct SumOfPowers : Adding {
  __device__ static float term(float x, float, float exponent) {
    if (exponent == 0.0f) return x != 0.0f ? 1.0f : 0.0f;
    const float size = fabsf(x);
    return exponent == 1.0f ? size : powf(size, exponent);
  }
};

struct SumOfSquaredDeviations : Adding {
  __device__ static float term(float x, float centre, float) { return (x - centre) * (x - centre); }
};

}  // namespace

void add_powers(ReduceFunctions& functions) {
  functions.insert(functions.end(), {reduction<SumOfSquares>("sum_of_squares"), reduction<SumOfPowers>("sum_of_powers"),
                                     reduction<SumOfSquaredDeviations>("sum_of_squared_deviations", true)});
}

}  // namespace gpucnn

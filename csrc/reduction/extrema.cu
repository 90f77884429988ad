// The largest, the smallest, and the product. Layout, blocks, threads, limits and the bound are those of reduce.h.
#include "elementwise/number.h"
#include "reduction/reduce.h"

namespace gpucnn {
namespace {

struct Plain {
  __device__ static float term(float x, float, float) { return x; }
  __device__ static float centre(float value) { return value; }
};

// NaN where there is one.
struct Largest : Plain {
  static constexpr float kStart = -INFINITY;
  __device__ static float combine(float a, float b) { return larger(a, b); }
  static simt::Status finish_partials(const ReduceArguments& a, simt::Stream stream) {
    return detail::reduce_partials<Largest>(a, stream);
  }
};

struct Smallest : Plain {
  static constexpr float kStart = INFINITY;
  __device__ static float combine(float a, float b) { return smaller(a, b); }
  static simt::Status finish_partials(const ReduceArguments& a, simt::Stream stream) {
    return detail::reduce_partials<Smallest>(a, stream);
  }
};

struct Product : Plain {
  static constexpr float kStart = 1.0f;
  __device__ static float combine(float a, float b) { return a * b; }
  static simt::Status finish_partials(const ReduceArguments& a, simt::Stream stream) {
    return detail::reduce_partials<Product>(a, stream);
  }
};

}  // namespace

void add_extrema(ReduceFunctions& functions) {
  functions.insert(functions.end(),
                   {reduction<Largest>("largest"), reduction<Smallest>("smallest"), reduction<Product>("product")});
}

}  // namespace gpucnn

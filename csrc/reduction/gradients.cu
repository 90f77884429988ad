// Gradients of variances and products, element by element (those of other reductions are functions of map.h):
//
//   var_grad        dx[o,r,i] = (x[o,r,i] - mean[o,i]) * scale[o,i]
//   extremum_grad   dx[o,r,i] = dy[o,i] / count[o,i] where x[o,r,i] is y[o,i], else 0
//   prod_grad       dx[o,r,i] = dy[o,i] * the product of x[o,q,i] over q other than r
//
// Layout   x, dx (outer, reduced, inner); all others (outer, inner).
// Thread   the first two: one element a pass over the grid, neighbours own neighbouring ones.
// Warp     prod_grad: one row (o,i); lanes own every 32nd of its elements, twice: to count zeros, infinities, NaN and
//          signs and multiply all others, in float64, then to divide each out again. Neighbouring lanes read
//          neighbouring elements where inner is 1, else elements `inner` apart.
// Limits   outer * reduced * inner below 2^38.
// Bound    memory: the first two 8 bytes an element of float32, N32 C256 56x56, 206 MB, 69 us at the 3.0 TB/s that an
// H100
//          copies at; prod_grad 12, each in sectors of 32 where inner is not 1.
// Measured not run on hardware yet.
#include "common/grid.h"
#include "common/index.h"
#include "common/reduce.h"
#include "reduction/reduction.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kThreads = 256;

// (x - mean) * scale, with scale = 2 dy / divisor, or for a root y of the variance dy / (divisor y), 0 where y is 0.
struct VarGrad {
  float divisor;
  bool root;

  __device__ float operator()(float dy, float x, float y, float mean) const {
    float scale = dy / divisor;
    if (root) {
      scale = y == 0.0f ? 0.0f : scale / y;
    } else {
      scale *= 2.0f;
    }
    return (x - mean) * scale;
  }
};

// dy in equal parts to the `count` elements that are equal to the extremum y; NaN is equal to NaN.
struct ExtremumGrad {
  __device__ float operator()(float dy, float x, float y, float count) const {
    const bool chosen = x == y || (x != x && y != y);
    return (chosen ? 1.0f : 0.0f) * (dy / count);
  }
};

template <typename F, typename T>
__global__ void __launch_bounds__(kThreads)
    spread_kernel(const F f, const T* __restrict__ dy, const T* __restrict__ x, const T* __restrict__ y,
                  const float* __restrict__ statistic, T* __restrict__ dx, std::int64_t size, Divisor reduced,
                  Divisor inner) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < size; i += step) {  // [0, size)
    const Quotient at = inner.divide(i);
    const std::int64_t result = reduced.divide(at.whole).whole * inner.value + at.rest;
    dx[i] = simt::from_float<T>(
        f(simt::to_float(dy[result]), simt::to_float(x[i]), simt::to_float(y[result]), statistic[result]));
  }
}

template <typename F, typename T>
simt::Status spread(const F& f, const T* dy, const T* x, const T* y, const float* statistic, T* dx, const Extents& e,
                    simt::Stream stream) {
  const std::int64_t size = e.outer * e.reduced * e.inner;
  unsigned blocks = 0;
  if (const auto status = one_wave(size, kThreads, &blocks); status != simt::kSuccess) return status;
  return simt::launch(spread_kernel<F, T>, dim3(blocks), dim3(kThreads), 0, stream, f, dy, x, y, statistic, dx, size,
                      divisor_of(e.reduced), divisor_of(e.inner));
}

// The product of the factors, those that are neither 0, infinite nor NaN, and how many there are of the others.
struct Factors {
  double product;
  int zeros, infinities, nans, negatives;
};

__device__ __forceinline__ void count(Factors& factors, float x, int by) {
  factors.zeros += x == 0.0f ? by : 0;
  factors.infinities += fabsf(x) == INFINITY ? by : 0;
  factors.nans += x != x ? by : 0;
  factors.negatives += x < 0.0f || (x == 0.0f && 1.0f / x < 0.0f) ? by : 0;
}

__device__ __forceinline__ bool is_factor(float x) {
  return x != 0.0f && fabsf(x) < INFINITY;
}

__device__ __forceinline__ float product_of(const Factors& f) {
  if (f.nans > 0 || (f.infinities > 0 && f.zeros > 0)) return NAN;
  const float size = f.infinities > 0 ? INFINITY : f.zeros > 0 ? 0.0f : static_cast<float>(fabs(f.product));
  return f.negatives % 2 != 0 ? -size : size;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    prod_grad_kernel(const T* __restrict__ dy, const T* __restrict__ x, T* __restrict__ dx, std::int64_t rows,
                     std::int64_t reduced, Divisor inner) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t step = std::int64_t{gridDim.x} * (kThreads / 32);
  const std::int64_t first = std::int64_t{blockIdx.x} * (kThreads / 32) + threadIdx.x / 32;
  for (std::int64_t row = first; row < rows; row += step) {  // [0, rows), the same for a warp
    const Quotient at = inner.divide(row);
    const std::int64_t begin = at.whole * reduced * inner.value + at.rest;
    Factors all{1.0, 0, 0, 0, 0};
    for (std::int64_t r = lane; r < reduced; r += 32) {
      const float value = simt::to_float(x[begin + r * inner.value]);
      count(all, value, 1);
      if (is_factor(value)) all.product *= static_cast<double>(value);
    }
    const auto add = [](int a, int b) { return a + b; };
    all.product = warp_reduce(all.product, [](double a, double b) { return a * b; });
    all.zeros = warp_reduce(all.zeros, add);
    all.infinities = warp_reduce(all.infinities, add);
    all.nans = warp_reduce(all.nans, add);
    all.negatives = warp_reduce(all.negatives, add);
    const float slope = simt::to_float(dy[row]);
    for (std::int64_t r = lane; r < reduced; r += 32) {
      const float value = simt::to_float(x[begin + r * inner.value]);
      Factors others = all;
      count(others, value, -1);
      if (is_factor(value)) others.product /= static_cast<double>(value);
      dx[begin + r * inner.value] = simt::from_float<T>(slope * product_of(others));
    }
  }
}

}  // namespace

template <typename T>
simt::Status var_grad(const T* dy, const T* x, const T* y, const float* mean, T* dx, const Extents& e, float divisor,
                      bool root, simt::Stream stream) {
  return spread(VarGrad{divisor, root}, dy, x, y, mean, dx, e, stream);
}

template <typename T>
simt::Status extremum_grad(const T* dy, const T* x, const T* y, const float* counts, T* dx, const Extents& e,
                           simt::Stream stream) {
  return spread(ExtremumGrad{}, dy, x, y, counts, dx, e, stream);
}

template <typename T>
simt::Status prod_grad(const T* dy, const T* x, T* dx, const Extents& e, simt::Stream stream) {
  const std::int64_t rows = e.outer * e.inner;
  unsigned blocks = 0;
  if (const auto status = one_wave(rows * 32, kThreads, &blocks); status != simt::kSuccess) return status;
  return simt::launch(prod_grad_kernel<T>, dim3(blocks), dim3(kThreads), 0, stream, dy, x, dx, rows, e.reduced,
                      divisor_of(e.inner));
}

template simt::Status var_grad(const float*, const float*, const float*, const float*, float*, const Extents&, float,
                               bool, simt::Stream);
template simt::Status extremum_grad(const float*, const float*, const float*, const float*, float*, const Extents&,
                                    simt::Stream);
template simt::Status prod_grad(const float*, const float*, float*, const Extents&, simt::Stream);
template simt::Status var_grad(const simt::half*, const simt::half*, const simt::half*, const float*, simt::half*,
                               const Extents&, float, bool, simt::Stream);
template simt::Status extremum_grad(const simt::half*, const simt::half*, const simt::half*, const float*, simt::half*,
                                    const Extents&, simt::Stream);
template simt::Status prod_grad(const simt::half*, const simt::half*, simt::half*, const Extents&, simt::Stream);
template simt::Status var_grad(const simt::bfloat16*, const simt::bfloat16*, const simt::bfloat16*, const float*,
                               simt::bfloat16*, const Extents&, float, bool, simt::Stream);
template simt::Status extremum_grad(const simt::bfloat16*, const simt::bfloat16*, const simt::bfloat16*, const float*,
                                    simt::bfloat16*, const Extents&, simt::Stream);
template simt::Status prod_grad(const simt::bfloat16*, const simt::bfloat16*, simt::bfloat16*, const Extents&,
                                simt::Stream);

}  // namespace gpucnn

// Gradients of variances and products, element by element (those of other reductions are functions of map.h):
//
//   var_grad        dx[o,r,i] = (x[o,r,i] - mean[o,i]) * scale[o,i]
//   extremum_grad   dx[o,r,i] = dy[o,i] / count[o,i] where x[o,r,i] is y[o,i], else 0
//   prod_grad       dx[o,r,i] = dy[o,i] * the product of x[o,q,i] over q other than r
//
// Layout   x, dx (outer, reduced, inner); all others (outer, inner).
// Thread   the first two: one element a pass over the grid, neighbours own neighbouring ones.
// Block    prod_grad: some rows (o,i), as many neighbours as fill a warp where inner is not 1, and as many threads for
//          each as are left. They go over their elements twice: to count zeros, infinities, NaN and signs and multiply
//          all others, in float64, which a tree in shared memory puts together, then to divide each out again.
//          Neighbouring threads read neighbouring elements, of a row or of neighbouring ones.
// Limits   outer * reduced * inner below 2^38.
// Bound    memory: the first two 8 bytes an element of float32, N32 C256 56x56, 206 MB, 69 us at the 3.0 TB/s that an
//          H100 copies at; prod_grad 12, of which 4 come from the caches.
// Measured not run on hardware yet.
#include "common/grid.h"
#include "common/index.h"
#include "reduction/reduction.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kThreads = 256;
constexpr int kResident = 4;  // blocks of a multiprocessor: 64 registers a thread, where ptxas would rather spill

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

// How the threads of a block share rows (o,i): `across` neighbours, a power of 2, with kThreads / across threads each.
struct Strips {
  std::int64_t reduced, rows;  // rows that are neighbours: outer where inner is 1, else inner
  std::int64_t items;          // of `across` rows
  Divisor tiles;               // items that make up the neighbours
  int across, down;
  bool beside;  // whether threads side by side have rows side by side, or elements of a row
};

template <typename T>
__global__ void __launch_bounds__(kThreads, kResident)
    prod_grad_kernel(const T* __restrict__ dy, const T* __restrict__ x, T* __restrict__ dx, const Strips p) {
  SIMT_SHARED(double, products, [kThreads]);
  SIMT_SHARED(int, counts, [4][kThreads]);
  const int thread = static_cast<int>(threadIdx.x);
  const int mine = p.beside ? thread & (p.across - 1) : thread / p.down;  // [0, across)
  const int first = p.beside ? thread / p.across : thread & (p.down - 1);
  const int apart = p.beside ? p.across : 1;  // threads of a row from one another
  const std::int64_t step = p.beside ? p.rows : 1;
  for (std::int64_t item = blockIdx.x; item < p.items; item += gridDim.x) {
    const Quotient tile = p.tiles.divide(item);
    const std::int64_t row = std::int64_t{tile.rest} * p.across + mine;  // of the neighbours
    const bool is_row = row < p.rows;
    const std::int64_t begin = tile.whole * p.reduced * p.rows + (p.beside ? row : row * p.reduced);
    Factors all{1.0, 0, 0, 0, 0};
    for (std::int64_t r = first; r < (is_row ? p.reduced : 0); r += p.down) {
      const float value = simt::to_float(x[begin + r * step]);
      count(all, value, 1);
      if (is_factor(value)) all.product *= static_cast<double>(value);
    }
    for (int half = p.down / 2;; half /= 2) {
      __syncthreads();  // what was read before may be overwritten
      products[thread] = all.product;
      counts[0][thread] = all.zeros;
      counts[1][thread] = all.infinities;
      counts[2][thread] = all.nans;
      counts[3][thread] = all.negatives;
      __syncthreads();
      if (half == 0) break;
      const int other = thread + half * apart;
      if (first < half) {
        all.product *= products[other];
        all.zeros += counts[0][other];
        all.infinities += counts[1][other];
        all.nans += counts[2][other];
        all.negatives += counts[3][other];
      }
    }
    const int leader = thread - first * apart;
    all = {products[leader], counts[0][leader], counts[1][leader], counts[2][leader], counts[3][leader]};
    if (is_row && p.reduced > 0) {
      const float slope = simt::to_float(dy[tile.whole * p.rows + row]);
      for (std::int64_t r = first; r < p.reduced; r += p.down) {
        const float value = simt::to_float(x[begin + r * step]);
        Factors others = all;
        count(others, value, -1);
        if (is_factor(value)) others.product /= static_cast<double>(value);
        dx[begin + r * step] = simt::from_float<T>(slope * product_of(others));
      }
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
  const bool beside = e.inner > 1;
  const std::int64_t rows = beside ? e.inner : e.outer;
  int down = beside ? kThreads / 32 : 1;
  while (down < kThreads && (beside ? kThreads / down >= 2 * rows : down < e.reduced)) down *= 2;
  const int across = kThreads / down;
  const std::int64_t tiles = blocks_of(across, rows), items = (beside ? e.outer : 1) * tiles;
  const Strips strips{e.reduced, rows, items, divisor_of(tiles), across, down, beside};
  unsigned blocks = 0;
  if (const auto status = one_wave(items * kThreads, kThreads, &blocks); status != simt::kSuccess) return status;
  return simt::launch(prod_grad_kernel<T>, dim3(blocks), dim3(kThreads), 0, stream, dy, x, dx, strips);
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

// Layer norm over rows: y = (x - mean) * inverse * weight + bias, inverse = 1 / sqrt(variance + eps), and
// dx = inverse * (g - mean(g) - z * mean(g * z)) with g = dy * weight, z = (x - mean) * inverse, means over a row.
//
// Differences are taken from a row's first number, so that a mean that is large beside the spread costs no digits; a
// long row's squares are about means of parts of it, which are merged (merge.h). The mean is kept in double precision.
//
// Layout   x, y, dy, dx (rows,columns), weight, bias (columns,), mean, inverse (rows,).
// Block    256 threads: eight rows at a time where a row has 1,024 columns or fewer, one where it has more.
// Warp     of a short row all columns, kept in registers: memory is read once. A long row is read twice, the second
//          time from the caches if it fits them.
// Thread   packs of four, 16 bytes of weights and biases, 32 lanes (256 threads) apart; single elements where a row is
//          no whole number of packs or the memory is not aligned.
// Limits   columns in [0, 2^31), rows * columns below 2^60. Few long rows leave multiprocessors without work.
// Sums     a thread's in the order of the columns, then a butterfly: a row's bits depend on it alone.
// Bound    memory: forward x and y, 8 bytes an element of float32, backward dy, x and dx, 12. On an H100 (copy 3.0
//          TB/s) N32 C256 56x56 in rows of 256, 103 MB, take 69 us forward and 103 us backward; half of it in 16 bits.
// Measured not run on hardware yet.
#include "common/grid.h"
#include "common/rows.h"
#include "norm/merge.h"
#include "row_norm/row_norm.h"

#include <cstdint>
#include <type_traits>

namespace gpucnn {
namespace {

constexpr int kOfPack = 4;  // elements, of 16 bits too: what belongs to columns is float32

// body(pack, pack of another row, column) for each pack that the thread owns.
template <typename Row, typename Body>
__device__ __forceinline__ void packs_of(const Row& row, const Row& other, Body body) {
  constexpr int kWidth = Row::kWidth;
  if constexpr (Row::kThreads == 32) {
    row.each_pack([&](int i, int column) {
      Floats<kWidth> pack, beside;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        pack[j] = row.held[i + j];
        beside[j] = other.held[i + j];
      }
      body(pack, beside, column);
    });
  } else {
    row.each_pack(
        [&](int column) { body(load<kWidth>(row.from + column), load<kWidth>(other.from + column), column); });
  }
}

// One factor or term for each of the pack's columns; `otherwise` where there are none.
template <int kWidth>
__device__ __forceinline__ Floats<kWidth> of_columns(const float* numbers, int column, float otherwise) {
  Floats<kWidth> pack;
  if (numbers) {
    pack = load<kWidth>(numbers + column);
  } else {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) pack[j] = otherwise;
  }
  return pack;
}

struct Moments {
  float mean, var;  // of the differences from the row's first number
};

template <typename Row>
__device__ __forceinline__ Moments moments_of(const Row& row, float first) {
  const float number = static_cast<float>(row.columns);
  constexpr int kWidth = Row::kWidth;
  if constexpr (Row::kThreads == 32) {
    float sum = 0.0f, squares = 0.0f;
    row.each([&](float value, int) { sum += value - first; });
    const float mean = Row::sum(sum) / number;
    row.each([&](float value, int) { squares += (value - first - mean) * (value - first - mean); });
    return {mean, Row::sum(squares) / number};
  } else {
    float count = 0.0f, mean = 0.0f, squares = 0.0f;
    row.packs([&](const Floats<kWidth>& pack, int) {
      float sum = 0.0f, square = 0.0f;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) sum += pack[j] - first;
      const float middle = sum * (1.0f / kWidth);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) square += (pack[j] - first - middle) * (pack[j] - first - middle);
      merge(mean, squares, middle, square, Share(count, static_cast<float>(kWidth)));
      count += kWidth;
    });
    const float whole = Row::sum(count * mean) / number;
    return {whole, Row::sum(squares + count * ((mean - whole) * (mean - whole))) / number};
  }
}

template <typename Row>
__global__ void __launch_bounds__(kRowThreads)
    layer_fprop_kernel(const typename Row::T* __restrict__ x, const float* __restrict__ weight,
                       const float* __restrict__ bias, typename Row::T* __restrict__ y, double* __restrict__ means,
                       double* __restrict__ inverses, std::int64_t rows, int columns, float eps) {
  constexpr int kRows = kRowThreads / Row::kThreads, kWidth = Row::kWidth;
  const std::int64_t step = std::int64_t{gridDim.x} * kRows;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kRows + threadIdx.x / Row::kThreads; i < rows; i += step) {
    Row row;
    row.open(x + i * columns, columns);
    const float first = simt::to_float(x[i * columns]);
    const Moments of = moments_of(row, first);
    const float inverse = 1.0f / sqrtf(of.var + eps);
    row.packs([&](Floats<kWidth> pack, int column) {
      const Floats<kWidth> factor = of_columns<kWidth>(weight, column, 1.0f);
      const Floats<kWidth> term = of_columns<kWidth>(bias, column, 0.0f);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) pack[j] = (pack[j] - first - of.mean) * inverse * factor[j] + term[j];
      store(y + i * columns + column, pack);
    });
    if (threadIdx.x % Row::kThreads == 0) {
      means[i] = static_cast<double>(first) + static_cast<double>(of.mean);
      inverses[i] = static_cast<double>(inverse);
    }
  }
}

template <typename Row>
__global__ void __launch_bounds__(kRowThreads, 1)
    layer_dgrad_kernel(const typename Row::T* __restrict__ dy, const typename Row::T* __restrict__ x,
                       const float* __restrict__ weight, const double* __restrict__ means,
                       const double* __restrict__ inverses, typename Row::T* __restrict__ dx, std::int64_t rows,
                       int columns) {
  constexpr int kRows = kRowThreads / Row::kThreads, kWidth = Row::kWidth;
  const std::int64_t step = std::int64_t{gridDim.x} * kRows;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kRows + threadIdx.x / Row::kThreads; i < rows; i += step) {
    Row gradient, input;
    gradient.open(dy + i * columns, columns);
    input.open(x + i * columns, columns);
    const float centre = static_cast<float>(means[i]), inverse = static_cast<float>(inverses[i]);
    const float rest = static_cast<float>(means[i] - static_cast<double>(centre));
    float total = 0.0f, products = 0.0f;
    packs_of(gradient, input, [&](const Floats<kWidth>& g, const Floats<kWidth>& value, int column) {
      const Floats<kWidth> factor = of_columns<kWidth>(weight, column, 1.0f);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        total += g[j] * factor[j];
        products += g[j] * factor[j] * ((value[j] - centre - rest) * inverse);
      }
    });
    const float mean = Row::sum(total) / static_cast<float>(columns);
    const float mean_of_products = Row::sum(products) / static_cast<float>(columns);
    packs_of(gradient, input, [&](Floats<kWidth> g, const Floats<kWidth>& value, int column) {
      const Floats<kWidth> factor = of_columns<kWidth>(weight, column, 1.0f);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        const float z = (value[j] - centre - rest) * inverse;
        g[j] = inverse * (g[j] * factor[j] - mean - z * mean_of_products);
      }
      store(dx + i * columns + column, g);
    });
  }
}

}  // namespace

template <typename T>
simt::Status layer_norm_fprop(std::int64_t rows, std::int64_t columns, float eps, const T* x, const float* weight,
                              const float* bias, T* y, double* mean, double* inverse, simt::Stream stream) {
  if (rows == 0 || columns == 0) return simt::kSuccess;
  return with_row<T, kOfPack>(are_aligned(x, weight, bias, y), columns, [&](auto type) {
    unsigned blocks = 0;
    const simt::Status status = one_wave(rows * (kRowThreads / type.kTogether), kRowThreads, &blocks);
    if (status != simt::kSuccess) return status;
    return simt::launch(layer_fprop_kernel<typename decltype(type)::type>, dim3(blocks), dim3(kRowThreads), 0, stream,
                        x, weight, bias, y, mean, inverse, rows, static_cast<int>(columns), eps);
  });
}

template <typename T>
simt::Status layer_norm_dgrad(std::int64_t rows, std::int64_t columns, const T* dy, const T* x, const float* weight,
                              const double* mean, const double* inverse, T* dx, simt::Stream stream) {
  if (rows == 0 || columns == 0) return simt::kSuccess;
  return with_row<T, kOfPack>(are_aligned(dy, x, weight, dx), columns, [&](auto type) {
    unsigned blocks = 0;
    const simt::Status status = one_wave(rows * (kRowThreads / type.kTogether), kRowThreads, &blocks);
    if (status != simt::kSuccess) return status;
    return simt::launch(layer_dgrad_kernel<typename decltype(type)::type>, dim3(blocks), dim3(kRowThreads), 0, stream,
                        dy, x, weight, mean, inverse, dx, rows, static_cast<int>(columns));
  });
}

#define GPUCNN_LAYER(T)                                                                                               \
  template simt::Status layer_norm_fprop(std::int64_t, std::int64_t, float, const T*, const float*, const float*, T*, \
                                         double*, double*, simt::Stream);                                             \
  template simt::Status layer_norm_dgrad(std::int64_t, std::int64_t, const T*, const T*, const float*, const double*, \
                                         const double*, T*, simt::Stream);
GPUCNN_LAYER(float)
GPUCNN_LAYER(simt::half)
GPUCNN_LAYER(simt::bfloat16)
#undef GPUCNN_LAYER

}  // namespace gpucnn

// y[i,c] = exp(x[i,c] - max) / sum over c of exp(x[i,c] - max), or its logarithm, and the gradients
// dx = y * (dy - sum(y * dy)) and dx = dy - exp(y) * sum(dy), the sums being over a row. Arithmetic in float32.
//
// Layout   x, y, dy, dx (rows,columns): the softmax axis is the last, as the channels of N,H,W,C images are.
// Block    256 threads: 64 rows at a time where a row has 128 columns or fewer, eight up to 1,024, one where it has
// more. Warp     a short row's columns, or those of eight, in registers: memory is read once. A long row is read twice
// (a
//          gradient's operands too), the second time from the caches.
// Thread   packs of 16 bytes, 4 or 32 lanes, or 256 threads, apart; single elements where a row is no whole number of
// packs or
//          the memory is not aligned.
// Limits   columns in [0, 2^31), rows * columns below 2^60.
// Sums     a lane's in the order of the columns, then a butterfly: a row's bits depend on it alone.
// Bound    memory: forward 4 bytes read and 4 written an element in float32, backward 8 and 4. On an H100 (copy 3.0
//          TB/s) 2,048 rows of 1,000 classes, 16 MB, take 5.5 us forward, and 8.2 us backward.
// Measured not run on hardware yet.
#include "common/grid.h"
#include "common/rows.h"
#include "softmax/softmax.h"

#include <cstdint>

namespace gpucnn {
namespace {

template <typename Row>
__global__ void __launch_bounds__(kRowThreads, 2)
    softmax_fprop_kernel(const typename Row::T* __restrict__ x, typename Row::T* __restrict__ y, std::int64_t rows,
                         int columns, bool logarithm) {
  constexpr int kTogether = kRowThreads / Row::kThreads;  // rows
  const std::int64_t step = std::int64_t{gridDim.x} * kTogether;
  for (std::int64_t first = std::int64_t{blockIdx.x} * kTogether; first < rows; first += step) {
    const std::int64_t i = first + threadIdx.x / Row::kThreads;
    const int width = i < rows ? columns : 0;
    Row row;
    row.open(x + i * columns, width);
    const auto [largest, sum] = exponentials(row);
    if (logarithm) {
      const float of_sum = logf(sum), of_row = largest;
      row.write(y + i * columns, [&](float value, int) { return value - of_row - of_sum; });
    } else {
      const float whole = sum, of_row = largest;
      row.write(y + i * columns, [&](float value, int) { return expf(value - of_row) / whole; });
    }
  }
}

template <typename Row>
__global__ void __launch_bounds__(kRowThreads, 2)
    softmax_dgrad_kernel(const typename Row::T* __restrict__ dy, const typename Row::T* __restrict__ y,
                         typename Row::T* __restrict__ dx, std::int64_t rows, int columns, bool logarithm) {
  constexpr int kTogether = kRowThreads / Row::kThreads;
  const std::int64_t step = std::int64_t{gridDim.x} * kTogether;
  for (std::int64_t first = std::int64_t{blockIdx.x} * kTogether; first < rows; first += step) {
    const std::int64_t i = first + threadIdx.x / Row::kThreads;
    const int width = i < rows ? columns : 0;
    Row gradient, output;
    gradient.open(dy + i * columns, width);
    output.open(y + i * columns, width);
    float part = 0.0f;
    gradient.each(output, [&](float g, float value, int) { part += logarithm ? g : g * value; });
    const float sum = Row::sum(part);
    gradient.write(output, dx + i * columns,
                   [&](float g, float value, int) { return logarithm ? g - expf(value) * sum : value * (g - sum); });
  }
}

}  // namespace

template <typename T>
simt::Status softmax_fprop(const T* x, T* y, std::int64_t rows, std::int64_t columns, bool logarithm,
                           simt::Stream stream) {
  if (rows == 0 || columns == 0) return simt::kSuccess;
  return with_slim_row<T>(are_aligned(x, y), columns, [&](auto type) {
    unsigned blocks = 0;
    const simt::Status status = one_wave(rows * (kRowThreads / type.kTogether), kRowThreads, &blocks);
    if (status != simt::kSuccess) return status;
    return simt::launch(softmax_fprop_kernel<typename decltype(type)::type>, dim3(blocks), dim3(kRowThreads), 0, stream,
                        x, y, rows, static_cast<int>(columns), logarithm);
  });
}

template <typename T>
simt::Status softmax_dgrad(const T* dy, const T* y, T* dx, std::int64_t rows, std::int64_t columns, bool logarithm,
                           simt::Stream stream) {
  if (rows == 0 || columns == 0) return simt::kSuccess;
  return with_slim_row<T>(are_aligned(dy, y, dx), columns, [&](auto type) {
    unsigned blocks = 0;
    const simt::Status status = one_wave(rows * (kRowThreads / type.kTogether), kRowThreads, &blocks);
    if (status != simt::kSuccess) return status;
    return simt::launch(softmax_dgrad_kernel<typename decltype(type)::type>, dim3(blocks), dim3(kRowThreads), 0, stream,
                        dy, y, dx, rows, static_cast<int>(columns), logarithm);
  });
}

#define GPUCNN_SOFTMAX(T)                                                                            \
  template simt::Status softmax_fprop(const T*, T*, std::int64_t, std::int64_t, bool, simt::Stream); \
  template simt::Status softmax_dgrad(const T*, const T*, T*, std::int64_t, std::int64_t, bool, simt::Stream);
GPUCNN_SOFTMAX(float)
GPUCNN_SOFTMAX(simt::half)
GPUCNN_SOFTMAX(simt::bfloat16)
#undef GPUCNN_SOFTMAX

}  // namespace gpucnn

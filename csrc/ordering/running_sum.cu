// y[o,k,i] = x[o,0,i] + ... + x[o,k,i], or from the last element on: in double precision, rounded once.
//
// Layout   x, y (outer,size,inner).
// Block    256 threads. Along the last axis a row, in tiles of 1,024 elements: each thread adds up its four, the
// threads'
//          totals are scanned in the warps, those of the warps by all, and what the tile comes to is carried on. Along
//          another axis 256 columns.
// Thread   along the last axis four neighbouring elements, as one access where a row is a whole number of packs and
//          memory is aligned; along another axis a column.
// Limits   size and inner below 2^31.
// Bound    memory: 4 bytes read and 4 written an element in float32, given some hundred rows or some ten thousand
//          columns; of one long row, the latency of a tile, a microsecond. On an H100 (copy 3.0 TB/s) 2,048 rows of
//          1,000 take 5.5 us.
// Measured not run on hardware yet.
#include "common/grid.h"
#include "common/index.h"
#include "common/pack.h"
#include "common/reduce.h"
#include "common/whole_store.h"
#include "ordering/ordering.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kEach = 4;  // elements of a thread

template <typename T, bool kWide>
__global__ void __launch_bounds__(kThreads)
    running_sum_rows_kernel(const T* __restrict__ x, T* __restrict__ y, std::int64_t rows, std::int64_t size,
                            bool backwards) {
  SIMT_SHARED(double, of_warp, [kWarps]);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const T* const from = x + row * size;
    T* const to = y + row * size;
    double carried = 0.0;
    for (std::int64_t tile = 0; tile < size; tile += kThreads * kEach) {
      // Element number j of the thread, counted from where the sum begins, lies at place(j) in the row.
      const std::int64_t first = tile + std::int64_t{threadIdx.x} * kEach;  // of the thread's elements
      const auto place = [&](int j) { return backwards ? size - 1 - first - j : first + j; };
      const std::int64_t pack = backwards ? size - kEach - first : first;
      Floats<kEach> values;
      if (kWide) {
#pragma unroll
        for (int j = 0; j < kEach; ++j) values[j] = 0.0f;
        if (first < size) values = load<kEach>(from + pack);
        if (backwards) {
          const float a = values[0], b = values[1];
          values[0] = values[3];
          values[1] = values[2];
          values[2] = b;
          values[3] = a;
        }
      } else {
#pragma unroll
        for (int j = 0; j < kEach; ++j) values[j] = first + j < size ? simt::to_float(from[place(j)]) : 0.0f;
      }
      double sum = 0.0;  // of the thread, then of all lanes up to it
#pragma unroll
      for (int j = 0; j < kEach; ++j) sum += static_cast<double>(values[j]);
#pragma unroll
      for (int distance = 1; distance < 32; distance *= 2) {
        const double before = __shfl_up_sync(0xffffffffu, sum, static_cast<unsigned>(distance));
        if (lane >= distance) sum += before;
      }
      double running = __shfl_up_sync(0xffffffffu, sum, 1u);
      if (lane == 0) running = 0.0;
      if (lane == 31) of_warp[warp] = sum;
      __syncthreads();
      double of_tile = 0.0, before_warp = 0.0;
#pragma unroll
      for (int i = 0; i < kWarps; i += 2) {
        const auto two = simt::vload<Together<double, 2>>(of_warp + i);
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          if (i + j == warp) before_warp = of_tile;
          of_tile += two.of[j];
        }
      }
      __syncthreads();  // of_warp is written again
      running = carried + (before_warp + running);
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        running += static_cast<double>(values[j]);
        values[j] = static_cast<float>(running);
      }
      carried += of_tile;
      if (kWide) {
        if (backwards) {
          const float a = values[0], b = values[1];
          values[0] = values[3];
          values[1] = values[2];
          values[2] = b;
          values[3] = a;
        }
        if (first < size) store_whole(to + pack, values);
      } else {
#pragma unroll
        for (int j = 0; j < kEach; ++j) {
          if (first + j < size) to[place(j)] = simt::from_float<T>(values[j]);
        }
      }
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    running_sum_columns_kernel(const T* __restrict__ x, T* __restrict__ y, std::int64_t columns, std::int64_t size,
                               const Divisor inner, bool backwards) {
  for (std::int64_t column = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; column < columns;
       column += std::int64_t{gridDim.x} * kThreads) {
    const auto [outer, i] = inner.divide(column);
    const std::int64_t begin = outer * size * inner.value + i;
    double sum = 0.0;
    for (std::int64_t k = 0; k < size; ++k) {
      const std::int64_t at = begin + (backwards ? size - 1 - k : k) * inner.value;
      sum += static_cast<double>(simt::to_float(x[at]));
      y[at] = simt::from_float<T>(static_cast<float>(sum));
    }
  }
}

}  // namespace

template <typename T>
simt::Status running_sum(const Along& along, const T* x, T* y, bool backwards, simt::Stream stream) {
  if (along.outer == 0 || along.size == 0 || along.inner == 0) return simt::kSuccess;
  const bool in_rows = along.inner == 1;
  unsigned blocks = 0;
  const std::int64_t threads = in_rows ? along.outer * kThreads : along.outer * along.inner;
  if (const simt::Status status = one_wave(threads, kThreads, &blocks); status != simt::kSuccess) return status;
  if (!in_rows) {
    return simt::launch(running_sum_columns_kernel<T>, dim3(blocks), dim3(kThreads), 0, stream, x, y,
                        along.outer * along.inner, along.size, divisor_of(along.inner), backwards);
  }
  const bool wide = are_aligned(x, y) && along.size % kPack<T> == 0;
  const auto kernel = wide ? running_sum_rows_kernel<T, true> : running_sum_rows_kernel<T, false>;
  return simt::launch(kernel, dim3(blocks), dim3(kThreads), 0, stream, x, y, along.outer, along.size, backwards);
}

template simt::Status running_sum(const Along&, const float*, float*, bool, simt::Stream);
template simt::Status running_sum(const Along&, const simt::half*, simt::half*, bool, simt::Stream);
template simt::Status running_sum(const Along&, const simt::bfloat16*, simt::bfloat16*, bool, simt::Stream);

}  // namespace gpucnn

// Gradients of layer norm's bias and weight: sums over the rows of dy and of dy * z, z = (x - mean) * inverse with a
// mean and an inverse for each row.
//
// The rows are cut into splits; each split's sums go to a part of `partial` of their own, which common/sum_parts.cu
// adds up in order.
//
// Layout   dy, x (rows,columns), mean, inverse (rows,), sums (2,columns), partial (splits,2,columns).
// Block    256 threads and one split: 4 to 32 packs of columns, as many rows at a time as are left (columns.h).
// Thread   a pack of 16 bytes of columns (one column where they are no whole number of packs, or dy or x not aligned)
//          and every so many rows, four at a time; the lines of the block are added up by a tree in shared memory.
// Limits   columns in [0, 2^31); fewer than 2^38 elements.
// Bound    memory: dy and x once, 8 bytes an element of float32. On an H100 (copy 3.0 TB/s) N32 C256 56x56 in rows of
//          256, 103 MB each, take 69 us; half of it in 16 bits.
// Measured not run on hardware yet.
#include "common/sum_parts.h"
#include "norm/columns.h"
#include "row_norm/row_norm.h"

namespace gpucnn {
namespace {

constexpr int kRows = 4;  // in flight

template <typename T, int kWidth>
__global__ void __launch_bounds__(kColumnThreads)
    layer_wgrad_kernel(const T* __restrict__ dy, const T* __restrict__ x, const double* __restrict__ means,
                       const double* __restrict__ inverses, float* __restrict__ partial, Columns c) {
  SIMT_SHARED(float, shared, [2][kWidth][kSumsLine<kWidth>]);
  const Place at(c);
  const std::int64_t offset = at.offset<kWidth>(c);
  const int lines = c.lines(), me = static_cast<int>(threadIdx.x);
  float total[kWidth] = {}, products[kWidth] = {};

  for (std::int64_t row = at.begin + at.line; row < at.end; row += kRows * lines) {
    Raw<T, kWidth> gradient[kRows], input[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const std::int64_t wanted = min(row + i * lines, c.rows - 1);
      gradient[i].load(dy + offset + wanted * c.channels);
      input[i].load(x + offset + wanted * c.channels);
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const std::int64_t wanted = row + i * lines;
      if (wanted < at.end) {
        const float centre = static_cast<float>(means[wanted]), inverse = static_cast<float>(inverses[wanted]);
        const float rest = static_cast<float>(means[wanted] - static_cast<double>(centre));
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
          total[j] += gradient[i][j];
          products[j] += gradient[i][j] * ((input[i][j] - centre - rest) * inverse);
        }
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    shared[0][j][me] = total[j];
    shared[1][j][me] = products[j];
  }
  for (int half = lines / 2; half > 0; half /= 2) {
    __syncthreads();
    if (at.line < half) {
      const int other = me + (half << c.across_log2);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        shared[0][j][me] = total[j] += shared[0][j][other];
        shared[1][j][me] = products[j] += shared[1][j][other];
      }
    }
  }
  float* const to = partial + std::int64_t{2} * at.split * c.channels;
  write_channels<kWidth>(c, at, &shared[0][0][0], to);
  write_channels<kWidth>(c, at, &shared[1][0][0], to + c.channels);
}

// As of a batch norm whose channels are the columns.
NormProblem as_columns(std::int64_t rows, std::int64_t columns) {
  NormProblem p{};
  p.B = 1;
  p.M = rows;
  p.C = p.groups = columns;
  return p;
}

}  // namespace

std::int64_t layer_norm_splits(std::int64_t rows, std::int64_t columns, int bytes_of_element) {
  if (rows == 0 || columns == 0) return 0;
  return summed_columns(as_columns(rows, columns), bytes_of_element, 1).splits;
}

template <typename T>
simt::Status layer_norm_wgrad(std::int64_t rows, std::int64_t columns, const T* dy, const T* x, const double* mean,
                              const double* inverse, float* partial, float* sums, simt::Stream stream) {
  if (rows == 0 || columns == 0) return simt::kSuccess;
  const NormProblem p = as_columns(rows, columns);
  const bool several = layer_norm_splits(rows, columns, sizeof(T)) > 1;
  float* const parts = several ? partial : sums;
  const bool wide = width_of<T>(p, dy, x) > 1;
  const Columns c = summed_columns(p, sizeof(T), wide ? kPack<T> : 1);
  const simt::Status status = launch_columns(
      p, c, stream, wide ? layer_wgrad_kernel<T, kPack<T>> : layer_wgrad_kernel<T, 1>, dy, x, mean, inverse, parts, c);
  if (status != simt::kSuccess || !several) return status;
  return sum_parts(parts, sums, c.splits, 2 * columns, stream);
}

#define GPUCNN_LAYER(T)                                                                                                \
  template simt::Status layer_norm_wgrad(std::int64_t, std::int64_t, const T*, const T*, const double*, const double*, \
                                         float*, float*, simt::Stream);
GPUCNN_LAYER(float)
GPUCNN_LAYER(simt::half)
GPUCNN_LAYER(simt::bfloat16)
#undef GPUCNN_LAYER

}  // namespace gpucnn

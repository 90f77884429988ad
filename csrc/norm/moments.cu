// Partial statistics of x (B,M,C): for each set, split of its positions and channel, of the differences d between x and
// the set's first row,  mean = sum of d / n  and  squares = sum of (d - mean)^2.
//
// Differences from a value of the sample itself are exact where x is large beside its spread, and a mean and a sum of
// squares about it lose nothing where the first row stands out: about 1e4 with a spread of 1, both are right.
//
// Layout   x (B,M,C); partial (B, 2 * splits + 1, C): mean and squares of split 0, 1, ..., then the first row.
// Block    256 threads and one split of a set: 4 to 32 packs of channels, and as many rows at a time as are left.
// Thread   a pack of 16 bytes of channels (one channel where C is no multiple of a pack, or x not aligned to 16 bytes)
//          and every so many rows, kRows at a time: their mean and squares are computed from registers and merged into
//          what the thread has (merge.h). Its columns.h neighbours own the neighbouring packs.
// Sums     a thread's in the order of the rows; those of the block's lines by a tree in shared memory; the splits' by
//          statistics.cu. The order depends on M, C and the width of a pack alone, not on the batch of an instance
//          norm.
// Limits   B * splits * tiles below 2^31; C below 2^31.
// Bound    memory: x once, 4 bytes an element of float32. N32 C256 56x56, 103 MB: 34 us at an H100's copy rate of
//          3.0 TB/s, half of it in 16 bits; the partial sums of 264 splits are 0.5 MB.
// Measured not run on hardware yet.
#include "norm/columns.h"
#include "norm/merge.h"
#include "norm/norm.h"

namespace gpucnn {
namespace {

template <typename T, int kWidth>
__global__ void __launch_bounds__(kColumnThreads)
    moments_kernel(const T* __restrict__ x, float* __restrict__ partial, Columns c) {
  constexpr int kRows = kWidth > 4 ? 4 : 8;  // in flight: 64 or 128 bytes a thread
  SIMT_SHARED(float, means, [kWidth][kSumsLine<kWidth>]);
  SIMT_SHARED(float, squares, [kWidth][kSumsLine<kWidth>]);
  SIMT_SHARED(float, counts, [kColumnThreads]);
  const Place at(c);
  const T* const from = x + at.offset<kWidth>(c);
  const Floats<kWidth> first = load<kWidth>(from);
  const int lines = c.lines(), me = static_cast<int>(threadIdx.x);
  float count = 0.0f, mean[kWidth] = {}, square[kWidth] = {};

  for (std::int64_t row = at.begin + at.line; row < at.end; row += kRows * lines) {
    Raw<T, kWidth> pack[kRows];
    int valid = 0;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const std::int64_t wanted = row + i * lines;
      valid += wanted < at.end;
      pack[i].load(from + min(wanted, c.rows - 1) * c.channels);
    }
    const float number = static_cast<float>(valid);
    const Share share(count, number);
    const float part = 1.0f / number;
    count += number;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      float sum = 0.0f, sum_of_squares = 0.0f;
#pragma unroll
      for (int i = 0; i < kRows; ++i) sum += i < valid ? pack[i][j] - first[j] : 0.0f;
      const float middle = sum * part;
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const float away = i < valid ? pack[i][j] - first[j] - middle : 0.0f;
        sum_of_squares += away * away;
      }
      merge(mean[j], square[j], middle, sum_of_squares, share);
    }
  }

  counts[me] = count;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    means[j][me] = mean[j];
    squares[j][me] = square[j];
  }
  for (int half = lines / 2; half > 0; half /= 2) {
    __syncthreads();
    if (at.line < half) {
      const int other = me + (half << c.across_log2);
      const Share share(count, counts[other]);
      count += counts[other];
      counts[me] = count;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        merge(mean[j], square[j], means[j][other], squares[j][other], share);
        means[j][me] = mean[j];
        squares[j][me] = square[j];
      }
    }
  }
  float* const to = partial + at.set * (2 * c.splits + 1) * c.channels;
  float* const mine = to + std::int64_t{2} * at.split * c.channels;
  write_channels<kWidth>(c, at, &means[0][0], mine);
  write_channels<kWidth>(c, at, &squares[0][0], mine + c.channels);
  if (at.split == 0) {
    float* const firsts = to + std::int64_t{2} * c.splits * c.channels;
    const T* const row = x + at.set * c.rows * c.channels;
    const int begin = at.first_channel<kWidth>(c), end = begin + at.channels<kWidth>(c);
    for (int i = begin + me; i < end; i += kColumnThreads) firsts[i] = simt::to_float(row[i]);
  }
}

}  // namespace

std::int64_t norm_splits(const NormProblem& p, int bytes_of_element) {
  return p.empty() ? 0 : summed_columns(p, bytes_of_element, 1).splits;
}

std::int64_t norm_blocks(const NormProblem& p) {
  if (p.empty()) return 0;
  const Columns summed = summed_columns(p, 2, 1), single = elementwise_columns(p, 1);
  return p.B * std::max({std::int64_t{summed.splits} * summed.tiles, std::int64_t{single.splits} * single.tiles,
                         blocks_of(32, p.C), blocks_of(8, p.groups)});
}

template <typename T>
simt::Status norm_moments(const NormProblem& p, const T* x, float* partial, simt::Stream stream) {
  if (p.empty()) return simt::kSuccess;
  const bool wide = width_of<T>(p, x) > 1;
  const Columns c = summed_columns(p, sizeof(T), wide ? kPack<T> : 1);
  return launch_columns(p, c, stream, wide ? moments_kernel<T, kPack<T>> : moments_kernel<T, 1>, x, partial, c);
}

#define GPUCNN_NORM(T) template simt::Status norm_moments(const NormProblem&, const T*, float*, simt::Stream);
GPUCNN_NORM(float)
GPUCNN_NORM(simt::half)
GPUCNN_NORM(simt::bfloat16)
#undef GPUCNN_NORM

}  // namespace gpucnn

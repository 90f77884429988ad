// Partial sums of the gradient over the positions of a split, for each set and channel: of g and of g * (x - centre),
// g being what of dy gets through the ReLU behind the normalisation (dy where there is none), and centre the mean
// rounded to float32.
//
// The pass writes g too where it is asked to: it is the gradient of a residual, and saves the next pass reading y.
//
// Layout   dy, x, y, passed (B,M,C); mean (B,C); partial (B, 2 * splits, C): sums of g, of g * (x - centre) of split 0,
//          of split 1, ...
// Block, Thread, Sums, Limits: as moments.cu, whose splits these are.
// Bound    memory: dy and x once, and y once behind a ReLU: 12 bytes an element of float32, 16 where g is written. N32
//          C256 56x56, 103 MB each: 69, 103 and 137 us at an H100's copy rate of 3.0 TB/s; half of it in 16 bits.
// Measured not run on hardware yet.
#include "norm/columns.h"
#include "norm/norm.h"

namespace gpucnn {
namespace {

constexpr int kRows = 4;  // in flight

template <typename T, int kWidth>
__global__ void __launch_bounds__(kColumnThreads, 2)
    gradient_sums_kernel(const T* __restrict__ dy, const T* __restrict__ x, const T* __restrict__ y,
                         const double* __restrict__ mean, T* __restrict__ passed, float* __restrict__ partial,
                         Columns c, float limit) {
  SIMT_SHARED(float, shared, [2][kWidth][kSumsLine<kWidth>]);
  const Place at(c);
  static_assert(kStaged<kWidth> <= 2 * kWidth * kSumsLine<kWidth>);
  float* const flat = &shared[0][0][0];
  stage<kWidth, 1>(c, at, flat, [&](int, int channel) {
    return x ? static_cast<float>(mean[at.set * c.channels + channel]) : 0.0f;
  });
  const Floats<kWidth> centre = staged<kWidth>(c, at, flat, 0);
  const std::int64_t offset = at.offset<kWidth>(c);
  const int lines = c.lines(), me = static_cast<int>(threadIdx.x);
  float total[kWidth] = {}, products[kWidth] = {};

  for (std::int64_t row = at.begin + at.line; row < at.end; row += kRows * lines) {
    Raw<T, kWidth> gradient[kRows], input[kRows], output[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      gradient[i].load(dy + offset + min(row + i * lines, c.rows - 1) * c.channels);
    }
    if (x) {
#pragma unroll
      for (int i = 0; i < kRows; ++i) input[i].load(x + offset + min(row + i * lines, c.rows - 1) * c.channels);
    }
    if (y) {
#pragma unroll
      for (int i = 0; i < kRows; ++i) output[i].load(y + offset + min(row + i * lines, c.rows - 1) * c.channels);
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const bool counts = row + i * lines < at.end;
      Floats<kWidth> g;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        g[j] = !counts || (y && !passes(output[i][j], limit)) ? 0.0f : gradient[i][j];
        total[j] += g[j];
        if (x && counts) products[j] += g[j] * (input[i][j] - centre[j]);
      }
      if (passed && counts && at.is_mine) store(passed + offset + (row + i * lines) * c.channels, g);
    }
  }

  __syncthreads();  // the centres have been read
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
  float* const to = partial + (at.set * c.splits + at.split) * 2 * c.channels;
  write_channels<kWidth>(c, at, &shared[0][0][0], to);
  write_channels<kWidth>(c, at, &shared[1][0][0], to + c.channels);
}

}  // namespace

template <typename T>
simt::Status norm_gradient_sums(const NormProblem& p, const T* dy, const T* x, const T* y, const double* mean,
                                T* passed, float* partial, simt::Stream stream) {
  if (p.empty()) return simt::kSuccess;
  const bool wide = width_of<T>(p, dy, x, y, passed) > 1;
  const Columns c = summed_columns(p, sizeof(T), wide ? kPack<T> : 1);
  return launch_columns(p, c, stream, wide ? gradient_sums_kernel<T, kPack<T>> : gradient_sums_kernel<T, 1>, dy, x,
                        p.cut ? y : nullptr, mean, passed, partial, c, p.limit);
}

#define GPUCNN_NORM(T)                                                                                          \
  template simt::Status norm_gradient_sums(const NormProblem&, const T*, const T*, const T*, const double*, T*, \
                                           float*, simt::Stream);
GPUCNN_NORM(float)
GPUCNN_NORM(simt::half)
GPUCNN_NORM(simt::bfloat16)
#undef GPUCNN_NORM

}  // namespace gpucnn

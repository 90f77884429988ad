// dx = g * by_g + (x - centre) * by_x + term, the elementwise pass of the gradients of batch, instance and group norm;
// g is what of dy gets through the ReLU behind the normalisation, and is written as well where it is asked for.
//
// Layout   dy, x, y, dx, passed (B,M,C); coefficients (4,B,C): by_g, centre, by_x, term (gradient_coefficients.cu).
// Block    256 threads and a run of rows of one set: 4 to 32 packs of channels, as many rows at a time as are left.
// Thread   a pack of 16 bytes of channels and every so many rows, kRows at a time; its coefficients come through shared
//          memory, so that a block reads them once.
// Limits   an address not aligned to 16 bytes, or C no multiple of a pack: elements go one by one. dx may be dy.
// Bound    memory: dy and x once, y once behind a ReLU whose g the sums have not written, dx once: 12 or 16 bytes an
//          element of float32. N32 C256 56x56, 103 MB each: 103 or 137 us at an H100's copy rate of 3.0 TB/s; half of
//          it in 16 bits.
// Measured not run on hardware yet.
#include "norm/columns.h"
#include "norm/norm.h"

namespace gpucnn {
namespace {

constexpr int kRows = 4;  // in flight

template <typename T, int kWidth>
__global__ void __launch_bounds__(kColumnThreads, 2)
    dgrad_kernel(const T* dy, const T* __restrict__ x, const T* __restrict__ y, const float* __restrict__ coefficients,
                 T* dx, T* __restrict__ passed, Columns c, std::int64_t sets_channels, float limit) {
  SIMT_SHARED(float, shared, [4 * kStaged<kWidth>]);
  const Place at(c);
  stage<kWidth, 4>(c, at, shared, [&](int number, int channel) {
    return coefficients[number * sets_channels + at.set * c.channels + channel];
  });
  const Floats<kWidth> by_g = staged<kWidth>(c, at, shared, 0), centre = staged<kWidth>(c, at, shared, 1),
                       by_x = staged<kWidth>(c, at, shared, 2), term = staged<kWidth>(c, at, shared, 3);
  const std::int64_t offset = at.offset<kWidth>(c);
  const int lines = c.lines();
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
      Floats<kWidth> g, result;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        g[j] = y && !passes(output[i][j], limit) ? 0.0f : gradient[i][j];
        result[j] = g[j] * by_g[j];
        if (x) result[j] += (input[i][j] - centre[j]) * by_x[j] + term[j];
      }
      if (at.is_mine && row + i * lines < at.end) {
        const std::int64_t to = offset + (row + i * lines) * c.channels;
        if (dx) store(dx + to, result);
        if (passed) store(passed + to, g);
      }
    }
  }
}

}  // namespace

template <typename T>
simt::Status norm_dgrad(const NormProblem& p, const T* dy, const T* x, const T* y, const float* coefficients, T* dx,
                        T* passed, simt::Stream stream) {
  if (p.empty()) return simt::kSuccess;
  const bool wide = width_of<T>(p, dy, x, y, dx, passed) > 1;
  const Columns c = elementwise_columns(p, wide ? kPack<T> : 1);
  return launch_columns(p, c, stream, wide ? dgrad_kernel<T, kPack<T>> : dgrad_kernel<T, 1>, dy, x, y, coefficients, dx,
                        passed, c, p.B * p.C, p.limit);
}

#define GPUCNN_NORM(T)                                                                                     \
  template simt::Status norm_dgrad(const NormProblem&, const T*, const T*, const T*, const float*, T*, T*, \
                                   simt::Stream);
GPUCNN_NORM(float)
GPUCNN_NORM(simt::half)
GPUCNN_NORM(simt::bfloat16)
#undef GPUCNN_NORM

}  // namespace gpucnn

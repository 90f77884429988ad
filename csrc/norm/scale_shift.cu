// y = (x - centre) * scale + shift + residual, cut to [0, limit] where there is a ReLU behind the normalisation: the
// elementwise pass of batch, instance and group norm, and of batch norm in evaluation.
//
// A NaN stays one through a ReLU, as in F.relu. In 16 bits the result alone is rounded.
//
// Layout   x, residual, y (B,M,C); coefficients (3,B,C): centre, scale, shift.
// Block    256 threads and a run of rows of one set: 4 to 32 packs of channels, as many rows at a time as are left.
// Thread   a pack of 16 bytes of channels and every so many rows, four at a time. Its coefficients come through shared
//          memory, so that a block reads them once.
// Limits   x, residual or y not aligned to 16 bytes, or C no multiple of a pack: elements go one by one.
// Bound    memory: x once, residual once and y once, 8 bytes an element of float32, 12 with a residual. N32 C256 56x56,
//          103 MB each: 69 us at an H100's copy rate of 3.0 TB/s, 103 us with a residual; half of it in 16 bits.
// Measured not run on hardware yet.
#include "norm/columns.h"
#include "norm/norm.h"

namespace gpucnn {
namespace {

constexpr int kRows = 4;  // in flight

template <typename T, int kWidth>
__global__ void __launch_bounds__(kColumnThreads, 2)
    scale_shift_kernel(const T* __restrict__ x, const T* __restrict__ residual, const float* __restrict__ coefficients,
                       T* __restrict__ y, Columns c, std::int64_t sets_channels, bool cut, float limit) {
  SIMT_SHARED(float, shared, [3 * kStaged<kWidth>]);
  const Place at(c);
  stage<kWidth, 3>(c, at, shared, [&](int number, int channel) {
    return coefficients[number * sets_channels + at.set * c.channels + channel];
  });
  const Floats<kWidth> centre = staged<kWidth>(c, at, shared, 0), scale = staged<kWidth>(c, at, shared, 1),
                       shift = staged<kWidth>(c, at, shared, 2);
  const std::int64_t offset = at.offset<kWidth>(c);
  const int lines = c.lines();
  for (std::int64_t row = at.begin + at.line; row < at.end; row += kRows * lines) {
    Raw<T, kWidth> pack[kRows], added[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      pack[i].load(x + offset + min(row + i * lines, c.rows - 1) * c.channels);
    }
    if (residual) {
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        added[i].load(residual + offset + min(row + i * lines, c.rows - 1) * c.channels);
      }
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      Floats<kWidth> result;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        float value = (pack[i][j] - centre[j]) * scale[j] + shift[j];
        if (residual) value += added[i][j];
        if (cut) value = value <= 0.0f ? 0.0f : value > limit ? limit : value;
        result[j] = value;
      }
      if (at.is_mine && row + i * lines < at.end) store(y + offset + (row + i * lines) * c.channels, result);
    }
  }
}

}  // namespace

template <typename T>
simt::Status norm_scale_shift(const NormProblem& p, const T* x, const T* residual, const float* coefficients, T* y,
                              simt::Stream stream) {
  if (p.empty()) return simt::kSuccess;
  const bool wide = width_of<T>(p, x, residual, y) > 1;
  const Columns c = elementwise_columns(p, wide ? kPack<T> : 1);
  return launch_columns(p, c, stream, wide ? scale_shift_kernel<T, kPack<T>> : scale_shift_kernel<T, 1>, x, residual,
                        coefficients, y, c, p.B * p.C, p.cut, p.limit);
}

#define GPUCNN_NORM(T) \
  template simt::Status norm_scale_shift(const NormProblem&, const T*, const T*, const float*, T*, simt::Stream);
GPUCNN_NORM(float)
GPUCNN_NORM(simt::half)
GPUCNN_NORM(simt::bfloat16)
#undef GPUCNN_NORM

}  // namespace gpucnn

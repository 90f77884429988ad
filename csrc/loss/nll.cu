// -v[t] * log_p[i,t] for the label t of each row i, their mean or sum, and the gradient with respect to log_p: -v[t] *
// dy (over what a mean divides by) at t, 0 elsewhere.
//
// Layout   log_p, gradient (M,C), targets (M,), weight v (C,).
// Block    forward: 256 threads, a run of rows, added up in order by the last block. Backward: packs a grid apart.
// Thread   forward: a row. Backward: packs of 16 bytes, elements where C is no whole number of them.
// Limits   M below 2^38, C below 2^31, M * C below 2^60. A label outside [0, C) makes its loss NaN and sets the flag.
// Bound    memory: forward 40 bytes a row (a label, and the 32 bytes that an element comes in), backward 4 bytes an
//          element in float32. On an H100 (copy 3.0 TB/s) 2,048 rows of 1,000 classes take 0.1 us and 2.7 us.
// Measured not run on hardware yet.
#include "common/flag.h"
#include "common/grid.h"
#include "common/index.h"
#include "common/pack.h"
#include "loss/loss.h"
#include "loss/reduced.h"

#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    nll_loss_fprop_kernel(const CrossEntropy p, const Rows<T> rows, std::int64_t rows_of_block, T* __restrict__ loss,
                          float* __restrict__ total, unsigned* __restrict__ memory, std::int64_t* __restrict__ flag,
                          bool check_loss) {
  const std::int64_t begin = blockIdx.x * rows_of_block, end = min(begin + rows_of_block, p.rows);
  Floats<2> sums;
  sums[0] = sums[1] = 0.0f;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const std::int64_t label = rows.targets[i];
    const bool is_class = label >= 0 && label < p.classes;
    float of_row = 0.0f, weight = 0.0f;
    if (label != p.ignore_index) {
      if (is_class) {
        weight = rows.weight == nullptr ? 1.0f : simt::to_float(rows.weight[label]);
        of_row = -weight * simt::to_float(rows.scores[i * p.classes + label]);
      } else {
        raise_flag(flag, Trouble::kLabel, i);
        of_row = weight = __uint_as_float(0x7fffffffu);
      }
    }
    if (p.reduction == Reduction::none) loss[i] = simt::from_float<T>(of_row);
    sums[0] += of_row;
    sums[1] += weight;
  }
  if (p.reduction != Reduction::none) {
    write_reduced<kThreads>(p.reduction == Reduction::mean, sums, loss, total, memory, flag, check_loss);
  }
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    nll_loss_dgrad_kernel(const CrossEntropy p, const Rows<T> rows, const Divisor classes, const T* __restrict__ dy,
                          const float* __restrict__ total, T* __restrict__ gradient) {
  const float share = p.reduction == Reduction::mean ? 1.0f / *total : 1.0f;
  const std::int64_t count = p.rows * p.classes, step = std::int64_t{gridDim.x} * kThreads * kWidth;
  for (std::int64_t index = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) * kWidth; index < count;
       index += step) {
    const auto [i, first] = classes.divide(index);
    const std::int64_t label = rows.targets[i];
    float hit = 0.0f;
    if (label != p.ignore_index && label >= first && label < first + kWidth) {
      const float weight = rows.weight == nullptr ? 1.0f : simt::to_float(rows.weight[label]);
      hit = -share * weight * simt::to_float(dy[p.reduction == Reduction::none ? i : 0]);
    }
    Floats<kWidth> values;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) values[j] = first + j == label ? hit : 0.0f;
    store(gradient + index, values);
  }
}

}  // namespace

template <typename T>
simt::Status nll_loss_fprop(const CrossEntropy& p, const Rows<T>& rows, T* loss, float* total, unsigned* memory,
                            std::int64_t* flag, bool check_loss, simt::Stream stream) {
  if (p.rows == 0 && p.reduction == Reduction::none) return simt::kSuccess;
  const Shares shares = shares_of(p.rows, kThreads);
  return simt::launch(nll_loss_fprop_kernel<T>, dim3(shares.blocks), dim3(kThreads), 0, stream, p, rows, shares.each,
                      loss, total, memory, flag, check_loss);
}

template <typename T>
simt::Status nll_loss_dgrad(const CrossEntropy& p, const Rows<T>& rows, const T* dy, const float* total, T* gradient,
                            simt::Stream stream) {
  if (p.rows == 0 || p.classes == 0) return simt::kSuccess;
  const bool wide = p.classes % kPack<T> == 0 && are_aligned(gradient);
  const auto kernel = wide ? nll_loss_dgrad_kernel<T, kPack<T>> : nll_loss_dgrad_kernel<T, 1>;
  unsigned blocks = 0;
  const std::int64_t items = p.rows * p.classes / (wide ? kPack<T> : 1);
  if (const simt::Status status = one_wave(items, kThreads, &blocks); status != simt::kSuccess) return status;
  return simt::launch(kernel, dim3(blocks), dim3(kThreads), 0, stream, p, rows, divisor_of(p.classes), dy, total,
                      gradient);
}

#define GPUCNN_NLL_LOSS(T)                                                                                        \
  template simt::Status nll_loss_fprop(const CrossEntropy&, const Rows<T>&, T*, float*, unsigned*, std::int64_t*, \
                                       bool, simt::Stream);                                                       \
  template simt::Status nll_loss_dgrad(const CrossEntropy&, const Rows<T>&, const T*, const float*, T*, simt::Stream);
GPUCNN_NLL_LOSS(float)
GPUCNN_NLL_LOSS(simt::half)
GPUCNN_NLL_LOSS(simt::bfloat16)
#undef GPUCNN_NLL_LOSS

}  // namespace gpucnn

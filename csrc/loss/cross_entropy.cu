// The softmax cross-entropy of each row i of logits x with its target, its mean or sum, and the gradient dx.
//
// With log_p[c] = x[c] - max - log(sum over c of exp(x[c] - max)), class weights v and label smoothing e:
//
//   label t            loss = -(1 - e) v[t] log_p[t] - e / C * sum of v[c] log_p[c]; 0 where t is to be ignored
//   probabilities q    loss = -sum of mass[c] log_p[c], mass[c] = ((1 - e) q[c] + e / C) v[c]
//   dx[c] = row * (exp(log_p[c]) * sum of mass - mass[c]), row = dy over what a mean divides by (mass of a label:
//   above)
//
// One launch forward, one backward. Forward keeps max, the log of the sum, and with probabilities the sum of mass of
// each row for backward, which so needs no sum over a row: it goes over the elements as they lie.
//
// Layout   logits, probabilities, gradient (M,C), channels of images last; statistics (2 or 3,M) float32.
// Block    forward: 256 threads, a run of rows, eight at a time where C is 1,024 at most, else one; its losses are
// added
//          up with those of the other blocks by the last block, in order. Backward: 256 threads, packs a grid apart.
// Warp     forward: a short row, in registers, read once. A long row is a block's, read twice (thrice if smoothed).
// Thread   packs of 16 bytes; elements one by one where C is no whole number of packs or memory is not aligned.
// Limits   M below 2^38, C below 2^31, M * C below 2^60. A label outside [0, C) makes its row NaN and sets the flag.
// Bound    memory: forward 4 bytes an element in float32, backward 8. On an H100 (copy 3.0 TB/s) 2,048 rows of 1,000
//          classes take 2.7 us forward and 5.5 us backward; a launch's own time is about as much.
// Measured not run on hardware yet.
#include "common/flag.h"
#include "common/grid.h"
#include "common/index.h"
#include "common/rows.h"
#include "loss/loss.h"
#include "loss/reduced.h"

#include <cstdint>

namespace gpucnn {
namespace {

__device__ __forceinline__ float not_a_number() {
  return __uint_as_float(0x7fffffffu);
}

template <typename T>
__device__ __forceinline__ float weight_of(const T* weight, std::int64_t c) {
  return weight == nullptr ? 1.0f : simt::to_float(weight[c]);
}

// Of kCount classes from c on.
template <int kCount, typename T>
__device__ __forceinline__ Floats<kCount> weights_of(const T* weight, std::int64_t c) {
  if (weight != nullptr) return load<kCount>(weight + c);
  Floats<kCount> ones;
#pragma unroll
  for (int i = 0; i < kCount; ++i) ones[i] = 1.0f;
  return ones;
}

template <typename Row>
__global__ void __launch_bounds__(kRowThreads, 2)
    cross_entropy_fprop_kernel(const CrossEntropy p, const Rows<typename Row::T> rows, std::int64_t rows_of_block,
                               typename Row::T* __restrict__ loss, float* __restrict__ statistics,
                               float* __restrict__ total, unsigned* __restrict__ memory,
                               std::int64_t* __restrict__ flag, bool check_loss) {
  using T = typename Row::T;
  const int columns = static_cast<int>(p.classes);
  const bool is_first = threadIdx.x % Row::kThreads == 0;  // of the row's threads
  const float kept = 1.0f - p.label_smoothing, spread = p.label_smoothing / static_cast<float>(p.classes);
  const std::int64_t begin = blockIdx.x * rows_of_block, end = min(begin + rows_of_block, p.rows);
  Floats<2> sums;
  sums[0] = sums[1] = 0.0f;
  for (std::int64_t first = begin; first < end; first += kRowThreads / Row::kThreads) {
    const std::int64_t i = first + threadIdx.x / Row::kThreads;
    const bool is_row = i < end;  // beyond the last one all threads go on, with no columns
    Row row;
    row.open(rows.scores + i * columns, is_row ? columns : 0);
    const Exponentials found = exponentials(row);
    float largest = found.largest, of_row = 0.0f, divisor = 1.0f;
    const float of_sum = logf(found.sum), of_largest = largest;
    if (rows.probabilities != nullptr) {
      float part = 0.0f, mass = 0.0f;
      const T* const probabilities = rows.probabilities + i * columns;
      row.packs([&](const Floats<Row::kWidth>& values, int c) {
        const Floats<Row::kWidth> q = load<Row::kWidth>(probabilities + c);
        const Floats<Row::kWidth> weights = weights_of<Row::kWidth>(rows.weight, c);
#pragma unroll
        for (int j = 0; j < Row::kWidth; ++j) {
          const float mass_of_class = (q[j] * kept + spread) * weights[j];
          part -= mass_of_class * (values[j] - of_largest - of_sum);
          mass += mass_of_class;
        }
      });
      of_row = Row::sum(part);
      mass = Row::sum(mass);
      if (is_first && is_row) statistics[2 * p.rows + i] = mass;
    } else {
      const std::int64_t label = is_row ? rows.targets[i] : p.ignore_index;
      const bool counts = label != p.ignore_index, is_class = label >= 0 && label < p.classes;
      const float score = row.pick(rows.scores + i * columns + label, label);
      if (counts && !is_class) {
        if (is_first) raise_flag(flag, Trouble::kLabel, i);
        largest = divisor = of_row = not_a_number();
      } else if (counts) {
        divisor = weight_of(rows.weight, label);
        of_row = -divisor * (score - largest - of_sum) * kept;
      } else {
        divisor = 0.0f;
      }
      if (p.label_smoothing > 0.0f) {
        float part = 0.0f;
        row.packs([&](const Floats<Row::kWidth>& values, int c) {
          const Floats<Row::kWidth> weights = weights_of<Row::kWidth>(rows.weight, c);
#pragma unroll
          for (int j = 0; j < Row::kWidth; ++j) part += weights[j] * (values[j] - of_largest - of_sum);
        });
        part = Row::sum(part);
        if (counts) of_row -= spread * part;
      }
    }
    if (is_first && is_row) {
      statistics[i] = largest;
      statistics[p.rows + i] = of_sum;
      if (p.reduction == Reduction::none) loss[i] = simt::from_float<T>(of_row);
      sums[0] += of_row;
      sums[1] += divisor;
    }
  }
  if (p.reduction != Reduction::none) {
    write_reduced<kRowThreads>(p.reduction == Reduction::mean, sums, loss, total, memory, flag, check_loss);
  }
}

constexpr int kThreads = 256;

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    cross_entropy_dgrad_kernel(const CrossEntropy p, const Rows<T> rows, const Divisor classes,
                               const T* __restrict__ dy, const float* __restrict__ statistics,
                               const float* __restrict__ total, T* __restrict__ gradient, bool by_probabilities) {
  const float kept = 1.0f - p.label_smoothing, spread = p.label_smoothing / static_cast<float>(p.classes);
  float of_spread = p.label_smoothing;  // the sum of what smoothing gives the classes
  if (rows.weight != nullptr && p.label_smoothing > 0.0f) {
    of_spread = 0.0f;
    for (std::int64_t c = threadIdx.x; c < p.classes; c += kThreads) of_spread += spread * weight_of(rows.weight, c);
    of_spread = block_sum<kThreads>(of_spread);
  }
  const float share = p.reduction == Reduction::mean ? 1.0f / *total : 1.0f;
  const std::int64_t count = p.rows * p.classes, step = std::int64_t{gridDim.x} * kThreads * kWidth;
  for (std::int64_t index = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) * kWidth; index < count;
       index += step) {
    const auto [i, first] = classes.divide(index);
    const float largest = statistics[i], of_sum = statistics[p.rows + i];
    const float from_above = simt::to_float(dy[p.reduction == Reduction::none ? i : 0]) * share;
    Floats<kWidth> values = load<kWidth>(rows.scores + index);
    Floats<kWidth> weights{};
    if (rows.probabilities != nullptr || p.label_smoothing > 0.0f) weights = weights_of<kWidth>(rows.weight, first);
    if (rows.probabilities == nullptr) {
      const std::int64_t label = rows.targets[i];
      const bool counts = label != p.ignore_index, is_class = label >= 0 && label < p.classes;
      const float row = counts ? from_above : 0.0f;  // an ignored row has no share, were it infinite
      const float hit = counts && is_class ? weight_of(rows.weight, label) * kept : 0.0f;
      const float whole = row * (hit + of_spread);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        float value = expf(values[j] - largest - of_sum) * whole;
        if (p.label_smoothing > 0.0f) value -= row * spread * weights[j];
        values[j] = first + j == label ? value - hit * row : value;
      }
    } else if (by_probabilities) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        values[j] = -kept * weights[j] * (values[j] - largest - of_sum) * from_above;
      }
    } else {
      const Floats<kWidth> q = load<kWidth>(rows.probabilities + index);
      const float mass = statistics[2 * p.rows + i];
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        const float of_class = (q[j] * kept + spread) * weights[j];
        values[j] = (expf(values[j] - largest - of_sum) * mass - of_class) * from_above;
      }
    }
    store(gradient + index, values);
  }
}

}  // namespace

template <typename T>
simt::Status cross_entropy_fprop(const CrossEntropy& p, const Rows<T>& rows, T* loss, float* statistics, float* total,
                                 unsigned* memory, std::int64_t* flag, bool check_loss, simt::Stream stream) {
  if (p.rows == 0 && p.reduction == Reduction::none) return simt::kSuccess;
  return with_slim_row<T>(are_aligned(rows.scores, rows.probabilities, rows.weight), p.classes, [&](auto type) {
    const Shares shares = shares_of(p.rows, type.kTogether);
    return simt::launch(cross_entropy_fprop_kernel<typename decltype(type)::type>, dim3(shares.blocks),
                        dim3(kRowThreads), 0, stream, p, rows, shares.each, loss, statistics, total, memory, flag,
                        check_loss);
  });
}

template <typename T>
simt::Status cross_entropy_dgrad(const CrossEntropy& p, const Rows<T>& rows, const T* dy, const float* statistics,
                                 const float* total, T* gradient, bool by_probabilities, simt::Stream stream) {
  if (p.rows == 0 || p.classes == 0) return simt::kSuccess;
  const bool wide = p.classes % kPack<T> == 0 && are_aligned(rows.scores, rows.probabilities, rows.weight, gradient);
  const auto kernel = wide ? cross_entropy_dgrad_kernel<T, kPack<T>> : cross_entropy_dgrad_kernel<T, 1>;
  unsigned blocks = 0;
  const std::int64_t items = p.rows * p.classes / (wide ? kPack<T> : 1);
  if (const simt::Status status = one_wave(items, kThreads, &blocks); status != simt::kSuccess) return status;
  return simt::launch(kernel, dim3(blocks), dim3(kThreads), 0, stream, p, rows, divisor_of(p.classes), dy, statistics,
                      total, gradient, by_probabilities);
}

#define GPUCNN_CROSS_ENTROPY(T)                                                                                        \
  template simt::Status cross_entropy_fprop(const CrossEntropy&, const Rows<T>&, T*, float*, float*, unsigned*,        \
                                            std::int64_t*, bool, simt::Stream);                                        \
  template simt::Status cross_entropy_dgrad(const CrossEntropy&, const Rows<T>&, const T*, const float*, const float*, \
                                            T*, bool, simt::Stream);
GPUCNN_CROSS_ENTROPY(float)
GPUCNN_CROSS_ENTROPY(simt::half)
GPUCNN_CROSS_ENTROPY(simt::bfloat16)
#undef GPUCNN_CROSS_ENTROPY

}  // namespace gpucnn

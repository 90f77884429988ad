// loss[i] = formula(x[i], t[i]), or the sum of all over a divisor, and the gradients slope(x[i], t[i]) * dy / divisor:
// one kernel each way for every formula of formulas.h. Arithmetic in float32.
//
// Layout   flat memory, all arrays in one order; a factor w of fewer elements is repeated.
// Block    256 threads. Forward: a run of elements; their sum is added to those of the other blocks by the last, in
//          order. Backward: packs a grid apart.
// Thread   packs of 16 bytes; elements one by one where memory is not aligned, and at the end.
// Limits   2^38 elements; w below 2^31, or as many as x has.
// Bound    memory: a sum reads 8 bytes an element in float32, a gradient reads 8 and writes 4 (and reads 4 more of a dy
//          for each). On an H100 (copy 3.0 TB/s) 32 images of 3x224x224, 4.8 M elements, take 13 us and 19 us.
// Measured not run on hardware yet.
#include "common/flag.h"
#include "common/grid.h"
#include "common/index.h"
#include "common/ordered_sum.h"
#include "common/pack.h"
#include "regression_loss/formulas.h"
#include "regression_loss/regression_loss.h"

#include <cstdint>
#include <type_traits>

namespace gpucnn {
namespace {

constexpr int kThreads = 256;

template <typename T>
struct Operands {
  LossOperands<T> given;
  Divisor of_weight;  // w_count, where w is repeated
  bool in_packs;      // whether packs of w lie together and aligned

  // Of elements i, i + 1, ...
  template <int kWidth>
  __device__ __forceinline__ Floats<kWidth> weights(std::int64_t i) const {
    Floats<kWidth> found;
    if (given.w == nullptr) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) found[j] = 1.0f;
      return found;
    }
    const auto place = [&](std::int64_t at) { return given.w_count == given.count ? at : of_weight.divide(at).rest; };
    if (in_packs) return load<kWidth>(given.w + place(i));
#pragma unroll
    for (int j = 0; j < kWidth; ++j) found[j] = simt::to_float(given.w[place(i + j)]);
    return found;
  }

  __device__ __forceinline__ loss::Constants constants(float weight) const {
    return {given.delta, given.scale, weight, given.w != nullptr};
  }
};

template <typename T, typename Formula, int kWidth>
__device__ __forceinline__ Floats<kWidth> values_at(const Operands<T>& operands, std::int64_t i, std::int64_t* flag) {
  Floats<kWidth> x = load<kWidth>(operands.given.x + i);
  const Floats<kWidth> t = load<kWidth>(operands.given.t + i), weights = operands.template weights<kWidth>(i);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    if constexpr (std::is_same_v<Formula, loss::Bce>) {
      if (!(Formula::is_probability(x[j]) && Formula::is_probability(t[j]))) {
        raise_flag(flag, Trouble::kProbability, i + j);
      }
    }
    x[j] = Formula::value(x[j], t[j], operands.constants(weights[j]));
  }
  return x;
}

template <typename T, typename Formula>
__global__ void __launch_bounds__(kThreads)
    loss_kernel(const Operands<T> operands, std::int64_t each, bool aligned, bool reduce, T* __restrict__ loss,
                unsigned* __restrict__ memory, std::int64_t* __restrict__ flag, bool check_loss) {
  constexpr int kWidth = kPack<T>;
  const std::int64_t begin = blockIdx.x * each, end = min(begin + each, operands.given.count);
  const std::int64_t packed = aligned ? begin + (end - begin) / kWidth * kWidth : begin;
  Floats<1> sum;
  sum[0] = 0.0f;
  for (std::int64_t i = begin + threadIdx.x * kWidth; i < packed; i += kThreads * kWidth) {
    const Floats<kWidth> values = values_at<T, Formula, kWidth>(operands, i, flag);
    if (reduce) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) sum[0] += values[j];
    } else {
      store(loss + i, values);
    }
  }
  for (std::int64_t i = packed + threadIdx.x; i < end; i += kThreads) {
    const Floats<1> value = values_at<T, Formula, 1>(operands, i, flag);
    if (reduce) {
      sum[0] += value[0];
    } else {
      store(loss + i, value);
    }
  }
  if (!reduce) return;
  if (sum_in_order<kThreads>(memory, sum) && threadIdx.x == 0) {
    const T rounded = simt::from_float<T>(sum[0] / operands.given.divisor);
    *loss = rounded;
    if (check_loss && !is_finite(simt::to_float(rounded))) raise_flag(flag, Trouble::kLoss, 0);
  }
}

template <typename T, typename Formula, int kWidth>
__device__ __forceinline__ void slopes_at(const Operands<T>& operands, const T* dy, bool dy_is_one, bool by_target,
                                          T* gradient, std::int64_t i) {
  const Floats<kWidth> x = load<kWidth>(operands.given.x + i), t = load<kWidth>(operands.given.t + i);
  const Floats<kWidth> weights = operands.template weights<kWidth>(i);
  Floats<kWidth> above;
  if (dy_is_one) {
    const float one = simt::to_float(*dy);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) above[j] = one;
  } else {
    above = load<kWidth>(dy + i);
  }
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    const loss::Constants constants = operands.constants(weights[j]);
    const float slope = by_target ? Formula::by_t(x[j], t[j], constants) : Formula::by_x(x[j], t[j], constants);
    above[j] = slope * above[j] / operands.given.divisor;
  }
  store(gradient + i, above);
}

template <typename T, typename Formula>
__global__ void __launch_bounds__(kThreads)
    slope_kernel(const Operands<T> operands, const T* __restrict__ dy, bool aligned, bool dy_is_one, bool by_target,
                 T* __restrict__ gradient) {
  constexpr int kWidth = kPack<T>;
  const std::int64_t count = operands.given.count, packs = aligned ? count / kWidth : 0;
  const std::int64_t first = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const std::int64_t threads = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = first; i < packs; i += threads) {
    slopes_at<T, Formula, kWidth>(operands, dy, dy_is_one, by_target, gradient, i * kWidth);
  }
  for (std::int64_t i = packs * kWidth + first; i < count; i += threads) {
    slopes_at<T, Formula, 1>(operands, dy, dy_is_one, by_target, gradient, i);
  }
}

template <typename Formula_>
struct FormulaType {
  using type = Formula_;
};

// What launch(FormulaType<...>{}) returns for the formula of `kind`.
template <typename Launch>
simt::Status with_formula(Loss kind, Launch launch) {
  switch (kind) {
    case Loss::mse:
      return launch(FormulaType<loss::Mse>{});
    case Loss::l1:
      return launch(FormulaType<loss::L1>{});
    case Loss::huber:
      return launch(FormulaType<loss::Huber>{});
    case Loss::bce:
      return launch(FormulaType<loss::Bce>{});
    case Loss::bce_with_logits:
      return launch(FormulaType<loss::BceWithLogits>{});
    case Loss::kl_div:
      return launch(FormulaType<loss::KlDiv>{});
    default:
      return launch(FormulaType<loss::KlDivLog>{});
  }
}

template <typename T>
Operands<T> operands_of(const LossOperands<T>& given) {
  const bool repeats = given.w != nullptr && given.w_count != given.count;
  const bool in_packs = are_aligned(given.w) && (!repeats || given.w_count % kPack<T> == 0);
  return {given, divisor_of(repeats ? given.w_count : 1), in_packs};
}

}  // namespace

template <typename T>
simt::Status regression_loss_fprop(Loss kind, const LossOperands<T>& operands, bool reduce, T* loss, unsigned* memory,
                                   std::int64_t* flag, bool check_loss, simt::Stream stream) {
  if (operands.count == 0 && !reduce) return simt::kSuccess;
  const Shares shares = shares_of(operands.count, kThreads * kPack<T>);
  const bool aligned = are_aligned(operands.x, operands.t) && (reduce || are_aligned(loss));
  return with_formula(kind, [&](auto formula) {
    return simt::launch(loss_kernel<T, typename decltype(formula)::type>, dim3(shares.blocks), dim3(kThreads), 0,
                        stream, operands_of(operands), shares.each, aligned, reduce, loss, memory, flag, check_loss);
  });
}

template <typename T>
simt::Status regression_loss_dgrad(Loss kind, const LossOperands<T>& operands, const T* dy, bool dy_is_one,
                                   bool by_target, T* gradient, simt::Stream stream) {
  if (operands.count == 0) return simt::kSuccess;
  const bool aligned = are_aligned(operands.x, operands.t, gradient) && (dy_is_one || are_aligned(dy));
  unsigned blocks = 0;
  const simt::Status status = one_wave(blocks_of(aligned ? kPack<T> : 1, operands.count), kThreads, &blocks);
  if (status != simt::kSuccess) return status;
  return with_formula(kind, [&](auto formula) {
    return simt::launch(slope_kernel<T, typename decltype(formula)::type>, dim3(blocks), dim3(kThreads), 0, stream,
                        operands_of(operands), dy, aligned, dy_is_one, by_target, gradient);
  });
}

#define GPUCNN_REGRESSION_LOSS(T)                                                                                     \
  template simt::Status regression_loss_fprop(Loss, const LossOperands<T>&, bool, T*, unsigned*, std::int64_t*, bool, \
                                              simt::Stream);                                                          \
  template simt::Status regression_loss_dgrad(Loss, const LossOperands<T>&, const T*, bool, bool, T*, simt::Stream);
GPUCNN_REGRESSION_LOSS(float)
GPUCNN_REGRESSION_LOSS(simt::half)
GPUCNN_REGRESSION_LOSS(simt::bfloat16)
#undef GPUCNN_REGRESSION_LOSS

}  // namespace gpucnn

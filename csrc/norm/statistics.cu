// Mean and 1 / deviation of each channel of each set, from the partial statistics of moments.cu or from running ones,
// and the coefficients that the elementwise pass takes:
//
//     mean = first row + mean of the differences, inverse = 1 / sqrt(squares / M + eps)
//     running = (1 - momentum) * running + momentum * own, of the variance the unbiased one, squares / (M - 1)
//     y = (x - centre) * scale + shift:  centre = mean rounded, scale = inverse * weight,
//                                        shift = bias - (mean - centre) * scale
//
// The mean is kept in double precision: what rounding it would lose is in the shift.
//
// merge_kernel    a warp for every so many splits of 32 channels, which it merges in order (merge.h); then a tree over
//                 the warps, and a thread for each channel makes the coefficients. One launch suffices batch norm.
// group_kernel    where channels share a statistic: a warp for each group of a set.
// average_kernel  moves running statistics towards the average set's, where there are several: a thread a channel.
// stored_kernel   coefficients from running statistics: a thread a channel.
//
// Layout   partial (B, 2 * splits + 1, C), which merge_kernel leaves squares of the whole set in at [b][1] where
//          another kernel follows; mean, inverse (B,C), coefficients (3,B,C).
// Limits   B * C below 2^36; splits of moments.cu in [1, 528], of a convolution that takes them as many as it has
// tiles. Bound    latency: batch norm over C256 reads 0.5 MB that the cache holds, some 3 us. Measured not run on
// hardware yet.
#include "common/index.h"
#include "common/reduce.h"
#include "norm/merge.h"
#include "norm/norm.h"
#include "norm/splits.h"
#include "simt/simt.h"

namespace gpucnn {
namespace {

constexpr int kThreads = 256;

// What the kernels write for each channel of each set.
struct Results {
  double *mean, *inverse;
  float* coefficients;
  std::int64_t sets_channels;  // B * C

  __device__ __forceinline__ void write(std::int64_t at, std::int64_t channel, double middle, float var, float eps,
                                        const NormParameters& of) const {
    const float deviation_inverse = 1.0f / sqrtf(var + eps);
    const float centre = static_cast<float>(middle), rest = static_cast<float>(middle - static_cast<double>(centre));
    const float scale = of.weight ? deviation_inverse * of.weight[channel] : deviation_inverse;
    mean[at] = middle;
    inverse[at] = static_cast<double>(deviation_inverse);
    coefficients[at] = centre;
    coefficients[sets_channels + at] = scale;
    coefficients[2 * sets_channels + at] = (of.bias ? of.bias[channel] : 0.0f) - rest * scale;
  }
};

__device__ __forceinline__ void move_running(const NormParameters& of, std::int64_t channel, float momentum, float mean,
                                             float unbiased) {
  of.running_mean[channel] = (1.0f - momentum) * of.running_mean[channel] + momentum * mean;
  of.running_var[channel] = (1.0f - momentum) * of.running_var[channel] + momentum * unbiased;
}

__global__ void __launch_bounds__(32 * kMostWarps)
    merge_kernel(NormProblem p, std::int64_t splits, std::int64_t rows_of_split, const float* partial, float* work,
                 NormParameters of, Results to) {
  SIMT_SHARED(float, means, [kMostWarps][32]);
  SIMT_SHARED(float, squares, [kMostWarps][32]);
  SIMT_SHARED(float, counts, [kMostWarps][32]);
  const Strand at(p.C);
  const float* const mine = partial + at.set * (2 * splits + 1) * p.C + at.channel;
  float count = 0.0f, mean = 0.0f, square = 0.0f;
#pragma unroll 4
  for (std::int64_t split = at.warp; split < (at.is_mine ? splits : 0); split += at.warps) {
    const float second_mean = mine[2 * split * p.C], second_square = mine[(2 * split + 1) * p.C];
    const float number = static_cast<float>(min(rows_of_split, p.M - split * rows_of_split));
    merge(mean, square, second_mean, second_square, Share(count, number));
    count += number;
  }
  means[at.warp][at.lane] = mean;
  squares[at.warp][at.lane] = square;
  counts[at.warp][at.lane] = count;
  for (int half = at.warps / 2; half > 0; half /= 2) {
    __syncthreads();
    if (at.warp < half) {
      const int other = at.warp + half;
      const float number = counts[other][at.lane];
      merge(mean, square, means[other][at.lane], squares[other][at.lane], Share(count, number));
      count += number;
      means[at.warp][at.lane] = mean;
      squares[at.warp][at.lane] = square;
      counts[at.warp][at.lane] = count;
    }
  }
  if (at.warp == 0 && at.is_mine) {
    const double middle = static_cast<double>(mine[2 * splits * p.C]) + static_cast<double>(mean);
    if (p.groups != p.C || p.B > 1) work[(at.set * (2 * splits + 1) + 1) * p.C + at.channel] = square;
    if (p.groups == p.C) {
      to.write(at.in(p.C), at.channel, middle, square / static_cast<float>(p.M), p.eps, of);
    } else {
      to.mean[at.in(p.C)] = middle;
    }
    if (p.B == 1 && of.running_mean) {
      const float unbiased = square / static_cast<float>(max(p.M - 1, std::int64_t{1}));
      move_running(of, at.channel, p.momentum, static_cast<float>(middle), unbiased);
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    group_kernel(NormProblem p, const float* __restrict__ partial, std::int64_t lines, NormParameters of, Results to) {
  const std::int64_t group = std::int64_t{blockIdx.x} * (kThreads / 32) + threadIdx.x / 32;  // of all sets
  if (group < p.B * p.groups) {                                                              // the same in all lanes
    const int lane = static_cast<int>(threadIdx.x % 32), each = static_cast<int>(p.C / p.groups);
    const std::int64_t set = group / p.groups, first = group % p.groups * each;
    double* const means = to.mean + set * p.C + first;
    const float* const squares = partial + (set * lines + 1) * p.C + first;
    const double start = means[0];
    float sum = 0.0f;
    for (int i = lane; i < each; i += 32) sum += static_cast<float>(means[i] - start);
    const float offset = warp_sum(sum) / static_cast<float>(each);
    float square = 0.0f;
    for (int i = lane; i < each; i += 32) {
      const float apart = static_cast<float>(means[i] - start) - offset;
      square += squares[i] + static_cast<float>(p.M) * (apart * apart);
    }
    const float var = warp_sum(square) / (static_cast<float>(p.M) * static_cast<float>(each));
    __syncwarp();  // means[0] is read by all before it is written
    for (int i = lane; i < each; i += 32) {
      to.write(set * p.C + first + i, first + i, start + static_cast<double>(offset), var, p.eps, of);
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    average_kernel(NormProblem p, const float* __restrict__ partial, std::int64_t lines,
                   const double* __restrict__ mean, NormParameters of) {
  const std::int64_t channel = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (channel < p.C) {
    double sum = 0.0, squares = 0.0;
    for (std::int64_t set = 0; set < p.B; ++set) {
      sum += mean[set * p.C + channel];
      squares += static_cast<double>(partial[(set * lines + 1) * p.C + channel]);
    }
    const double degrees = static_cast<double>(max(p.M - 1, std::int64_t{1})) * static_cast<double>(p.B);
    move_running(of, channel, p.momentum, static_cast<float>(sum / static_cast<double>(p.B)),
                 static_cast<float>(squares / degrees));
  }
}

__global__ void __launch_bounds__(kThreads) stored_kernel(NormProblem p, NormParameters of, Results to) {
  const std::int64_t channel = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (channel < p.C) {
    to.write(channel, channel, static_cast<double>(of.running_mean[channel]), of.running_var[channel], p.eps, of);
  }
}

dim3 blocks_for(std::int64_t threads) {
  return dim3(static_cast<unsigned>(blocks_of(kThreads, threads)));
}

}  // namespace

simt::Status norm_statistics(const NormProblem& p, std::int64_t splits, std::int64_t rows_of_split,
                             const float* partial, float* work, const NormParameters& of, double* mean, double* inverse,
                             float* coefficients, simt::Stream stream) {
  if (p.empty()) return simt::kSuccess;
  const Results to{mean, inverse, coefficients, p.B * p.C};
  if (!p.own) return simt::launch(stored_kernel, blocks_for(p.C), dim3(kThreads), 0, stream, p, of, to);
  const std::int64_t lines = 2 * splits + 1;
  simt::Status status =
      simt::launch(merge_kernel, strand_blocks(p), dim3(static_cast<unsigned>(32 * warps_for(splits))), 0, stream, p,
                   splits, rows_of_split, partial, work, of, to);
  if (status == simt::kSuccess && p.groups != p.C) {
    status =
        simt::launch(group_kernel, blocks_for(p.B * p.groups * 32), dim3(kThreads), 0, stream, p, work, lines, of, to);
  }
  if (status == simt::kSuccess && p.B > 1 && of.running_mean) {
    status = simt::launch(average_kernel, blocks_for(p.C), dim3(kThreads), 0, stream, p, work, lines, mean, of);
  }
  return status;
}

}  // namespace gpucnn

// From the partial sums of gradient_sums.cu to the gradients of weight and bias and the coefficients of dx. With G the
// sum of g = dy and P that of g * (x - mean) over the M positions of a set,
//
//     dbias = G, dweight = P * inverse, summed over sets
//     dx = inverse * (h - mean(h) - z * mean(h * z))     h = g * weight, z = (x - mean) * inverse, means over what
//     shares
//                                                        a statistic (Ioffe and Szegedy 2015, to the end)
//        = g * by_g + (x - centre) * by_x + term         by_g = inverse * weight, by_x = -inverse^3 * mean(weight * P),
//                                                        term = -inverse * mean(weight * G) - (mean - centre) * by_x
//
// merge_sums_kernel       a warp for every so many splits of 32 channels, which it adds up in order; a tree over the
//                         warps; a thread for each channel then makes all of the above. One launch suffices batch norm.
// group_sums_kernel       where channels share a statistic: a warp for each group of a set.
// parameter_grads_kernel  where there are several sets: a thread for each channel adds them up in order.
//
// Layout   partial (B, 2 * splits, C), which merge_sums_kernel leaves G and P of the whole set in at [b][0] and [b][1];
//          mean, inverse (B,C); coefficients (4,B,C): by_g, centre, by_x, term; dweight, dbias (C,).
// Limits   B * C below 2^36; splits in [0, 528], 0 where only by_g is asked for.
// Bound    latency: batch norm over C256 reads 0.5 MB that the cache holds, some 3 us.
// Measured not run on hardware yet.
#include "common/index.h"
#include "common/reduce.h"
#include "norm/norm.h"
#include "norm/splits.h"
#include "simt/simt.h"

namespace gpucnn {
namespace {

constexpr int kThreads = 256;

struct Gradients {
  const float* weight;
  const double *mean, *inverse;
  float *coefficients, *dweight, *dbias;
  std::int64_t sets_channels;  // B * C

  __device__ __forceinline__ float weight_of(std::int64_t channel) const { return weight ? weight[channel] : 1.0f; }

  // Of mean(weight * G) and mean(weight * P); both 0 where the statistics were not the sets' own.
  __device__ __forceinline__ void write(std::int64_t at, std::int64_t channel, float mean_of_total,
                                        float mean_of_products) const {
    const float deviation_inverse = static_cast<float>(inverse[at]), centre = static_cast<float>(mean[at]);
    const float rest = static_cast<float>(mean[at] - static_cast<double>(centre));
    const float by_x = -(mean_of_products * deviation_inverse) * deviation_inverse * deviation_inverse;
    coefficients[at] = deviation_inverse * weight_of(channel);
    coefficients[sets_channels + at] = centre;
    coefficients[2 * sets_channels + at] = by_x;
    coefficients[3 * sets_channels + at] = -(mean_of_total * deviation_inverse) - rest * by_x;
  }
};

__global__ void __launch_bounds__(32 * kMostWarps)
    merge_sums_kernel(NormProblem p, std::int64_t splits, float* partial, Gradients to) {
  SIMT_SHARED(float, totals, [kMostWarps][32]);
  SIMT_SHARED(float, products, [kMostWarps][32]);
  const Strand at(p.C);
  float* const mine = partial + at.set * 2 * splits * p.C + at.channel;
  float total = 0.0f, product = 0.0f;
#pragma unroll 4
  for (std::int64_t split = at.warp; split < (at.is_mine ? splits : 0); split += at.warps) {
    total += mine[2 * split * p.C];
    product += mine[(2 * split + 1) * p.C];
  }
  totals[at.warp][at.lane] = total;
  products[at.warp][at.lane] = product;
  for (int half = at.warps / 2; half > 0; half /= 2) {
    __syncthreads();
    if (at.warp < half) {
      totals[at.warp][at.lane] = total += totals[at.warp + half][at.lane];
      products[at.warp][at.lane] = product += products[at.warp + half][at.lane];
    }
  }
  if (at.warp == 0 && at.is_mine) {
    const std::int64_t here = at.in(p.C);
    const double middle = to.mean[here];
    product -= static_cast<float>(middle - static_cast<double>(static_cast<float>(middle))) * total;
    if (splits > 0) {
      mine[0] = total;
      mine[p.C] = product;
    }
    if (p.groups == p.C) {
      const float share = p.own ? to.weight_of(at.channel) / static_cast<float>(p.M) : 0.0f;
      to.write(here, at.channel, share == 0.0f ? 0.0f : total * share, share == 0.0f ? 0.0f : product * share);
    }
    if (p.B == 1) {
      if (to.dweight) to.dweight[at.channel] = product * static_cast<float>(to.inverse[here]);
      if (to.dbias) to.dbias[at.channel] = total;
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    group_sums_kernel(NormProblem p, std::int64_t lines, const float* __restrict__ partial, Gradients to) {
  const std::int64_t group = std::int64_t{blockIdx.x} * (kThreads / 32) + threadIdx.x / 32;  // of all sets
  if (group < p.B * p.groups) {                                                              // the same in all lanes
    const int lane = static_cast<int>(threadIdx.x % 32), each = static_cast<int>(p.C / p.groups);
    const std::int64_t set = group / p.groups, first = group % p.groups * each;
    const float* const sums = partial + set * lines * p.C + first;
    float total = 0.0f, product = 0.0f;
    for (int i = lane; i < each; i += 32) {
      total += sums[i] * to.weight_of(first + i);
      product += sums[p.C + i] * to.weight_of(first + i);
    }
    const float number = static_cast<float>(p.M) * static_cast<float>(each);
    total = warp_sum(total) / number;
    product = warp_sum(product) / number;
    for (int i = lane; i < each; i += 32) to.write(set * p.C + first + i, first + i, total, product);
  }
}

__global__ void __launch_bounds__(kThreads)
    parameter_grads_kernel(NormProblem p, std::int64_t lines, const float* __restrict__ partial, Gradients to) {
  const std::int64_t channel = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (channel < p.C) {
    float total = 0.0f, product = 0.0f;
#pragma unroll 4
    for (std::int64_t set = 0; set < p.B; ++set) {
      total += partial[set * lines * p.C + channel];
      product += partial[(set * lines + 1) * p.C + channel] * static_cast<float>(to.inverse[set * p.C + channel]);
    }
    if (to.dweight) to.dweight[channel] = product;
    if (to.dbias) to.dbias[channel] = total;
  }
}

dim3 blocks_for(std::int64_t threads) {
  return dim3(static_cast<unsigned>(blocks_of(kThreads, threads)));
}

}  // namespace

simt::Status norm_gradient_coefficients(const NormProblem& p, std::int64_t splits, float* partial, const float* weight,
                                        const double* mean, const double* inverse, float* coefficients, float* dweight,
                                        float* dbias, simt::Stream stream) {
  if (p.empty()) return simt::kSuccess;
  const Gradients to{weight, mean, inverse, coefficients, dweight, dbias, p.B * p.C};
  simt::Status status =
      simt::launch(merge_sums_kernel, strand_blocks(p), dim3(static_cast<unsigned>(32 * warps_for(splits))), 0, stream,
                   p, splits, partial, to);
  if (status == simt::kSuccess && p.groups != p.C) {
    status = simt::launch(group_sums_kernel, blocks_for(p.B * p.groups * 32), dim3(kThreads), 0, stream, p, 2 * splits,
                          partial, to);
  }
  if (status == simt::kSuccess && p.B > 1 && (dweight || dbias)) {
    status =
        simt::launch(parameter_grads_kernel, blocks_for(p.C), dim3(kThreads), 0, stream, p, 2 * splits, partial, to);
  }
  return status;
}

}  // namespace gpucnn

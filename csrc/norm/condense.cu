// Partial statistics of the many splits that a convolution's tiles are as those of a few, which statistics.cu goes
// through quickly: `each` neighbours merged into one, in order (merge.h).
//
// Layout   taken (2 * splits + 1, C), partial (2 * parts + 1, C): mean and squares of split 0, 1, ..., the first row.
// Block    256 threads: 8 parts of 32 channels.
// Thread   a channel of a part.
// Limits   parts * C / 256 below 2^31.
// Bound    latency: the splits of N32 C64 112x112 in tiles of 128 are 1.6 MB that the cache holds, some 3 us; the array
//          that they spare a pass over is 51 MB in 16 bits, 17 us.
// Measured not run on hardware yet.
#include "common/index.h"
#include "norm/merge.h"
#include "norm/norm.h"
#include "simt/simt.h"

namespace gpucnn {
namespace {

constexpr int kThreads = 256, kLanes = 32;
constexpr std::int64_t kMostSplits = 528;  // that statistics.cu is left with
constexpr std::int64_t kParts = 264;       // that more of them become, at most

struct Parts {
  std::int64_t splits, each, parts, rows_of_split, rows, channels;
};

__global__ void __launch_bounds__(kThreads)
    condense_kernel(Parts p, const float* __restrict__ taken, float* __restrict__ partial) {
  const unsigned tiles = static_cast<unsigned>((p.channels + kLanes - 1) / kLanes);
  const std::int64_t channel = std::int64_t{blockIdx.x % tiles} * kLanes + threadIdx.x % kLanes;
  const std::int64_t part = std::int64_t{blockIdx.x / tiles} * (kThreads / kLanes) + threadIdx.x / kLanes;
  if (channel < p.channels && part < p.parts) {
    const std::int64_t end = min((part + 1) * p.each, p.splits);
    float count = 0.0f, mean = 0.0f, square = 0.0f;
#pragma unroll 4
    for (std::int64_t split = part * p.each; split < end; ++split) {
      const float second_mean = taken[2 * split * p.channels + channel];
      const float second_square = taken[(2 * split + 1) * p.channels + channel];
      const float number = static_cast<float>(min(p.rows_of_split, p.rows - split * p.rows_of_split));
      merge(mean, square, second_mean, second_square, Share(count, number));
      count += number;
    }
    partial[2 * part * p.channels + channel] = mean;
    partial[(2 * part + 1) * p.channels + channel] = square;
    if (part == 0) partial[2 * p.parts * p.channels + channel] = taken[2 * p.splits * p.channels + channel];
  }
}

std::int64_t each_of(std::int64_t splits) {
  return splits > kMostSplits ? blocks_of(kParts, splits) : 1;
}

}  // namespace

std::int64_t norm_condensed_splits(std::int64_t splits) {
  return blocks_of(each_of(splits), splits);
}

simt::Status norm_condense(const NormProblem& p, std::int64_t splits, std::int64_t rows_of_split, const float* taken,
                           float* partial, simt::Stream stream) {
  if (p.empty()) return simt::kSuccess;
  const std::int64_t each = each_of(splits);
  const Parts of{splits, each, blocks_of(each, splits), rows_of_split, p.M, p.C};
  const std::int64_t blocks = blocks_of(kLanes, p.C) * blocks_of(kThreads / kLanes, of.parts);
  return simt::launch(condense_kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream, of, taken,
                      partial);
}

}  // namespace gpucnn

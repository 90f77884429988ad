// sums[i] = parts[0][i] + parts[1][i] + ... in this order, float32: the second stage of a split sum.
//
// Layout   parts (splits,count), sums (count,).
// Thread   one sum; neighbours own neighbouring ones, so a warp reads 128 contiguous bytes of each part.
// Limits   splits in [1, 2^31), count in [1, 2^38].
// Bound    memory: 4 bytes an element of parts. 16 MiB, the most that a weight gradient has, take 5 us at an H100's
//          3.35 TB/s; few sums of many parts are slower, for want of threads.
// Measured not run on hardware yet.
#include "common/index.h"
#include "conv2d/direct_sum.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) sum_parts_kernel(const float* __restrict__ parts, float* __restrict__ sums,
                                                             std::int64_t splits, std::int64_t count) {
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= count) return;
  float sum = parts[index];
  for (std::int64_t split = 1; split < splits; ++split) sum += parts[split * count + index];
  sums[index] = sum;
}

}  // namespace

simt::Status sum_parts(const float* parts, float* sums, std::int64_t splits, std::int64_t count, simt::Stream stream) {
  const std::int64_t blocks = blocks_of(kThreads, count);
  return simt::launch(sum_parts_kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream, parts, sums,
                      splits, count);
}

}  // namespace gpucnn

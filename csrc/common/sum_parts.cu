// sums[i] = parts[0][i] + parts[1][i] + ... in this order: the second stage of a split sum.
//
// Layout   parts (splits,count) float32, sums (count,) float, half or bfloat16: added in float32, rounded once.
// Thread   one sum; neighbours own neighbouring ones, so a warp reads 128 contiguous bytes of each part.
// Limits   splits in [1, 2^31), count in [0, 2^38].
// Bound    memory: 4 bytes an element of parts. 16 MiB, the most that a direct weight gradient has, take 5.6 us at an
//          H100's 3.0 TB/s; few sums of many parts are slower, for want of threads.
// Measured not run on hardware yet.
#include "common/index.h"
#include "common/sum_parts.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    sum_parts_kernel(const float* __restrict__ parts, T* __restrict__ sums, std::int64_t splits, std::int64_t count) {
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= count) return;
  float sum = parts[index];
  for (std::int64_t split = 1; split < splits; ++split) sum += parts[split * count + index];
  sums[index] = simt::from_float<T>(sum);
}

}  // namespace

template <typename T>
simt::Status sum_parts(const float* parts, T* sums, std::int64_t splits, std::int64_t count, simt::Stream stream) {
  if (count == 0) return simt::kSuccess;
  const std::int64_t blocks = blocks_of(kThreads, count);
  return simt::launch(sum_parts_kernel<T>, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream, parts, sums,
                      splits, count);
}

template simt::Status sum_parts(const float*, float*, std::int64_t, std::int64_t, simt::Stream);
template simt::Status sum_parts(const float*, simt::half*, std::int64_t, std::int64_t, simt::Stream);
template simt::Status sum_parts(const float*, simt::bfloat16*, std::int64_t, std::int64_t, simt::Stream);

}  // namespace gpucnn

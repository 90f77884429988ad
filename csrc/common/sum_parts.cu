// sums[i] = parts[0][i] + parts[1][i] + ... in a fixed order: the second stage of a split sum.
//
// Layout   parts (splits,count) float32, sums (count,) float, half or bfloat16: added in float32, rounded once.
// Block    32 sums. Each of its 8 warps adds every eighth part, beginning with its own number; then the first warp adds
//          what the eight have, in their order.
// Thread   one sum and an eighth of its parts; a warp reads 128 contiguous bytes of each part.
// Limits   splits in [1, 2^31), count in [0, 2^36).
// Bound    memory: 4 bytes an element of parts. 16 MiB, the most that a direct weight gradient has, take 5.6 us at an
//          H100's 3.0 TB/s.
// Measured not run on hardware yet.
#include "common/index.h"
#include "common/sum_parts.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kLanes = 32, kWarps = 8;

template <typename T>
__global__ void __launch_bounds__(kLanes* kWarps)
    sum_parts_kernel(const float* __restrict__ parts, T* __restrict__ sums, std::int64_t splits, std::int64_t count) {
  SIMT_SHARED(float, shares, [kWarps][kLanes]);
  const int lane = static_cast<int>(threadIdx.x) % kLanes, warp = static_cast<int>(threadIdx.x) / kLanes;
  const std::int64_t index = std::int64_t{blockIdx.x} * kLanes + lane;
  float sum = 0.0f;
  if (index < count) {
#pragma unroll 8
    for (std::int64_t split = warp; split < splits; split += kWarps) sum += parts[split * count + index];
  }
  shares[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || index >= count) return;
#pragma unroll
  for (int other = 1; other < kWarps; ++other) sum += shares[other][lane];
  sums[index] = simt::from_float<T>(sum);
}

}  // namespace

template <typename T>
simt::Status sum_parts(const float* parts, T* sums, std::int64_t splits, std::int64_t count, simt::Stream stream) {
  if (count == 0) return simt::kSuccess;
  const std::int64_t blocks = blocks_of(kLanes, count);
  return simt::launch(sum_parts_kernel<T>, dim3(static_cast<unsigned>(blocks)), dim3(kLanes * kWarps), 0, stream, parts,
                      sums, splits, count);
}

template simt::Status sum_parts(const float*, float*, std::int64_t, std::int64_t, simt::Stream);
template simt::Status sum_parts(const float*, simt::half*, std::int64_t, std::int64_t, simt::Stream);
template simt::Status sum_parts(const float*, simt::bfloat16*, std::int64_t, std::int64_t, simt::Stream);

}  // namespace gpucnn

// sums[i] = the sum over splits of parts[split][i]: the second stage of a split sum.
//
// The splits are cut into kRuns runs of neighbours. Each run is added in order, and then the runs' sums are: the same
// bits always.
//
// Layout   parts (splits,count) float32, sums (count,) float, half or bfloat16: added in float32, rounded once.
// Block    32 packs of 4 sums, all splits; 32 single sums where count or an address is no multiple of 4's.
// Warp     one run of splits: 512 contiguous bytes of each part. Runs meet in shared memory.
// Limits   splits in [1, 2^31), count in [0, 2^38].
// Bound    memory: 4 bytes an element of parts. 64 MiB, the most that a weight gradient has, take 22 us at an H100's
//          3.0 TB/s.
// Measured not run on hardware yet.
#include "common/index.h"
#include "common/pack.h"
#include "common/sum_parts.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kRuns = 8;  // warps of a block

template <typename T, int kTogether>
__global__ void __launch_bounds__(kRuns * 32)
    sum_parts_kernel(const float* __restrict__ parts, T* __restrict__ sums, std::int64_t splits, std::int64_t count) {
  SIMT_SHARED(float, found, [kRuns][32 * kTogether]);
  const int lane = static_cast<int>(threadIdx.x) % 32, run = static_cast<int>(threadIdx.x) / 32;
  const std::int64_t index = (std::int64_t{blockIdx.x} * 32 + lane) * kTogether;
  const std::int64_t each = (splits + kRuns - 1) / kRuns, end = min(splits, (run + 1) * each);
  Floats<kTogether> sum{};
  if (index < count) {
#pragma unroll 4
    for (std::int64_t split = run * each; split < end; ++split) {
      const Floats<kTogether> part = load<kTogether>(parts + split * count + index);
#pragma unroll
      for (int i = 0; i < kTogether; ++i) sum[i] += part[i];
    }
  }
  store(&found[run][lane * kTogether], sum);
  __syncthreads();
  if (run != 0 || index >= count) return;
#pragma unroll
  for (int other = 1; other < kRuns; ++other) {
    const Floats<kTogether> part = load<kTogether>(&found[other][lane * kTogether]);
#pragma unroll
    for (int i = 0; i < kTogether; ++i) sum[i] += part[i];
  }
  store(sums + index, sum);
}

}  // namespace

template <typename T>
simt::Status sum_parts(const float* parts, T* sums, std::int64_t splits, std::int64_t count, simt::Stream stream) {
  if (count == 0) return simt::kSuccess;
  const bool wide = count % 4 == 0 && are_aligned(parts, sums);
  const std::int64_t blocks = blocks_of(32 * (wide ? 4 : 1), count);
  return simt::launch(wide ? sum_parts_kernel<T, 4> : sum_parts_kernel<T, 1>, dim3(static_cast<unsigned>(blocks)),
                      dim3(kRuns * 32), 0, stream, parts, sums, splits, count);
}

template simt::Status sum_parts(const float*, float*, std::int64_t, std::int64_t, simt::Stream);
template simt::Status sum_parts(const float*, simt::half*, std::int64_t, std::int64_t, simt::Stream);
template simt::Status sum_parts(const float*, simt::bfloat16*, std::int64_t, std::int64_t, simt::Stream);

}  // namespace gpucnn

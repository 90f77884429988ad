// db[k] = sum over n, p, q of dy[n,p,q,k]. Stored as float, half or bfloat16, summed in float32.
//
// The N*P*Q positions are cut into splits of equal length. Each split's sums go to a part of `partial` of their own;
// a second kernel adds the parts in order. No atomics: the same bits in every run.
//
// Layout   dy (N,P,Q,K), db (K,), partial (splits,K).
// Thread   one filter of one split; neighbours own neighbouring filters, then the next split's: a warp reads up to 128
//          contiguous bytes a position.
// Sum      a thread owns one filter and adds its parts (common/sum_parts.cu).
// Limits   what check() in problem.h asks for; nothing needs to be aligned. partial takes less than 1 MiB: there are
//          several splits only where K is below 65,536, and then fewer than 131,072 sums in all.
// Bound    memory: 4 bytes an element of dy; N32 K64 56x56, 26 MB, takes 7.7 us at an H100's 3.35 TB/s.
// Measured not run on hardware yet.
#include "common/index.h"
#include "common/sum_parts.h"
#include "conv2d/conv2d.h"
#include "simt/simt.h"

#include <algorithm>
#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kSums = 1 << 16;  // wanted at a time: an H100 holds four times as many threads
constexpr int kFewestPositions = 128;    // in a split, so that adding the parts up stays a small share of the work

template <typename T>
__global__ void __launch_bounds__(kThreads)
    bgrad_kernel(const T* __restrict__ dy, const Parts<T> parts, std::int64_t splits, Divisor filters,
                 std::int64_t positions, std::int64_t positions_of_split) {
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= splits * filters.value) return;
  const auto [split, k] = filters.divide(index);
  const std::int64_t begin = split * positions_of_split, end = min(begin + positions_of_split, positions);
  float sum = 0.0f;
  for (std::int64_t position = begin; position < end; ++position)
    sum += simt::to_float(dy[position * filters.value + k]);
  parts.store(split, k, sum);
}

}  // namespace

std::int64_t conv2d_direct_bgrad_splits(const Conv2dProblem& p) {
  return std::max<std::int64_t>(1, std::min(blocks_of(p.K, kSums), p.positions() / kFewestPositions));
}

template <typename T>
simt::Status conv2d_direct_bgrad(const Conv2dProblem& p, const T* dy, T* db, float* partial, simt::Stream stream) {
  const std::int64_t splits = conv2d_direct_bgrad_splits(p), positions = p.positions();
  const simt::Status status =
      simt::launch(bgrad_kernel<T>, dim3(static_cast<unsigned>(blocks_of(kThreads, splits * p.K))), dim3(kThreads), 0,
                   stream, dy, Parts<T>{splits > 1 ? partial : nullptr, db, p.K}, splits, divisor_of(p.K), positions,
                   blocks_of(splits, positions));
  if (status != simt::kSuccess || splits == 1) return status;
  return sum_parts(partial, db, splits, p.K, stream);
}

template simt::Status conv2d_direct_bgrad(const Conv2dProblem&, const float*, float*, float*, simt::Stream);
template simt::Status conv2d_direct_bgrad(const Conv2dProblem&, const simt::half*, simt::half*, float*, simt::Stream);
template simt::Status conv2d_direct_bgrad(const Conv2dProblem&, const simt::bfloat16*, simt::bfloat16*, float*,
                                          simt::Stream);

}  // namespace gpucnn

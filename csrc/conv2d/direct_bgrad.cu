// db[k] = sum over n, p, q of dy[n,p,q,k]. Stored as float, half or bfloat16, summed in float32.
//
// The N*P*Q positions are cut into splits of equal length. Each split's sums go to a part of `partial` of their own;
// a second kernel adds the parts in order. No atomics: the same bits in every run.
//
// Layout   dy (N,P,Q,K), db (K,), partial (splits,K). A vector is 16 bytes of filters: 4 of float, 8 of half.
// Block    a slab of at most 16 vectors and one split; 256 / (vectors of it) lanes take positions in turn, and then add
//          up their sums, half of them to the other half, through shared memory, from where they are written one by
//          one.
// Thread   a vector and one lane; a warp reads 256 contiguous bytes of a position, or several shorter ones.
// Sum      a block owns 32 filters and adds their parts (common/sum_parts.cu).
// Limits   what check() in problem.h asks for. Where filters are no multiple of a vector or dy is not aligned to 16
//          bytes, vectors of one filter. partial takes less than 1 MiB.
// Bound    memory: dy once. N32 K64 56x56, float, 26 MB, takes 8.6 us at an H100's 3.0 TB/s.
// Measured not run on hardware yet.
#include "common/index.h"
#include "common/pack.h"
#include "common/slabs.h"
#include "common/sum_parts.h"
#include "conv2d/conv2d.h"
#include "simt/simt.h"

#include <algorithm>
#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kBlocks = 264;    // wanted in a grid: two for each of an H100's 132 multiprocessors
constexpr std::int64_t kUsualSlab = 32;  // filters: splits must not depend on how they are stored
constexpr int kFewestPositions = 128;    // in a split, so that adding the parts up stays a small share of the work

template <typename T, int kVector>
__global__ void __launch_bounds__(kThreads)
    bgrad_kernel(const T* __restrict__ dy, const Parts<T> parts, const Slabs slabs, int filters, std::int64_t positions,
                 std::int64_t positions_of_split) {
  constexpr int kQuads = kThreads + 4;  // a vector's quads are 16 banks apart
  SIMT_SHARED(float, exchange, [kQuads * kVector]);
  const int thread = static_cast<int>(threadIdx.x), lane = thread >> slabs.shift, lanes = kThreads >> slabs.shift;
  const int slab = static_cast<int>(blockIdx.x % static_cast<unsigned>(slabs.count));
  const std::int64_t split = blockIdx.x / static_cast<unsigned>(slabs.count);
  const std::int64_t k = ((std::int64_t{slab} << slabs.shift) + (thread & ((1 << slabs.shift) - 1))) * kVector;
  const std::int64_t begin = split * positions_of_split, end = min(begin + positions_of_split, positions);

  Floats<kVector> sums;
#pragma unroll
  for (int c = 0; c < kVector; ++c) sums[c] = 0.0f;
  if (k < filters) {
#pragma unroll 4
    for (std::int64_t position = begin + lane; position < end; position += lanes) {
      const Floats<kVector> values = load<kVector>(dy + position * filters + k);
#pragma unroll
      for (int c = 0; c < kVector; ++c) sums[c] += values[c];
    }
  }
  for (int half = lanes / 2; half > 0; half /= 2) {
    __syncthreads();  // what was there has been read
    if (lane >= half && lane < 2 * half) store_quads(exchange, thread - (half << slabs.shift), kQuads, sums);
    __syncthreads();
    if (lane >= half) continue;
    const Floats<kVector> more = load_quads<kVector>(exchange, thread, kQuads);
#pragma unroll
    for (int c = 0; c < kVector; ++c) sums[c] += more[c];
  }
  __syncthreads();
  if (lane == 0) store_quads(exchange, thread, kQuads, sums);
  __syncthreads();
  const int width = kVector << slabs.shift;
  for (int i = thread; i < width; i += kThreads) {
    const std::int64_t mine = std::int64_t{slab} * width + i;
    if (mine < filters) parts.store(split, mine, exchange[place_in_quads<kVector>(i, kQuads)]);
  }
}

template <typename T, int kVector>
simt::Status launch(const T* dy, const Parts<T>& parts, std::int64_t splits, std::int64_t positions,
                    simt::Stream stream) {
  const int filters = static_cast<int>(parts.count);
  const Slabs slabs = slabs_of(filters / kVector);
  return simt::launch(bgrad_kernel<T, kVector>, dim3(static_cast<unsigned>(splits * slabs.count)), dim3(kThreads), 0,
                      stream, dy, parts, slabs, filters, positions, blocks_of(splits, positions));
}

}  // namespace

std::int64_t conv2d_direct_bgrad_splits(const Conv2dProblem& p) {
  const std::int64_t wanted = blocks_of(blocks_of(kUsualSlab, p.K), kBlocks);
  return std::max<std::int64_t>(1, std::min(wanted, p.positions() / kFewestPositions));
}

template <typename T>
simt::Status conv2d_direct_bgrad(const Conv2dProblem& p, const T* dy, T* db, float* partial, simt::Stream stream) {
  const std::int64_t splits = conv2d_direct_bgrad_splits(p);
  const Parts<T> parts{splits > 1 ? partial : nullptr, db, p.K};
  const bool packed = p.K % kPack<T> == 0 && are_aligned(dy);
  const simt::Status status = (packed ? launch<T, kPack<T>> : launch<T, 1>)(dy, parts, splits, p.positions(), stream);
  if (status != simt::kSuccess || splits == 1) return status;
  return sum_parts(partial, db, splits, p.K, stream);
}

template simt::Status conv2d_direct_bgrad(const Conv2dProblem&, const float*, float*, float*, simt::Stream);
template simt::Status conv2d_direct_bgrad(const Conv2dProblem&, const simt::half*, simt::half*, float*, simt::Stream);
template simt::Status conv2d_direct_bgrad(const Conv2dProblem&, const simt::bfloat16*, simt::bfloat16*, float*,
                                          simt::Stream);

}  // namespace gpucnn

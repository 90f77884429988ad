// sums[n] = sum over m of x[m][n]: what a bias's gradient is.
//
// The rows are cut into parts of equal length, each with float32 sums of its own, which are then added in order.
//
// Layout   x (rows, columns), sums (columns,), partial (parts, columns).
// Block    32 packs of neighbouring columns (16 bytes each; single columns where x does not allow packs), one part.
// Warp     the 32 packs of every kWarps-th row: 512 contiguous bytes a row. The warps' sums are then added in order
//          and written by threads side by side in the columns.
// Limits   rows and columns in [0, 2^35]. partial takes less than 4 MiB: several parts have at most 1,024 blocks.
// Bound    memory: 4 bytes an element of x; N32 K64 56x56, 26 MB, takes 8.6 us at an H100's 3.0 TB/s.
// Measured not run on hardware yet.
#include "common/index.h"
#include "common/pack.h"
#include "common/sum_parts.h"
#include "linear/linear.h"

#include <algorithm>

namespace gpucnn {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr std::int64_t kBlocks = 528;             // wanted in a grid: 4 for each of an H100's 132 multiprocessors
constexpr std::int64_t kFewestRows = 8 * kWarps;  // of a part
constexpr int kAhead = 4;                         // rows that a warp reads before it adds them

template <typename T, int kTogether>
__global__ void __launch_bounds__(kThreads)
    column_sums_kernel(const T* __restrict__ x, const Parts<T> parts, std::int64_t rows, std::int64_t rows_of_part,
                       Divisor blocks_across) {
  // Of a pack's columns each has a line, and these begin so far apart that neighbouring columns are in different banks.
  constexpr int kLine = 32 + 32 / kTogether % 32;
  SIMT_SHARED(float, shared, [kWarps][kTogether * kLine]);
  const Quotient part = blocks_across.divide(blockIdx.x);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const std::int64_t columns = parts.count, column = (std::int64_t{part.rest} * 32 + lane) * kTogether;
  const std::int64_t begin = part.whole * rows_of_part, end = min(begin + rows_of_part, rows);
  Floats<kTogether> sums = {};
  if (column < columns) {
    for (std::int64_t row = begin + warp; row < end; row += kWarps * kAhead) {
      Floats<kTogether> values[kAhead] = {};
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (row + i * kWarps < end) values[i] = load<kTogether>(x + (row + i * kWarps) * columns + column);
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
#pragma unroll
        for (int j = 0; j < kTogether; ++j) sums[j] += values[i][j];
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kTogether; ++j) shared[warp][j * kLine + lane] = sums[j];
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < 32 * kTogether; i += kThreads) {
    const std::int64_t mine = std::int64_t{part.rest} * 32 * kTogether + i;
    const int place = i % kTogether * kLine + i / kTogether;
    float sum = shared[0][place];
#pragma unroll
    for (int other = 1; other < kWarps; ++other) sum += shared[other][place];
    if (mine < columns) parts.store(part.whole, mine, sum);
  }
}

}  // namespace

std::int64_t column_sums_parts(std::int64_t rows, std::int64_t columns) {
  const std::int64_t wanted = kBlocks / std::max<std::int64_t>(1, blocks_of(32 * 4, columns));
  return std::max<std::int64_t>(1, std::min(wanted, rows / kFewestRows));
}

template <typename T>
simt::Status column_sums(std::int64_t rows, std::int64_t columns, const T* x, T* sums, float* partial,
                         simt::Stream stream) {
  if (columns == 0) return simt::kSuccess;
  const std::int64_t count = column_sums_parts(rows, columns);
  const bool wide = are_aligned(x) && columns % kPack<T> == 0;
  const std::int64_t across = blocks_of(32 * (wide ? kPack<T> : 1), columns);
  const auto kernel = wide ? column_sums_kernel<T, kPack<T>> : column_sums_kernel<T, 1>;
  const simt::Status status = simt::launch(kernel, dim3(static_cast<unsigned>(across * count)), dim3(kThreads), 0,
                                           stream, x, Parts<T>{count > 1 ? partial : nullptr, sums, columns}, rows,
                                           blocks_of(count, rows), divisor_of(across));
  if (status != simt::kSuccess || count == 1) return status;
  return sum_parts(partial, sums, count, columns, stream);
}

template simt::Status column_sums(std::int64_t, std::int64_t, const float*, float*, float*, simt::Stream);
template simt::Status column_sums(std::int64_t, std::int64_t, const simt::half*, simt::half*, float*, simt::Stream);
template simt::Status column_sums(std::int64_t, std::int64_t, const simt::bfloat16*, simt::bfloat16*, float*,
                                  simt::Stream);

}  // namespace gpucnn

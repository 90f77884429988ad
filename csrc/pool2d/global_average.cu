// y[n,c] = (sum over all cells of x[n,cell,c]) / divisor: average pooling of one window that is the image.
//
// A block adds up at most 1,024 cells; of larger images there are several parts, which a second kernel adds in order.
// How an image is cut depends on its size alone, so that its bits do not depend on the batch.
//
// Layout   x (N,cells,C), y (N,C), parts (N, number of parts, C) float32.
// Block    16 x 8 threads: 8 packs of neighbouring channels, 128 bytes of every cell of one part of one image.
// Thread   one pack (16 bytes, or one channel where they do not fill a cell or lie askew) of every 16th cell of the
//          part, 4 loads under way at a time; its sums go to shared memory, where one thread a channel adds up the 16
//          in order. There a pack of 8 lies in two halves, 32 places apart: neighbours store and read neighbours,
//          without bank conflicts.
// Limits   N * number of parts * packs / 8 below 2^31 blocks, as check() in problem.h sees to.
// Bound    memory: each element once. 7x7 of C2048 at N32 (ResNet-50): float32 13 MB, 4.3 us at 3.0 TB/s, about what a
//          launch takes; 16 bits 2.1 us. 56x56 of C64 at N32: 26 MB, 8.6 us.
// Measured not run on hardware yet.
#include "common/index.h"
#include "common/pixels.h"
#include "pool2d/pool2d.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kLanes = 8, kRows = 16;
constexpr int kThreads = kLanes * kRows;
constexpr int kAhead = 4;  // loads of a thread under way
static_assert(kThreads % 32 == 0 && kGlobalCells % (kRows * kAhead) == 0, "whole warps, and whole turns");

struct Part {
  std::int64_t image, number;
  int slab;  // of the channels: 8 packs
};

template <typename T, int kChannels>
__global__ void __launch_bounds__(kThreads)
    global_average_kernel(std::int64_t cells, int channels, Divisor slabs, Divisor parts, float divisor,
                          const T* __restrict__ x, float* __restrict__ sums, T* __restrict__ y) {
  constexpr int kSlab = kLanes * kChannels, kInRow = kChannels < 4 ? kChannels : 4, kHalves = kChannels / kInRow;
  SIMT_SHARED(float, partial, [kRows][kSlab]);
  const int lane = static_cast<int>(threadIdx.x) % kLanes, row = static_cast<int>(threadIdx.x) / kLanes;
  const Quotient by_slab = slabs.divide(blockIdx.x);
  const Quotient by_part = parts.divide(by_slab.whole);
  const Part part{by_part.whole, by_part.rest, by_slab.rest};
  const int channel = part.slab * kSlab + lane * kChannels;
  const std::int64_t first = part.number * kGlobalCells;
  const std::int64_t rest = cells - first;
  const int count = static_cast<int>(rest < kGlobalCells ? rest : kGlobalCells);  // cells of this part
  const T* const source = x + (part.image * cells + first) * channels + channel;

  Floats<kChannels> sum = filled<kChannels>(0.0f);
  if (channel < channels) {
    for (int cell = row; cell < count; cell += kRows * kAhead) {
      Floats<kChannels> values[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int mine = cell + i * kRows;
        values[i] = filled<kChannels>(0.0f);
        if (mine < count) values[i] = load<kChannels>(source + std::int64_t{mine} * channels);
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
#pragma unroll
        for (int j = 0; j < kChannels; ++j) sum[j] += values[i][j];
      }
    }
  }
#pragma unroll
  for (int half = 0; half < kHalves; ++half) {
    Floats<kInRow> some;
#pragma unroll
    for (int i = 0; i < kInRow; ++i) some[i] = sum[half * kInRow + i];
    store(&partial[row][(half * kLanes + lane) * kInRow], some);
  }
  __syncthreads();

  const int mine = static_cast<int>(threadIdx.x);
  const int pack = mine / kInRow % kLanes, half = mine / (kInRow * kLanes);
  const int target = part.slab * kSlab + pack * kChannels + half * kInRow + mine % kInRow;
  if (mine < kSlab && target < channels) {
    float total = partial[0][mine];
#pragma unroll
    for (int i = 1; i < kRows; ++i) total += partial[i][mine];
    if (sums != nullptr) {
      sums[(part.image * parts.value + part.number) * channels + target] = total;
    } else {
      y[part.image * channels + target] = simt::from_float<T>(total / divisor);
    }
  }
}

// y[n,c] = (parts[n][0][c] + parts[n][1][c] + ...) / divisor, in this order.
template <typename T>
__global__ void __launch_bounds__(kPixelThreads)
    global_parts_kernel(std::int64_t count, int parts, Divisor channels, float divisor, const float* __restrict__ sums,
                        T* __restrict__ y) {
  const std::int64_t index = pack_index();
  if (index >= count) return;
  const Quotient image = channels.divide(index);
  const float* const mine = sums + image.whole * parts * channels.value + image.rest;
  float total = mine[0];
  for (int part = 1; part < parts; ++part) total += mine[std::int64_t{part} * channels.value];
  y[index] = simt::from_float<T>(total / divisor);
}

}  // namespace

template <typename T>
simt::Status avg_pool2d_global_fprop(std::int64_t N, std::int64_t cells, std::int64_t C, float divisor, const T* x,
                                     float* parts, T* y, simt::Stream stream) {
  if (N == 0) return simt::kSuccess;
  const std::int64_t number = global_average_parts(cells);
  float* const sums = number > 1 ? parts : nullptr;
  const simt::Status status = by_width<kPack<T>>(
      C,
      [&](auto width) {
        constexpr int kChannels = decltype(width)::value;
        const std::int64_t slabs = blocks_of(kLanes * kChannels, C);
        const auto blocks = static_cast<unsigned>(N * number * slabs);
        return simt::launch(global_average_kernel<T, kChannels>, dim3(blocks), dim3(kThreads), 0, stream, cells,
                            static_cast<int>(C), divisor_of(slabs), divisor_of(number), divisor, x, sums, y);
      },
      x);
  if (status != simt::kSuccess || number == 1) return status;
  return launch_packs(global_parts_kernel<T>, N * C, stream, N * C, static_cast<int>(number), divisor_of(C), divisor,
                      static_cast<const float*>(sums), y);
}

#define GPUCNN_INSTANTIATE(T)                                                                                          \
  template simt::Status avg_pool2d_global_fprop(std::int64_t, std::int64_t, std::int64_t, float, const T*, float*, T*, \
                                                simt::Stream);
GPUCNN_INSTANTIATE(float)
GPUCNN_INSTANTIATE(simt::half)
GPUCNN_INSTANTIATE(simt::bfloat16)

}  // namespace gpucnn

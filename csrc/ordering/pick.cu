// y[o,k,i] = x[o, index[o,k,i], i], and the reverse y[o, index[o,k,i], i] = x[o,k,i]: elements moved as they are.
//
// Layout   (outer,size,inner) about the axis that the positions are of, (outer,picked,inner) for positions and what is
//          picked.
// Block    256 threads; neighbouring elements of the positions in each pass over the grid.
// Thread   one position a pass: a warp reads 256 contiguous bytes of positions.
// Limits   size, picked and inner below 2^31. put: no position comes twice, so no element is written twice.
// Bound    memory: 8 bytes a position, the element's own bytes once contiguous and once wherever they lie, up to a
//          32-byte sector each: 16 to 44 bytes an element of float32. Sorted values of 2,048 rows of 1,000: 33 MB, 11
//          us on an H100 (copy 3.0 TB/s).
// Measured not run on hardware yet.
#include "common/grid.h"
#include "common/index.h"
#include "ordering/ordering.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kThreads = 256;

template <typename T, bool kPut>
__global__ void __launch_bounds__(kThreads)
    pick_kernel(const T* __restrict__ x, const std::int64_t* __restrict__ index, T* __restrict__ y, std::int64_t count,
                std::int64_t size, const Divisor picked, const Divisor inner) {
  for (std::int64_t at = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; at < count;
       at += std::int64_t{gridDim.x} * kThreads) {
    const auto [line, i] = inner.divide(at);
    const std::int64_t outer = picked.divide(line).whole, position = index[at];
    const bool inside = position >= 0 && position < size;
    const std::int64_t there = (outer * size + (inside ? position : 0)) * inner.value + i;
    if constexpr (kPut) {
      if (inside) y[there] = x[at];
    } else {
      y[at] = simt::load_if(inside, x + there);
    }
  }
}

template <typename T, bool kPut>
simt::Status launch_pick(const Along& along, std::int64_t picked, const T* x, const std::int64_t* index, T* y,
                         simt::Stream stream) {
  const std::int64_t count = along.outer * picked * along.inner;
  if (count == 0) return simt::kSuccess;
  unsigned blocks = 0;
  if (const simt::Status status = one_wave(count, kThreads, &blocks); status != simt::kSuccess) return status;
  return simt::launch(pick_kernel<T, kPut>, dim3(blocks), dim3(kThreads), 0, stream, x, index, y, count, along.size,
                      divisor_of(picked), divisor_of(along.inner));
}

}  // namespace

template <typename T>
simt::Status take(const Along& along, std::int64_t picked, const T* x, const std::int64_t* index, T* y,
                  simt::Stream stream) {
  return launch_pick<T, false>(along, picked, x, index, y, stream);
}

template <typename T>
simt::Status put(const Along& along, std::int64_t picked, const T* x, const std::int64_t* index, T* y,
                 simt::Stream stream) {
  return launch_pick<T, true>(along, picked, x, index, y, stream);
}

// By their bits: what is in them does not matter.
#define GPUCNN_PICK(T)                                                                                     \
  template simt::Status take(const Along&, std::int64_t, const T*, const std::int64_t*, T*, simt::Stream); \
  template simt::Status put(const Along&, std::int64_t, const T*, const std::int64_t*, T*, simt::Stream);
GPUCNN_PICK(std::uint8_t)
GPUCNN_PICK(std::uint16_t)
GPUCNN_PICK(std::uint32_t)
GPUCNN_PICK(std::uint64_t)
#undef GPUCNN_PICK

}  // namespace gpucnn

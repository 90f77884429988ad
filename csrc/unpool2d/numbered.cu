// y[n,h,w,c] = x[n,p,q,c] of the last (p,q), in row-major order, with indices[n,p,q,c] = h*W + w; 0 where there is
// none; and dx[n,p,q,c] = dy[n,h,w,c] there.
//
// Where several values go to one place, which of them a thread would write last is chance. So places first learn the
// highest number of the values that come to them, p*Q + q + 1, by an atomic maximum of integers, which has one result
// in any order; then each place fetches its value. Three launches: numbers to 0, maximum, fetch. The numbers may lie in
// y itself where elements have 32 bits: a thread reads the numbers that it then overwrites.
//
// Layout   x, dx, indices (N,P,Q,C), y, dy, numbers (N,H,W,C).
// Block    1,024 consecutive elements, whatever pixels they belong to.
// Thread   four elements, 256 apart and all under way together, so that a warp has neighbouring channels: what it
// fetches
//          or marks lies together where they have their values at the same place. Numbers become 0 in packs of four.
// Limits   P*Q below 2^31 - 1; an index outside the image is passed over and sets the flag.
// Bound    memory: forward 12 bytes an element of x in and 12 of y (numbers written, read, and y), and a 32-byte sector
//          for each value that lies alone; backward 16 an element of x with its sector. 2x2 on N32 C64 56x56 to
//          112x112: float32 77 + 308 MB, 130 us at 3.0 TB/s, of which most stays in L2 for smaller batches.
// Measured not run on hardware yet.
#include "common/flag.h"
#include "common/index.h"
#include "common/pixels.h"
#include "simt/simt.h"
#include "unpool2d/unpool2d.h"

#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kEach = 4;  // elements of a thread

struct Unpooling {
  Images pooled, image;
  std::int64_t values, cells;  // of one channel of one image: P*Q and H*W
  std::int64_t pooled_elements, image_elements;
};

Unpooling unpooling_of(const Unpool2dProblem& p) {
  return {images_of(p.P, p.Q, p.C), images_of(p.H, p.W, p.C), p.P * p.Q, p.H * p.W,
          p.N * p.P * p.Q * p.C,    p.N * p.H * p.W * p.C};
}

// The pixel of element `index`, and its channel.
struct Place {
  Pixel pixel;
  int channel;
};

__device__ __forceinline__ Place place_of(const Images& array, std::int64_t index) {
  const Quotient at = array.channels.divide(index);
  return {array.pixel(at.whole), at.rest};
}

// The first of the thread's elements; the next ones are kPixelThreads apart.
__device__ __forceinline__ std::int64_t first_index() {
  return std::int64_t{blockIdx.x} * (kPixelThreads * kEach) + threadIdx.x;
}

// The elements of one access as they are.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Raw {
  T value[kCount];
};

template <int kChannels>
__global__ void __launch_bounds__(kPixelThreads) unpool_clear_kernel(std::int64_t packs, std::int32_t* numbers) {
  const std::int64_t index = pack_index();
  if (index < packs) simt::vstore(numbers + index * kChannels, Raw<std::int32_t, kChannels>{});
}

__global__ void __launch_bounds__(kPixelThreads)
    unpool_number_kernel(const Unpooling u, const std::int64_t* __restrict__ indices, std::int32_t* numbers,
                         std::int64_t* __restrict__ flag) {
  std::int64_t places[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const std::int64_t index = first_index() + i * kPixelThreads;
    places[i] = simt::load_if(index < u.pooled_elements, indices + index, std::int64_t{0});
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const std::int64_t index = first_index() + i * kPixelThreads, place = places[i];
    if (index >= u.pooled_elements) break;
    const Place from = place_of(u.pooled, index);
    const int number = from.pixel.row * u.pooled.columns.value + from.pixel.column + 1;  // [1, P*Q]
    if (place >= 0 && place < u.cells) {
      atomicMax(numbers + (from.pixel.image * u.cells + place) * u.image.channels.value + from.channel, number);
    } else {
      raise_flag(flag, Trouble::kIndex, index);
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kPixelThreads)
    unpool_fetch_kernel(const Unpooling u, const T* __restrict__ x, const std::int32_t* numbers, T* y) {
  std::int32_t found[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const std::int64_t index = first_index() + i * kPixelThreads;
    found[i] = simt::load_if(index < u.image_elements, numbers + index, 0);
  }
  T values[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const Place to = place_of(u.image, first_index() + i * kPixelThreads);
    const std::int64_t pixel = to.pixel.image * u.values + found[i] - 1;
    values[i] = simt::load_if(found[i] > 0, x + pixel * u.image.channels.value + to.channel, T{0});
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const std::int64_t index = first_index() + i * kPixelThreads;
    if (index < u.image_elements) y[index] = values[i];
  }
}

template <typename T>
__global__ void __launch_bounds__(kPixelThreads)
    unpool_gather_kernel(const Unpooling u, const T* __restrict__ dy, const std::int64_t* __restrict__ indices,
                         T* __restrict__ dx) {
  std::int64_t places[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const std::int64_t index = first_index() + i * kPixelThreads;
    places[i] = simt::load_if(index < u.pooled_elements, indices + index, std::int64_t{-1});
  }
  T values[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const Place to = place_of(u.pooled, first_index() + i * kPixelThreads);
    const bool inside = places[i] >= 0 && places[i] < u.cells;
    const std::int64_t pixel = to.pixel.image * u.cells + (inside ? places[i] : 0);
    values[i] = simt::load_if(inside, dy + pixel * u.image.channels.value + to.channel, T{0});
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const std::int64_t index = first_index() + i * kPixelThreads;
    if (index < u.pooled_elements) dx[index] = values[i];
  }
}

// Runs the kernel with a thread for each kEach of `count` elements.
template <typename... Parameters, typename... Arguments>
[[nodiscard]] simt::Status launch_elements(void (*kernel)(Parameters...), std::int64_t count, simt::Stream stream,
                                           const Arguments&... arguments) {
  return launch_packs(kernel, blocks_of(kEach, count), stream, arguments...);
}

}  // namespace

template <typename T>
simt::Status max_unpool2d_fprop(const Unpool2dProblem& p, const T* x, const std::int64_t* indices,
                                std::int32_t* numbers, T* y, std::int64_t* flag, simt::Stream stream) {
  simt::Status status = by_width<4>(
      p.C,
      [&](auto channels) {
        constexpr int kChannels = decltype(channels)::value;
        const std::int64_t packs = p.N * p.H * p.W * p.C / kChannels;
        return launch_packs(unpool_clear_kernel<kChannels>, packs, stream, packs, numbers);
      },
      numbers);
  if (status != simt::kSuccess) return status;
  const Unpooling u = unpooling_of(p);
  status = launch_elements(unpool_number_kernel, u.pooled_elements, stream, u, indices, numbers, flag);
  if (status != simt::kSuccess) return status;
  return launch_elements(unpool_fetch_kernel<T>, u.image_elements, stream, u, x,
                         static_cast<const std::int32_t*>(numbers), y);
}

template <typename T>
simt::Status max_unpool2d_dgrad(const Unpool2dProblem& p, const T* dy, const std::int64_t* indices, T* dx,
                                simt::Stream stream) {
  const Unpooling u = unpooling_of(p);
  return launch_elements(unpool_gather_kernel<T>, u.pooled_elements, stream, u, dy, indices, dx);
}

#define GPUCNN_INSTANTIATE(T)                                                                                        \
  template simt::Status max_unpool2d_fprop(const Unpool2dProblem&, const T*, const std::int64_t*, std::int32_t*, T*, \
                                           std::int64_t*, simt::Stream);                                             \
  template simt::Status max_unpool2d_dgrad(const Unpool2dProblem&, const T*, const std::int64_t*, T*, simt::Stream);
GPUCNN_INSTANTIATE(std::uint16_t)
GPUCNN_INSTANTIATE(std::uint32_t)

}  // namespace gpucnn

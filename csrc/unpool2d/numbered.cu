// y[n,h,w,c] = x[n,p,q,c] of the last (p,q), in row-major order, with indices[n,p,q,c] = h*W + w; 0 where there is
// none; and dx[n,p,q,c] = dy[n,h,w,c] there.
//
// Where several values go to one place, which of them a thread would write last is chance. So places first learn the
// highest number of the values that come to them, p*Q + q + 1, by an atomic maximum of integers, which has one result
// in any order; then each place fetches its value. Three launches: numbers to 0, maximum, fetch. The numbers may lie in
// y itself where elements have 32 bits: a thread reads the four numbers that it then overwrites.
//
// Layout   x, dx, indices (N,P,Q,C), y, dy, numbers (N,H,W,C).
// Block    256 consecutive packs of channels, whatever pixels they belong to.
// Thread   one pack: of x and indices two channels (16 bytes of indices), of y four (16 bytes of numbers); where packs
//          do not fill a pixel or an address is not aligned, one channel.
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

struct Unpooling {
  PackedImages pooled, image;
  std::int64_t values, cells;  // of one channel of one image: P*Q and H*W
};

Unpooling unpooling_of(const Unpool2dProblem& p, int each) {
  return {packed_images(p.N, p.P, p.Q, p.C, each), packed_images(p.N, p.H, p.W, p.C, each), p.P * p.Q, p.H * p.W};
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

template <int kChannels>
__global__ void __launch_bounds__(kPixelThreads)
    unpool_number_kernel(const Unpooling u, const std::int64_t* __restrict__ indices, std::int32_t* numbers,
                         std::int64_t* __restrict__ flag) {
  const std::int64_t index = pack_index();
  if (index >= u.pooled.count) return;
  const PackPlace from = place_of<kChannels>(u.pooled, index);
  const int number = from.pixel.row * u.pooled.images.columns.value + from.pixel.column + 1;  // [1, P*Q]
  const auto places = simt::vload<Raw<std::int64_t, kChannels>>(indices + index * kChannels);
  std::int32_t* const image = numbers + from.pixel.image * u.cells * u.image.images.channels.value + from.channel;
#pragma unroll
  for (int i = 0; i < kChannels; ++i) {
    const std::int64_t place = places.value[i];
    if (place >= 0 && place < u.cells) {
      atomicMax(image + place * u.image.images.channels.value + i, number);
    } else {
      raise_flag(flag, Trouble::kIndex, index * kChannels + i);
    }
  }
}

template <typename T, int kChannels>
__global__ void __launch_bounds__(kPixelThreads)
    unpool_fetch_kernel(const Unpooling u, const T* __restrict__ x, const std::int32_t* numbers, T* y) {
  const std::int64_t index = pack_index();
  if (index >= u.image.count) return;
  const PackPlace to = place_of<kChannels>(u.image, index);
  const auto found = simt::vload<Raw<std::int32_t, kChannels>>(numbers + index * kChannels);
  const T* const values = x + to.pixel.image * u.values * u.image.images.channels.value + to.channel;
  Raw<T, kChannels> result;
#pragma unroll
  for (int i = 0; i < kChannels; ++i) {
    const int number = found.value[i];
    result.value[i] =
        simt::load_if(number > 0, values + std::int64_t{number - 1} * u.image.images.channels.value + i, T{0});
  }
  simt::vstore(y + index * kChannels, result);
}

template <typename T, int kChannels>
__global__ void __launch_bounds__(kPixelThreads)
    unpool_gather_kernel(const Unpooling u, const T* __restrict__ dy, const std::int64_t* __restrict__ indices,
                         T* __restrict__ dx) {
  const std::int64_t index = pack_index();
  if (index >= u.pooled.count) return;
  const PackPlace from = place_of<kChannels>(u.pooled, index);
  const auto places = simt::vload<Raw<std::int64_t, kChannels>>(indices + index * kChannels);
  const T* const image = dy + from.pixel.image * u.cells * u.image.images.channels.value + from.channel;
  Raw<T, kChannels> result;
#pragma unroll
  for (int i = 0; i < kChannels; ++i) {
    const std::int64_t place = places.value[i];
    const bool inside = place >= 0 && place < u.cells;
    result.value[i] = simt::load_if(inside, image + (inside ? place : 0) * u.image.images.channels.value + i, T{0});
  }
  simt::vstore(dx + index * kChannels, result);
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
  status = by_width<2>(
      p.C,
      [&](auto channels) {
        constexpr int kChannels = decltype(channels)::value;
        const Unpooling u = unpooling_of(p, kChannels);
        return launch_packs(unpool_number_kernel<kChannels>, u.pooled.count, stream, u, indices, numbers, flag);
      },
      indices);
  if (status != simt::kSuccess) return status;
  return by_width<4>(
      p.C,
      [&](auto channels) {
        constexpr int kChannels = decltype(channels)::value;
        const Unpooling u = unpooling_of(p, kChannels);
        return launch_packs(unpool_fetch_kernel<T, kChannels>, u.image.count, stream, u, x,
                            static_cast<const std::int32_t*>(numbers), y);
      },
      numbers, y);
}

template <typename T>
simt::Status max_unpool2d_dgrad(const Unpool2dProblem& p, const T* dy, const std::int64_t* indices, T* dx,
                                simt::Stream stream) {
  return by_width<2>(
      p.C,
      [&](auto channels) {
        constexpr int kChannels = decltype(channels)::value;
        const Unpooling u = unpooling_of(p, kChannels);
        return launch_packs(unpool_gather_kernel<T, kChannels>, u.pooled.count, stream, u, dy, indices, dx);
      },
      indices, dx);
}

#define GPUCNN_INSTANTIATE(T)                                                                                        \
  template simt::Status max_unpool2d_fprop(const Unpool2dProblem&, const T*, const std::int64_t*, std::int32_t*, T*, \
                                           std::int64_t*, simt::Stream);                                             \
  template simt::Status max_unpool2d_dgrad(const Unpool2dProblem&, const T*, const std::int64_t*, T*, simt::Stream);
GPUCNN_INSTANTIATE(std::uint16_t)
GPUCNN_INSTANTIATE(std::uint32_t)

}  // namespace gpucnn

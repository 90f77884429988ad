// Kernels in which each thread owns some neighbouring channels of one pixel: a pack. For .cu files.
//
// Neighbouring threads own neighbouring packs, in the order in which they lie in memory, so that a warp reads and
// writes runs of 512 bytes where a pack has 16.
#pragma once

#include "common/index.h"
#include "common/pack.h"
#include "simt/simt.h"

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace gpucnn {

inline constexpr int kPixelThreads = 256;

// An array (images, rows, columns, channels) cut into packs.
struct PackedImages {
  Images images;
  Divisor packs;       // of one pixel
  std::int64_t count;  // in all: [0, 2^38]
};

// A pack: its pixel, and the first of its channels.
struct PackPlace {
  Pixel pixel;
  int channel;
};

// Packs of `each` channels, which divides C. An array may be empty along any axis.
inline PackedImages packed_images(std::int64_t N, std::int64_t H, std::int64_t W, std::int64_t C, int each) {
  const auto some = [](std::int64_t size) { return std::max<std::int64_t>(size, 1); };  // no divisor is 0
  return {images_of(some(H), some(W), some(C)), divisor_of(some(C / each)), N * H * W * (C / each)};
}

// Of pack number `index` in [0, count).
template <int kChannels>
__device__ __forceinline__ PackPlace place_of(const PackedImages& array, std::int64_t index) {
  const Quotient at = array.packs.divide(index);
  return {array.images.pixel(at.whole), at.rest * kChannels};
}

// The number of this thread's pack, which may be beyond the last.
__device__ __forceinline__ std::int64_t pack_index() {
  return std::int64_t{blockIdx.x} * kPixelThreads + threadIdx.x;
}

template <int kCount>
__device__ __forceinline__ Floats<kCount> filled(float value) {
  Floats<kCount> result;
#pragma unroll
  for (int i = 0; i < kCount; ++i) result[i] = value;
  return result;
}

// value / divisor, rounded as a division is (Markstein's correction of a product with the inverse), without the calls
// that divisions of a pack's channels would be.
__device__ __forceinline__ float divided(float value, float divisor, float inverse) {
  const float product = value * inverse;
  const float corrected = fmaf(fmaf(-product, divisor, value), inverse, product);
  return fabsf(product) < INFINITY ? corrected : product;  // of an infinity the correction is NaN
}

template <int kChannels>
__device__ __forceinline__ Floats<kChannels> divided(const Floats<kChannels>& values, float divisor, float inverse) {
  Floats<kChannels> result;
#pragma unroll
  for (int i = 0; i < kChannels; ++i) result[i] = divided(values[i], divisor, inverse);
  return result;
}

template <int kCount>
using Channels = std::integral_constant<int, kCount>;

// Calls body(Channels<kWide>{}) where packs of that many channels fill a pixel and each array's address is a multiple
// of 16, else body(Channels<1>{}).
template <int kWide, typename Body, typename... Pointers>
simt::Status by_width(std::int64_t channels, Body&& body, const Pointers*... arrays) {
  if (channels % kWide == 0 && are_aligned(arrays...)) return body(Channels<kWide>{});
  return body(Channels<1>{});
}

// Runs the kernel with a thread for each of `count` packs.
template <typename... Parameters, typename... Arguments>
[[nodiscard]] simt::Status launch_packs(void (*kernel)(Parameters...), std::int64_t count, simt::Stream stream,
                                        const Arguments&... arguments) {
  if (count == 0) return simt::kSuccess;
  const auto blocks = static_cast<unsigned>(blocks_of(kPixelThreads, count));
  return simt::launch(kernel, dim3(blocks), dim3(kPixelThreads), 0, stream, arguments...);
}

}  // namespace gpucnn

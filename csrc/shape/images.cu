// y[n,h,w,c] = x[n,h,w,c] * scale[c] + shift[c], or of x[n,c,h,w]: bytes of images to what networks take, in one pass;
// (x / 255 - mean) / std is a scale of 1 / (255 std) and a shift of -mean / std. Multiplied and added with one
// rounding.
//
// Layout   x uint8, (N,H,W,C) or (N,C,H,W); y (N,H,W,C), float, half or bfloat16; scale, shift (C,).
// Block    256 threads; in each pass over the grid a block owns 256 consecutive packs of 16 bytes of y or, from
//          (N,C,H,W), a tile of 4,096 bytes or fewer: all channels of some pixels that follow one another.
// Thread   one pack a pass, of 4 or 8 neighbouring elements, and the 4 or 8 bytes that they come from, in one access.
//          Those of a tile come through shared memory: there 4 neighbours of a plane at a time are put where they
//          belong among the other channels, without bank conflicts where the channels are odd in number.
// Limits   images * pixels * channels below 2^61, each below 2^31. Where y is not aligned to 16 bytes, x not to 8 (to 4
//          from (N,C,H,W)), or an image is no whole number of packs, elements go one by one; so they do from (N,C,H,W)
//          of more than 32 channels, and then from as many sectors.
// Bound    memory: 5 bytes an element of float32, 3 in 16 bits. N256 3x224x224 to float32, 193 MB, takes 64 us at the
//          3.0 TB/s that an H100 copies at.
// Measured not run on hardware yet.
#include "common/grid.h"
#include "common/index.h"
#include "common/pack.h"
#include "shape/shape.h"
#include "simt/simt.h"

#include <algorithm>
#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kThreads = 256;

constexpr int kTileBytes = 4096;
constexpr int kTilePixels = 128;  // a tile has this many or a multiple: a warp then reads words of one plane

struct Sizes {
  Divisor pixels, channels;
  std::int64_t elements, packs;  // of y, and how many of them go whole
};

template <typename T>
__device__ __forceinline__ void normalize_one(float byte, const float* scale, const float* shift, T* y,
                                              std::int64_t index, int channel) {
  y[index] = simt::from_float<T>(fmaf(byte, scale[channel], shift[channel]));
}

// The pack of y that begins at `index`, at `channel` of its pixel.
template <typename T>
__device__ __forceinline__ void normalize_pack(const std::uint8_t* from, const float* __restrict__ scale,
                                               const float* __restrict__ shift, T* __restrict__ y, std::int64_t index,
                                               int channel, int channels) {
  constexpr int kCount = kPack<T>;
  detail::Access<std::uint8_t, kCount> bytes;
  bytes.word = simt::vload<decltype(bytes.word)>(from);
  Floats<kCount> result;
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    result[j] = fmaf(static_cast<float>(bytes.elements[j]), scale[channel], shift[channel]);
    channel = channel + 1 == channels ? 0 : channel + 1;
  }
  store(y + index, result);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    normalize_kernel(const std::uint8_t* __restrict__ x, const float* __restrict__ scale,
                     const float* __restrict__ shift, T* __restrict__ y, const Sizes p) {
  constexpr int kCount = kPack<T>;
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  const std::int64_t first = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  for (std::int64_t i = first; i < p.packs; i += step) {  // [0, packs)
    const int channel = p.channels.divide(i * kCount).rest;
    normalize_pack(x + i * kCount, scale, shift, y, i * kCount, channel, p.channels.value);
  }
  for (std::int64_t i = p.packs * kCount + first; i < p.elements; i += step) {  // [packs * kCount, elements)
    normalize_one(static_cast<float>(x[i]), scale, shift, y, i, p.channels.divide(i).rest);
  }
}

struct Planes {
  Divisor pixels, channels, tiles;  // of an image
  std::int64_t items;               // tiles in all or, where there are none, elements of y
  int tile;                         // pixels of a full one; 0 where channels are too many
  bool in_words, in_packs;          // how x is read and y written
};

template <typename T>
__global__ void __launch_bounds__(kThreads)
    normalize_planes_kernel(const std::uint8_t* __restrict__ x, const float* __restrict__ scale,
                            const float* __restrict__ shift, T* __restrict__ y, const Planes p) {
  constexpr int kCount = kPack<T>;
  SIMT_SHARED(std::uint8_t, bytes, [kTileBytes]);  // of the tile's pixels, as they lie in y
  const int thread = static_cast<int>(threadIdx.x), channels = p.channels.value;
  if (p.tile == 0) {
    for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + thread; i < p.items;
         i += std::int64_t{gridDim.x} * kThreads) {
      const Quotient at = p.channels.divide(i);
      const Quotient image = p.pixels.divide(at.whole);
      const std::int64_t from = (image.whole * channels + at.rest) * p.pixels.value + image.rest;
      normalize_one(static_cast<float>(x[from]), scale, shift, y, i, at.rest);
    }
    return;
  }
  for (std::int64_t item = blockIdx.x; item < p.items; item += gridDim.x) {
    const Quotient image = p.tiles.divide(item);
    const int first = image.rest * p.tile, count = min(p.tile, p.pixels.value - first);
    const std::uint8_t* const planes = x + image.whole * channels * p.pixels.value + first;
    const int each = p.in_words ? 4 : 1, in_plane = p.tile / each;  // accesses
    for (int i = thread; i < channels * in_plane; i += kThreads) {
      const int channel = i / in_plane, pixel = (i - channel * in_plane) * each;
      if (pixel >= count) continue;
      const std::uint8_t* const from = planes + std::int64_t{channel} * p.pixels.value + pixel;
      if (p.in_words) {
        const unsigned word = simt::vload<unsigned>(from);
#pragma unroll
        for (int j = 0; j < 4; ++j) bytes[(pixel + j) * channels + channel] = static_cast<std::uint8_t>(word >> 8 * j);
      } else {
        bytes[pixel * channels + channel] = *from;
      }
    }
    __syncthreads();
    T* const to = y + (image.whole * p.pixels.value + first) * channels;
    if (p.in_packs) {
      for (int i = thread * kCount; i < count * channels; i += kThreads * kCount) {
        normalize_pack(bytes + i, scale, shift, to, i, p.channels.divide(i).rest, channels);
      }
    } else {
      for (int i = thread; i < count * channels; i += kThreads) {
        normalize_one(static_cast<float>(bytes[i]), scale, shift, to, i, p.channels.divide(i).rest);
      }
    }
    __syncthreads();
  }
}

}  // namespace

template <typename T>
simt::Status normalize_images(const std::uint8_t* x, const float* scale, const float* shift, T* y, std::int64_t images,
                              std::int64_t pixels, std::int64_t channels, bool planar, simt::Stream stream) {
  const std::int64_t elements = images * pixels * channels;
  const auto multiple = [x](std::uintptr_t bytes) { return reinterpret_cast<std::uintptr_t>(x) % bytes == 0; };
  unsigned blocks = 0;
  if (planar && channels > 1) {  // of one channel both orders are the same
    const auto tile = static_cast<int>(
        std::min((kTileBytes / channels) / kTilePixels * kTilePixels, blocks_of(kTilePixels, pixels) * kTilePixels));
    const std::int64_t tiles = tile == 0 ? 1 : blocks_of(tile, pixels);
    const Planes p{divisor_of(pixels),
                   divisor_of(channels),
                   divisor_of(tiles),
                   tile == 0 ? elements : images * tiles,
                   tile,
                   multiple(4) && pixels % 4 == 0,
                   are_aligned(y) && pixels * channels % kPack<T> == 0};
    const std::int64_t threads = tile == 0 ? elements : p.items * kThreads;
    if (const auto status = one_wave(threads, kThreads, &blocks); status != simt::kSuccess) return status;
    return simt::launch(normalize_planes_kernel<T>, dim3(blocks), dim3(kThreads), 0, stream, x, scale, shift, y, p);
  }
  const bool aligned = are_aligned(y) && multiple(8);
  const Sizes p{divisor_of(pixels), divisor_of(channels), elements, aligned ? elements / kPack<T> : 0};
  const std::int64_t items = aligned ? blocks_of(kPack<T>, elements) : elements;
  if (const auto status = one_wave(items, kThreads, &blocks); status != simt::kSuccess) return status;
  return simt::launch(normalize_kernel<T>, dim3(blocks), dim3(kThreads), 0, stream, x, scale, shift, y, p);
}

template simt::Status normalize_images(const std::uint8_t*, const float*, const float*, float*, std::int64_t,
                                       std::int64_t, std::int64_t, bool, simt::Stream);
template simt::Status normalize_images(const std::uint8_t*, const float*, const float*, simt::half*, std::int64_t,
                                       std::int64_t, std::int64_t, bool, simt::Stream);
template simt::Status normalize_images(const std::uint8_t*, const float*, const float*, simt::bfloat16*, std::int64_t,
                                       std::int64_t, std::int64_t, bool, simt::Stream);

}  // namespace gpucnn

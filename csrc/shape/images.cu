// y[n,h,w,c] = x[n,h,w,c] * scale[c] + shift[c], or of x[n,c,h,w]: bytes of images to what networks take, in one pass;
// (x / 255 - mean) / std is a scale of 1 / (255 std) and a shift of -mean / std. Multiplied and added with one
// rounding.
//
// Layout   x uint8, (N,H,W,C) or (N,C,H,W); y (N,H,W,C), float, half or bfloat16; scale, shift (C,).
// Block    256 threads; in each pass over the grid a block owns 256 consecutive packs of 16 bytes of y.
// Thread   one pack a pass, of 4 or 8 neighbouring elements, and the 4 or 8 bytes that they come from: in one access
//          from (N,H,W,C), one by one from (N,C,H,W), where neighbouring lanes read the same sectors of C planes.
// Limits   images * pixels * channels below 2^61, each below 2^31. Where y is not aligned to 16 bytes, or x to 8,
//          elements go one by one.
// Bound    memory: 5 bytes an element of float32, 3 in 16 bits. N256 3x224x224 to float32, 193 MB, takes 64 us at the
//          3.0 TB/s that an H100 copies at.
// Measured not run on hardware yet.
#include "common/grid.h"
#include "common/index.h"
#include "common/pack.h"
#include "shape/shape.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kThreads = 256;

struct Sizes {
  Divisor pixels, channels;
  std::int64_t elements, packs;  // of y, and how many of them go whole
};

template <typename T, bool kPlanar>
__global__ void __launch_bounds__(kThreads)
    normalize_kernel(const std::uint8_t* __restrict__ x, const float* __restrict__ scale,
                     const float* __restrict__ shift, T* __restrict__ y, const Sizes p) {
  constexpr int kCount = kPack<T>;
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  const std::int64_t first = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const auto planar_offset = [&](const Quotient& at) {  // of a pixel's channel
    const Quotient image = p.pixels.divide(at.whole);
    return (image.whole * p.channels.value + at.rest) * p.pixels.value + image.rest;
  };
  for (std::int64_t i = first; i < p.packs; i += step) {  // [0, packs)
    Quotient at = p.channels.divide(i * kCount);          // whole: pixel of all images; rest: [0, C)
    detail::Access<std::uint8_t, kCount> bytes;
    if constexpr (!kPlanar) bytes.word = simt::vload<decltype(bytes.word)>(x + i * kCount);
    Floats<kCount> result;
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const float value = static_cast<float>(kPlanar ? x[planar_offset(at)] : bytes.elements[j]);
      result[j] = fmaf(value, scale[at.rest], shift[at.rest]);
      const bool next = ++at.rest == p.channels.value;
      at.whole += next;
      at.rest = next ? 0 : at.rest;
    }
    store(y + i * kCount, result);
  }
  for (std::int64_t i = p.packs * kCount + first; i < p.elements; i += step) {  // [packs * kCount, elements)
    const Quotient at = p.channels.divide(i);
    const float value = static_cast<float>(kPlanar ? x[planar_offset(at)] : x[i]);
    y[i] = simt::from_float<T>(fmaf(value, scale[at.rest], shift[at.rest]));
  }
}

}  // namespace

template <typename T>
simt::Status normalize_images(const std::uint8_t* x, const float* scale, const float* shift, T* y, std::int64_t images,
                              std::int64_t pixels, std::int64_t channels, bool planar, simt::Stream stream) {
  const std::int64_t elements = images * pixels * channels;
  const bool aligned = are_aligned(y) && (planar || reinterpret_cast<std::uintptr_t>(x) % 8 == 0);
  const Sizes p{divisor_of(pixels), divisor_of(channels), elements, aligned ? elements / kPack<T> : 0};
  unsigned blocks = 0;
  const std::int64_t items = aligned ? blocks_of(kPack<T>, elements) : elements;
  if (const auto status = one_wave(items, kThreads, &blocks); status != simt::kSuccess) return status;
  const auto kernel = planar ? normalize_kernel<T, true> : normalize_kernel<T, false>;
  return simt::launch(kernel, dim3(blocks), dim3(kThreads), 0, stream, x, scale, shift, y, p);
}

template simt::Status normalize_images(const std::uint8_t*, const float*, const float*, float*, std::int64_t,
                                       std::int64_t, std::int64_t, bool, simt::Stream);
template simt::Status normalize_images(const std::uint8_t*, const float*, const float*, simt::half*, std::int64_t,
                                       std::int64_t, std::int64_t, bool, simt::Stream);
template simt::Status normalize_images(const std::uint8_t*, const float*, const float*, simt::bfloat16*, std::int64_t,
                                       std::int64_t, std::int64_t, bool, simt::Stream);

}  // namespace gpucnn

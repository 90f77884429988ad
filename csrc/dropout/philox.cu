// For each element a word of Philox 4x32-10, at a counter that is the element's place in N,C,H,W order and the number
// of the call, under the seed as key: y = x * scale where word >= threshold, else 0; the mask word >= threshold itself;
// and slopes lower + factor * word where x <= 0, else 1. No mask is kept: backward draws the same numbers again.
//
// Layout   x, y in any order of memory that three sizes and steps describe (Places): N,H,W,C, or as the mask counts; a
//          mask of fewer axes, (N,C), has one word for all that an entry stands for.
// Block    256 threads; in each pass over the grid 256 neighbouring packs.
// Thread   packs of 16 bytes, whose elements differ by the innermost step alone; elements one by one where the
// innermost
//          size is no whole number of packs, memory is not aligned, and at the end.
// Limits   count below 2^38, the innermost sizes below 2^31.
// Bound    memory: 4 bytes read and 4 written an element in float32; with 20 multiplications of 32 x 32 bits each,
// which
//          an H100 does 64 of a cycle and multiprocessor, 16-bit storage is bound by those: N32 C64 56x56, 6.4 M
//          elements, takes 17 us in float32 (copy 3.0 TB/s) and 11 us of multiplications.
// Measured not run on hardware yet.
#include "common/grid.h"
#include "common/index.h"
#include "common/pack.h"
#include "common/philox.h"
#include "dropout/dropout.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kThreads = 256;

// Places, as kernels divide by them.
struct Walk {
  std::int64_t count;
  Divisor middle, inner;
  std::int64_t outer_step, middle_step, inner_step;
  bool is_plain;  // an element's place is its number

  __device__ __forceinline__ std::int64_t place(std::int64_t index) const {
    if (is_plain) return index;
    const Quotient line = inner.divide(index);
    const Quotient outer = middle.divide(line.whole);
    return outer.whole * outer_step + outer.rest * middle_step + line.rest * inner_step;
  }
  __device__ __forceinline__ std::int64_t step() const { return is_plain ? 1 : inner_step; }
};

Walk walk_of(const Places& p) {
  return {p.count,
          divisor_of(p.middle),
          divisor_of(p.inner),
          p.outer_step,
          p.middle_step,
          p.inner_step,
          p.middle == 1 && p.inner == 1 && p.outer_step == 1};
}

struct Apply {
  std::uint64_t threshold;
  float scale;

  template <typename T>
  __device__ __forceinline__ float operator()(float x, std::uint32_t word, const T*) const {
    return word >= threshold ? x * scale : 0.0f;
  }
};

struct Slope {
  double factor, lower;

  template <typename T>
  __device__ __forceinline__ float operator()(float x, std::uint32_t word, const T*) const {
    if (!(x <= 0.0f)) return 1.0f;
    const double slope = static_cast<double>(word) * factor + lower;
    const float nearest = static_cast<float>(slope);
    if (sizeof(T) != 2) return nearest;
    // To be rounded once more: an odd last bit stands for what is beyond it, so that no tie is made up.
    unsigned bits = __float_as_uint(nearest);
    if (fabs(static_cast<double>(nearest)) > fabs(slope)) --bits;
    if (static_cast<double>(nearest) != slope) bits |= 1;
    return __uint_as_float(bits);
  }
};

template <typename T, typename Function>
__global__ void __launch_bounds__(kThreads) draw_kernel(const Walk walk, const Philox draw, const Function function,
                                                        const T* __restrict__ x, T* __restrict__ y, bool wide) {
  constexpr int kWidth = kPack<T>;
  const std::int64_t first = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const std::int64_t threads = std::int64_t{gridDim.x} * kThreads;
  const std::int64_t packs = wide ? walk.count / kWidth : 0, step = walk.step();
  for (std::int64_t i = first; i < packs; i += threads) {
    Floats<kWidth> values = load<kWidth>(x + i * kWidth);
    const std::int64_t place = walk.place(i * kWidth);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      values[j] = function(values[j], philox_word(draw, static_cast<std::uint64_t>(place + j * step)), x);
    }
    store(y + i * kWidth, values);
  }
  for (std::int64_t i = packs * kWidth + first; i < walk.count; i += threads) {
    Floats<1> value = load<1>(x + i);
    value[0] = function(value[0], philox_word(draw, static_cast<std::uint64_t>(walk.place(i))), x);
    store(y + i, value);
  }
}

__global__ void __launch_bounds__(kThreads)
    mask_kernel(const Walk walk, const Philox draw, std::uint64_t threshold, std::uint8_t* __restrict__ keep) {
  constexpr int kWidth = 16;
  const std::int64_t first = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const std::int64_t threads = std::int64_t{gridDim.x} * kThreads;
  const auto kept = [&](std::int64_t i) -> unsigned {
    return philox_word(draw, static_cast<std::uint64_t>(walk.place(i))) >= threshold ? 1 : 0;
  };
  const std::int64_t packs = reinterpret_cast<std::uintptr_t>(keep) % 16 == 0 ? walk.count / kWidth : 0;
  for (std::int64_t i = first; i < packs; i += threads) {
    uint4 bytes{};
    const auto word = [&](std::int64_t at) {
      return kept(at) | kept(at + 1) << 8 | kept(at + 2) << 16 | kept(at + 3) << 24;
    };
    bytes.x = word(i * kWidth);
    bytes.y = word(i * kWidth + 4);
    bytes.z = word(i * kWidth + 8);
    bytes.w = word(i * kWidth + 12);
    simt::vstore(keep + i * kWidth, bytes);
  }
  for (std::int64_t i = packs * kWidth + first; i < walk.count; i += threads) {
    keep[i] = static_cast<std::uint8_t>(kept(i));
  }
}

template <typename T, typename Function>
simt::Status launch_draw(const Places& places, const Draw& draw, const Function& function, const T* x, T* y,
                         simt::Stream stream) {
  if (places.count == 0) return simt::kSuccess;
  const Walk walk = walk_of(places);
  const bool wide = are_aligned(x, y) && (walk.is_plain || places.inner % kPack<T> == 0);
  unsigned blocks = 0;
  const simt::Status status = one_wave(blocks_of(wide ? kPack<T> : 1, places.count), kThreads, &blocks);
  if (status != simt::kSuccess) return status;
  return simt::launch(draw_kernel<T, Function>, dim3(blocks), dim3(kThreads), 0, stream, walk,
                      Philox{draw.seed, draw.call}, function, x, y, wide);
}

}  // namespace

template <typename T>
simt::Status dropout_apply(const Places& places, const Draw& draw, std::uint64_t threshold, float scale, const T* x,
                           T* y, simt::Stream stream) {
  return launch_draw(places, draw, Apply{threshold, scale}, x, y, stream);
}

template <typename T>
simt::Status rrelu_slopes(const Places& places, const Draw& draw, double factor, double lower, const T* x, T* slopes,
                          simt::Stream stream) {
  return launch_draw(places, draw, Slope{factor, lower}, x, slopes, stream);
}

simt::Status dropout_mask(const Places& places, const Draw& draw, std::uint64_t threshold, std::uint8_t* keep,
                          simt::Stream stream) {
  if (places.count == 0) return simt::kSuccess;
  unsigned blocks = 0;
  const simt::Status status = one_wave(blocks_of(16, places.count), kThreads, &blocks);
  if (status != simt::kSuccess) return status;
  return simt::launch(mask_kernel, dim3(blocks), dim3(kThreads), 0, stream, walk_of(places),
                      Philox{draw.seed, draw.call}, threshold, keep);
}

#define GPUCNN_DROPOUT(T)                                                                                            \
  template simt::Status dropout_apply(const Places&, const Draw&, std::uint64_t, float, const T*, T*, simt::Stream); \
  template simt::Status rrelu_slopes(const Places&, const Draw&, double, double, const T*, T*, simt::Stream);
GPUCNN_DROPOUT(float)
GPUCNN_DROPOUT(simt::half)
GPUCNN_DROPOUT(simt::bfloat16)
#undef GPUCNN_DROPOUT

}  // namespace gpucnn

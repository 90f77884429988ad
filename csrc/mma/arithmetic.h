// What the products of a strip are computed with: tensor cores, in one of four ways. For .cu files.
//
//   Of<simt::bfloat16>, Of<simt::half>   elements as they are stored: exact products, sums in float32
//   Tf32                                 float32, rounded to 11 bits before it is multiplied
//   Split                                float32 as the sum of three bfloat16 numbers, of whose nine products the six
//                                        largest count: as exact as float32's own arithmetic (G. Henry, P. Tang and
//                                        A. Heinecke, "Leveraging the bfloat16 artificial intelligence datatype for
//                                        higher-precision computations", 2019). Two numbers of TF32 are a bit short of
//                                        float32, and their three products take as long
//
// An arithmetic has
//
//   Element   what is in memory
//   kDepth    of a step: 32 bytes of an operand's depth
//   kSteps    that multiply() wants at once
//   multiply(sums, a, b)   sums[i][j] += a[.][i] * b[.][j], for the fragments of 16 rows and of 8 columns of each step;
//                          whether that is all, or add_unbounded(sums, a, b) has to follow
//
// The unit cuts off what does not fit while it adds, instead of rounding it: over a long sum that shows. Split lets it
// add 16 products by depth at a time, and adds the results up in float32 itself.
#pragma once

#include "simt/ptx.h"
#include "simt/simt.h"

#include <cstdint>
#include <type_traits>

namespace gpucnn::mma {

struct LeftWords {
  std::uint32_t word[4];
};
struct RightWords {
  std::uint32_t word[2];
};

template <typename T>
struct Of {
  using Element = T;
  static constexpr int kDepth = 16, kSteps = 1;

  template <int kDown, int kAcross>
  static __device__ __forceinline__ bool multiply(float (&sums)[kDown][kAcross][4], const LeftWords (&a)[1][kDown],
                                                  const RightWords (&b)[1][kAcross]) {
#pragma unroll
    for (int i = 0; i < kDown; ++i) {
#pragma unroll
      for (int j = 0; j < kAcross; ++j) {
        if constexpr (std::is_same_v<T, simt::half>) {
          simt::mma_m16n8k16_fp16(sums[i][j], a[0][i].word, b[0][j].word);
        } else {
          simt::mma_m16n8k16_bf16(sums[i][j], a[0][i].word, b[0][j].word);
        }
      }
    }
    return true;
  }
};

// float32 rounded to 11 bits, word by word.
template <typename Words>
__device__ __forceinline__ Words to_tf32(const Words& words) {
  Words rounded;
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(Words) / sizeof(std::uint32_t)); ++i) {
    rounded.word[i] = simt::to_tf32(__uint_as_float(words.word[i]));
  }
  return rounded;
}

struct Tf32 {
  using Element = float;
  static constexpr int kDepth = 8, kSteps = 1;

  template <int kDown, int kAcross>
  static __device__ __forceinline__ bool multiply(float (&sums)[kDown][kAcross][4], const LeftWords (&a)[1][kDown],
                                                  const RightWords (&b)[1][kAcross]) {
    RightWords right[kAcross];
#pragma unroll
    for (int j = 0; j < kAcross; ++j) right[j] = to_tf32(b[0][j]);
#pragma unroll
    for (int i = 0; i < kDown; ++i) {
      const LeftWords left = to_tf32(a[0][i]);
#pragma unroll
      for (int j = 0; j < kAcross; ++j) simt::mma_m16n8k8_tf32(sums[i][j], left.word, right[j].word);
    }
    return true;
  }
};

// A number is high + middle / kScale + low / kScale^2, each of 8 bits: exactly, as it has 24. The scale keeps the bits
// of a small number's parts, and it sorts the products by size: those of a size are summed together.
//
// Infinities are multiplied by a 0 that way where there was none. So where a warp meets one, or a NaN, or what would be
// rounded to infinity, it takes zeros for them, and in the end adds what the products without a split are, wherever
// they are not finite. All else has the same bits as ever.
struct Split {
  using Element = float;
  static constexpr int kDepth = 8, kSteps = 2;
  static constexpr float kScale = 256.0f, kLargest = 3.402823466e+38f;

  // Two steps of 8 by depth are one of 16 for the unit: of each pair of elements that it multiplies together, one comes
  // from either.
  template <int kDown, int kAcross>
  static __device__ __forceinline__ bool multiply(float (&sums)[kDown][kAcross][4], const LeftWords (&a)[2][kDown],
                                                  const RightWords (&b)[2][kAcross]) {
    float zero = 0.0f;  // while all is finite
#pragma unroll
    for (int i = 0; i < kDown; ++i) zero += times_zero(a[0][i]) + times_zero(a[1][i]);
#pragma unroll
    for (int j = 0; j < kAcross; ++j) zero += times_zero(b[0][j]) + times_zero(b[1][j]);
    const bool some_are_not = __any_sync(~0u, !(zero == 0.0f)) != 0;

    Parts<RightWords> right[kAcross];
#pragma unroll
    for (int j = 0; j < kAcross; ++j) right[j] = Parts<RightWords>(b[0][j], b[1][j], some_are_not);
#pragma unroll
    for (int i = 0; i < kDown; ++i) {
      const Parts<LeftWords> left(a[0][i], a[1][i], some_are_not);
#pragma unroll
      for (int j = 0; j < kAcross; ++j) {
        float large[4] = {}, medium[4] = {}, small[4] = {};
        simt::mma_m16n8k16_bf16(small, left.low.word, right[j].high.word);
        simt::mma_m16n8k16_bf16(small, left.high.word, right[j].low.word);
        simt::mma_m16n8k16_bf16(small, left.middle.word, right[j].middle.word);
        simt::mma_m16n8k16_bf16(medium, left.middle.word, right[j].high.word);
        simt::mma_m16n8k16_bf16(medium, left.high.word, right[j].middle.word);
        simt::mma_m16n8k16_bf16(large, left.high.word, right[j].high.word);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          sums[i][j][e] += fmaf(fmaf(small[e], 1 / kScale, medium[e]), 1 / kScale, large[e]);
        }
      }
    }
    return !some_are_not;
  }

  // Of the same fragments, read again rather than kept.
  template <int kDown, int kAcross>
  static __device__ __forceinline__ void add_unbounded(float (&sums)[kDown][kAcross][4], const LeftWords (&a)[2][kDown],
                                                       const RightWords (&b)[2][kAcross]) {
#pragma unroll
    for (int i = 0; i < kDown; ++i) {
      const LeftWords left = unbounded(a[0][i], a[1][i]);
#pragma unroll
      for (int j = 0; j < kAcross; ++j) {
        const RightWords right = unbounded(b[0][j], b[1][j]);
        float sum[4] = {};
        simt::mma_m16n8k16_bf16(sum, left.word, right.word);
#pragma unroll
        for (int e = 0; e < 4; ++e) sums[i][j][e] += fabsf(sum[e]) <= kLargest ? 0.0f : sum[e];
      }
    }
  }

 private:
  template <typename Words>
  static constexpr int kWords = static_cast<int>(sizeof(Words) / sizeof(std::uint32_t));

  // 0, or NaN if a word is an infinity or a NaN, or perhaps rounded to one.
  template <typename Words>
  static __device__ __forceinline__ float times_zero(const Words& words) {
    float zero = 0.0f;
#pragma unroll
    for (int i = 0; i < kWords<Words>; ++i) {
      zero = fmaf(__uint_as_float(words.word[i]) * (1.0f + 1.0f / kScale), 0.0f, zero);
    }
    return zero;
  }

  static __device__ __forceinline__ float first(std::uint32_t pair) { return __uint_as_float(pair << 16); }
  static __device__ __forceinline__ float second(std::uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

  template <typename Words>
  struct Parts {
    Words high, middle, low;

    __device__ __forceinline__ Parts() {}
    __device__ __forceinline__ Parts(const Words& firsts, const Words& seconds, bool some_are_not_finite) {
#pragma unroll
      for (int i = 0; i < kWords<Words>; ++i) {
        float x = __uint_as_float(firsts.word[i]), y = __uint_as_float(seconds.word[i]);
        high.word[i] = simt::pack_bfloat16(x, y);
        if (some_are_not_finite) {
          x = fabsf(x) <= kLargest ? x : 0.0f;
          y = fabsf(y) <= kLargest ? y : 0.0f;
          high.word[i] = bounded(x, y);
        }
        x = (x - first(high.word[i])) * kScale;
        y = (y - second(high.word[i])) * kScale;
        middle.word[i] = some_are_not_finite ? bounded(x, y) : simt::pack_bfloat16(x, y);
        low.word[i] = simt::pack_bfloat16((x - first(middle.word[i])) * kScale, (y - second(middle.word[i])) * kScale);
      }
    }
  };

  // Two finite numbers rounded to bfloat16, but cut off where they would become infinities.
  static __device__ __forceinline__ std::uint32_t bounded(float x, float y) {
    const std::uint32_t rounded = simt::pack_bfloat16(x, y);
    const bool low = (rounded & 0x7f80u) == 0x7f80u, high = (rounded & 0x7f800000u) == 0x7f800000u;
    return (low ? __float_as_uint(x) >> 16 : rounded & 0xffffu) | ((high ? __float_as_uint(y) : rounded) & 0xffff0000u);
  }

  // Infinities and NaN; and 1 with a number's sign, or 0, for all others, which can't overflow.
  static __device__ __forceinline__ float unbounded(float value) {
    if (!(fabsf(value) <= kLargest)) return value;
    return value == 0.0f ? 0.0f : copysignf(1.0f, value);
  }
  template <typename Words>
  static __device__ __forceinline__ Words unbounded(const Words& firsts, const Words& seconds) {
    Words found;
#pragma unroll
    for (int i = 0; i < kWords<Words>; ++i) {
      found.word[i] =
          simt::pack_bfloat16(unbounded(__uint_as_float(firsts.word[i])), unbounded(__uint_as_float(seconds.word[i])));
    }
    return found;
  }
};

}  // namespace gpucnn::mma

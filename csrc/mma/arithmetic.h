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
//   multiply(sums, a, b)   sums[i][j] += a[i] * b[j], for the fragments of 16 rows and of 8 columns of a step; Split's
//                          goes fragment by fragment
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
  static constexpr int kDepth = 16;

  template <int kDown, int kAcross>
  static __device__ __forceinline__ void multiply(float (&sums)[kDown][kAcross][4], const LeftWords (&a)[kDown],
                                                  const RightWords (&b)[kAcross]) {
#pragma unroll
    for (int i = 0; i < kDown; ++i) {
#pragma unroll
      for (int j = 0; j < kAcross; ++j) {
        if constexpr (std::is_same_v<T, simt::half>) {
          simt::mma_m16n8k16_fp16(sums[i][j], a[i].word, b[j].word);
        } else {
          simt::mma_m16n8k16_bf16(sums[i][j], a[i].word, b[j].word);
        }
      }
    }
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
  static constexpr int kDepth = 8;

  template <int kDown, int kAcross>
  static __device__ __forceinline__ void multiply(float (&sums)[kDown][kAcross][4], const LeftWords (&a)[kDown],
                                                  const RightWords (&b)[kAcross]) {
    RightWords right[kAcross];
#pragma unroll
    for (int j = 0; j < kAcross; ++j) right[j] = to_tf32(b[j]);
#pragma unroll
    for (int i = 0; i < kDown; ++i) {
      const LeftWords left = to_tf32(a[i]);
#pragma unroll
      for (int j = 0; j < kAcross; ++j) simt::mma_m16n8k8_tf32(sums[i][j], left.word, right[j].word);
    }
  }
};

// A number is high + middle / kScale + low / kScale^2, each of 8 bits: exactly, as it has 24. The scale keeps the bits
// of a small number's parts, and it sorts the products by size: those of a size are summed together.
//
// Infinities are multiplied by a 0 that way where there was none, which makes them NaN; so are the largest numbers,
// which round to infinity. So a tile in which a sum is not finite is computed once more, carefully (tile.h): with zeros
// for infinities and NaN, and adding what the products without a split are wherever these are not finite. Sums that
// were finite have the same bits again.
struct Split {
  using Element = float;
  static constexpr int kDepth = 8;
  static constexpr float kScale = 256.0f, kLargest = 3.402823466e+38f;

  template <typename Words>
  struct Parts {
    Words high, middle, low;
  };

  // Carefully: with zeros for what is not finite, and nothing that rounds to infinity.
  template <bool kCarefully, typename Words>
  static __device__ __forceinline__ Parts<Words> parts_of(const Words& firsts, const Words& seconds) {
    Parts<Words> parts;
#pragma unroll
    for (int i = 0; i < kWords<Words>; ++i) {
      float x = __uint_as_float(firsts.word[i]), y = __uint_as_float(seconds.word[i]);
      if constexpr (kCarefully) {
        x = is_finite(x) ? x : 0.0f;
        y = is_finite(y) ? y : 0.0f;
      }
      parts.high.word[i] = rounded<kCarefully>(x, y);
      x = (x - first(parts.high.word[i])) * kScale;
      y = (y - second(parts.high.word[i])) * kScale;
      parts.middle.word[i] = rounded<kCarefully>(x, y);
      x = (x - first(parts.middle.word[i])) * kScale;
      y = (y - second(parts.middle.word[i])) * kScale;
      parts.low.word[i] = simt::pack_bfloat16(x, y);
    }
    return parts;
  }

  // Two steps of 8 by depth are one of 16 for the unit: of each pair of elements that it multiplies together, one comes
  // from either. Of those steps' fragments, of 16 rows and of 8 columns: sums[j] += a * b[j].
  template <bool kCarefully, int kAcross>
  static __device__ __forceinline__ void multiply(float (&sums)[kAcross][4], const LeftWords (&a)[2],
                                                  const Parts<RightWords> (&b)[kAcross]) {
    const Parts<LeftWords> left = parts_of<kCarefully>(a[0], a[1]);
#pragma unroll
    for (int j = 0; j < kAcross; ++j) {
      float large[4] = {}, medium[4] = {}, small[4] = {};
      simt::mma_m16n8k16_bf16(small, left.low.word, b[j].high.word);
      simt::mma_m16n8k16_bf16(small, left.high.word, b[j].low.word);
      simt::mma_m16n8k16_bf16(small, left.middle.word, b[j].middle.word);
      simt::mma_m16n8k16_bf16(medium, left.middle.word, b[j].high.word);
      simt::mma_m16n8k16_bf16(medium, left.high.word, b[j].middle.word);
      simt::mma_m16n8k16_bf16(large, left.high.word, b[j].high.word);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        sums[j][e] += fmaf(fmaf(small[e], 1 / kScale, medium[e]), 1 / kScale, large[e]);
      }
    }
  }

  static __device__ __forceinline__ bool is_finite(float sum) { return fabsf(sum) <= kLargest; }

  // Of the same fragments, as they are: what becomes of infinities and NaN.
  static __device__ __forceinline__ void add_unbounded(float (&sums)[4], const LeftWords (&a)[2],
                                                       const RightWords (&b)[2]) {
    float sum[4] = {};
    simt::mma_m16n8k16_bf16(sum, unbounded(a[0], a[1]).word, unbounded(b[0], b[1]).word);
#pragma unroll
    for (int e = 0; e < 4; ++e) sums[e] += is_finite(sum[e]) ? 0.0f : sum[e];
  }

 private:
  template <typename Words>
  static constexpr int kWords = static_cast<int>(sizeof(Words) / sizeof(std::uint32_t));

  static __device__ __forceinline__ float first(std::uint32_t pair) { return __uint_as_float(pair << 16); }
  static __device__ __forceinline__ float second(std::uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

  // To bfloat16.
  template <bool kCarefully>
  static __device__ __forceinline__ std::uint32_t rounded(float x, float y) {
    return kCarefully ? bounded(x, y) : simt::pack_bfloat16(x, y);
  }

  // Two finite numbers rounded to bfloat16, but cut off where they would become infinities.
  static __device__ __forceinline__ std::uint32_t bounded(float x, float y) {
    const std::uint32_t rounded = simt::pack_bfloat16(x, y);
    const bool low = (rounded & 0x7f80u) == 0x7f80u, high = (rounded & 0x7f800000u) == 0x7f800000u;
    return (low ? __float_as_uint(x) >> 16 : rounded & 0xffffu) | ((high ? __float_as_uint(y) : rounded) & 0xffff0000u);
  }

  // Infinities and NaN; and 1 with a number's sign, or 0, for all others, which can't overflow.
  static __device__ __forceinline__ float unbounded(float value) {
    if (!is_finite(value)) return value;
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

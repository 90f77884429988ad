// What the products of a strip are computed with: tensor cores, in one of four ways. For .cu files.
//
//   Of<simt::bfloat16>, Of<simt::half>   elements as they are stored: exact products, sums in float32
//   Tf32                                 float32, rounded to 11 bits before it is multiplied
//   SplitTf32                            float32 as the sum of two such numbers, of which three products of four count:
//                                        about as exact as float32 itself (S. Markidis et al., "NVIDIA Tensor Core
//                                        Programmability, Performance & Precision", 2018; H. Ootomo and R. Yokota,
//                                        "Recovering single precision accuracy from Tensor Cores", 2022)
//
// An arithmetic has
//
//   Element             what is in memory
//   kDepth              of one matrix instruction: 32 bytes of depth
//   Left, Right         a thread's elements of 16 rows and of 8 columns, ready to be multiplied
//   left(words), right(words)
//   multiply(d, a, b)   d += a * b
//
// The unit cuts off what does not fit while it adds, instead of rounding it: over a long sum that shows. SplitTf32 lets
// it add 8 products by depth at a time, and adds the results up in float32 itself.
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
  using Left = LeftWords;
  using Right = RightWords;
  static constexpr int kDepth = 16;

  static __device__ __forceinline__ Left left(const LeftWords& words) { return words; }
  static __device__ __forceinline__ Right right(const RightWords& words) { return words; }
  static __device__ __forceinline__ void multiply(float (&d)[4], const Left& a, const Right& b) {
    if constexpr (std::is_same_v<T, simt::half>) {
      simt::mma_m16n8k16_fp16(d, a.word, b.word);
    } else {
      simt::mma_m16n8k16_bf16(d, a.word, b.word);
    }
  }
};

struct Tf32 {
  using Element = float;
  using Left = LeftWords;
  using Right = RightWords;
  static constexpr int kDepth = 8;

  static __device__ __forceinline__ Left left(const LeftWords& words) {
    Left rounded;
#pragma unroll
    for (int i = 0; i < 4; ++i) rounded.word[i] = simt::to_tf32(__uint_as_float(words.word[i]));
    return rounded;
  }
  static __device__ __forceinline__ Right right(const RightWords& words) {
    return {{simt::to_tf32(__uint_as_float(words.word[0])), simt::to_tf32(__uint_as_float(words.word[1]))}};
  }
  static __device__ __forceinline__ void multiply(float (&d)[4], const Left& a, const Right& b) {
    simt::mma_m16n8k8_tf32(d, a.word, b.word);
  }
};

struct SplitTf32 {
  struct Left {
    LeftWords large, small;
  };
  struct Right {
    RightWords large, small;
  };
  using Element = float;
  static constexpr int kDepth = 8;

  // The nearest number of 11 bits, and what is left: nothing of an infinity, or of a NaN. Of numbers that would be
  // rounded to infinity the rest is cut off.
  static __device__ __forceinline__ void split(std::uint32_t word, std::uint32_t& large, std::uint32_t& small) {
    const float value = __uint_as_float(word);
    const std::uint32_t magnitude = word & 0x7fffffffu;
    const bool finite = magnitude < 0x7f800000u;
    large = finite && magnitude >= 0x7f7ff000u ? word & 0xffffe000u : simt::to_tf32(value);
    small = simt::to_tf32(finite ? value - __uint_as_float(large) : 0.0f);
  }
  static __device__ __forceinline__ Left left(const LeftWords& words) {
    Left split_up;
#pragma unroll
    for (int i = 0; i < 4; ++i) split(words.word[i], split_up.large.word[i], split_up.small.word[i]);
    return split_up;
  }
  static __device__ __forceinline__ Right right(const RightWords& words) {
    Right split_up;
#pragma unroll
    for (int i = 0; i < 2; ++i) split(words.word[i], split_up.large.word[i], split_up.small.word[i]);
    return split_up;
  }
  static __device__ __forceinline__ void multiply(float (&d)[4], const Left& a, const Right& b) {
    float sum[4] = {};
    simt::mma_m16n8k8_tf32(sum, a.small.word, b.large.word);  // the small ones first
    simt::mma_m16n8k8_tf32(sum, a.large.word, b.small.word);
    simt::mma_m16n8k8_tf32(sum, a.large.word, b.large.word);
#pragma unroll
    for (int i = 0; i < 4; ++i) d[i] += sum[i];
  }
};

}  // namespace gpucnn::mma

// What copies an operand's strips from global into shared memory. For .cu files.
//
//   DepthOperand  into a DepthStrip: 4 threads side by side copy the 64 bytes of a line
//   LineOperand   into a LineStrip: 4 threads (8 or 16, of float32) copy 64 bytes or more of each depth in turn
//
// Where things are is a Source's to say, as for gemm/operands.h: images (conv2d/gather.h) or matrices.
//
// Wide     addresses and the sizes along memory are multiples of 16 bytes: cp.async, past the registers. Not wide:
//          element by element into registers, while the strip before is multiplied, and from there to the same places
//          as units of 16 bytes: the same bits. An element takes about 14 instructions. For a strip of 128 x 64 a warp
//          issues 730 of them of 16 bits and 460 of TF32, where the matrix unit multiplies for 220 and 440 cycles: 360
//          and 290 products a cycle and multiprocessor, of which FFMA has 128.
#pragma once

#include "common/pack.h"
#include "gemm/operands.h"
#include "mma/strips.h"
#include "simt/ptx.h"
#include "simt/simt.h"
#include "simt/store_shared.h"

#include <cstdint>
#include <type_traits>

namespace gpucnn::mma {

template <typename T, int kThreads, int kLines, bool kWide, typename Source>
class DepthOperand {
 public:
  using Strip = DepthStrip<T, kLines>;

  // The kLines lines from `first` on, from depth `begin` on.
  __device__ __forceinline__ DepthOperand(const Source& source, std::int64_t first, std::int64_t begin = 0)
      : source_(source),
        state_(source.template state<Lines>(first + line(), begin + unit() * kPack<T>)),
        place_(Strip::unit(line(), unit())) {
    if constexpr (!kWide) fetch();
  }

  __device__ __forceinline__ void copy(uint4* strip) {
#pragma unroll
    for (int n = 0; n < Lines::kCount; ++n) {
      uint4* const to = strip + place_ + n * 4 * kAtOnce;
      if constexpr (kWide) {
        const T* at = nullptr;
        const bool exists = source_.find(state_, n, &at);
        simt::cp_async<16>(to, at, exists);
      } else {
        simt::store_shared(to, held_[n].pack.word);
      }
    }
    if constexpr (kWide) {
      source_.advance(state_);
    } else {
      fetch();
    }
  }

 private:
  static constexpr int kAtOnce = kThreads / 4;
  using Lines = gemm::Steps<kLines / kAtOnce, 1, kAtOnce>;
  static_assert(kLines % kAtOnce == 0 && kAtOnce % 32 == 0, "a line's turn is that of the line kAtOnce on");

  // The next strip's.
  __device__ __forceinline__ void fetch() {
    auto state = state_;
#pragma unroll
    for (int j = 0; j < kPack<T>; ++j) {
#pragma unroll
      for (int n = 0; n < Lines::kCount; ++n) {
        const T* at = nullptr;
        const bool exists = source_.find(state, n, &at);
        held_[n].fetch_one(j, exists, at);
      }
      source_.next(state);
    }
    source_.advance(state_);
  }

  static __device__ __forceinline__ int unit() { return static_cast<int>(threadIdx.x) % 4; }
  static __device__ __forceinline__ int line() { return static_cast<int>(threadIdx.x) / 4; }

  const Source& source_;
  typename Source::template State<Lines> state_;
  int place_;
  gemm::Held<T> held_[kWide ? 1 : Lines::kCount];
};

template <typename T, int kThreads, int kLines, bool kWide, typename Source>
class LineOperand {
 public:
  using Strip = LineStrip<T, kLines>;

  __device__ __forceinline__ LineOperand(const Source& source, std::int64_t first, std::int64_t begin = 0)
      : source_(source),
        state_(source.template state<Lines>(first + unit() * kPack<T>, begin + depth())),
        place_(Strip::unit(depth(), unit())) {
    if constexpr (!kWide) fetch();
  }

  __device__ __forceinline__ void copy(uint4* strip) {
#pragma unroll
    for (int n = 0; n < kUnits; ++n) {
      const int unit = n * kAcross;  // of which bits below 8 are turned
      uint4* const to = strip + (place_ ^ unit % 8) + unit / 8 * 8;
      if constexpr (kWide) {
        const T* at = nullptr;
        const bool exists = source_.find(state_, n, &at);
        simt::cp_async<16>(to, at, exists);
      } else {
        simt::store_shared(to, held_[n].pack.word);
      }
    }
    if constexpr (kWide) {
      source_.advance(state_);
    } else {
      fetch();
    }
  }

 private:
  static constexpr int kAcross = kThreads / kStrip<T>;  // threads side by side: 4, or 8 or 16
  static constexpr int kStep = kAcross * kPack<T>, kUnits = kLines / kStep;
  using Lines =
      std::conditional_t<kWide, gemm::Steps<kUnits, 1, kStep>, gemm::Steps<kUnits * kPack<T>, kPack<T>, kStep>>;
  static_assert(kLines % kStep == 0);

  // The next strip's.
  __device__ __forceinline__ void fetch() {
#pragma unroll
    for (int n = 0; n < Lines::kCount; ++n) {
      const T* at = nullptr;
      const bool exists = source_.find(state_, n, &at);
      held_[n / kPack<T>].fetch_one(n % kPack<T>, exists, at);
    }
    source_.advance(state_);
  }

  static __device__ __forceinline__ int unit() { return static_cast<int>(threadIdx.x) % kAcross; }
  // Where 4 are side by side, 8 copy at two depths, which are turned differently: 4 apart.
  static __device__ __forceinline__ int depth() {
    const int number = static_cast<int>(threadIdx.x) / kAcross;
    if constexpr (kAcross >= 8) return number;
    return (number & ~7) + number % 2 * 4 + number % 8 / 2;
  }

  const Source& source_;
  typename Source::template State<Lines> state_;
  int place_;
  gemm::Held<T> held_[kWide ? 1 : kUnits];
};

}  // namespace gpucnn::mma

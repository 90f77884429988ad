// What copies an operand's strips from global into shared memory, past the registers (cp.async). For .cu files.
//
//   DepthOperand  into a DepthStrip: 4 threads side by side copy the 64 bytes of a line
//   LineOperand   into a LineStrip: 4 threads (8 or 16, of float32) copy 64 bytes or more of each depth in turn
//
// Where things are is a Source's to say, as for gemm/operands.h: images (conv2d/gather.h) or matrices. Everything has
// to be wide: addresses and the sizes along memory multiples of 16 bytes.
#pragma once

#include "common/pack.h"
#include "gemm/operands.h"
#include "mma/strips.h"
#include "simt/ptx.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn::mma {

template <typename T, int kThreads, int kLines, typename Source>
class DepthOperand {
 public:
  using Strip = DepthStrip<T, kLines>;

  // The kLines lines from `first` on, from depth `begin` on.
  __device__ __forceinline__ DepthOperand(const Source& source, std::int64_t first, std::int64_t begin = 0)
      : source_(source),
        state_(source.template state<Lines>(first + line(), begin + unit() * kPack<T>)),
        place_(Strip::unit(line(), unit())) {}

  __device__ __forceinline__ void copy(uint4* strip) {
#pragma unroll
    for (int n = 0; n < Lines::kCount; ++n) {
      const T* at = nullptr;
      const bool exists = source_.find(state_, n, &at);
      simt::cp_async<16>(strip + place_ + n * 4 * kAtOnce, at, exists);
    }
    source_.advance(state_);
  }

 private:
  static constexpr int kAtOnce = kThreads / 4;
  using Lines = gemm::Steps<kLines / kAtOnce, 1, kAtOnce>;
  static_assert(kLines % kAtOnce == 0 && kAtOnce % 32 == 0, "a line's turn is that of the line kAtOnce on");

  static __device__ __forceinline__ int unit() { return static_cast<int>(threadIdx.x) % 4; }
  static __device__ __forceinline__ int line() { return static_cast<int>(threadIdx.x) / 4; }

  const Source& source_;
  typename Source::template State<Lines> state_;
  int place_;
};

template <typename T, int kThreads, int kLines, typename Source>
class LineOperand {
 public:
  using Strip = LineStrip<T, kLines>;

  __device__ __forceinline__ LineOperand(const Source& source, std::int64_t first, std::int64_t begin = 0)
      : source_(source),
        state_(source.template state<Lines>(first + unit() * kPack<T>, begin + depth())),
        place_(Strip::unit(depth(), unit())) {}

  __device__ __forceinline__ void copy(uint4* strip) {
#pragma unroll
    for (int n = 0; n < Lines::kCount; ++n) {
      const T* at = nullptr;
      const bool exists = source_.find(state_, n, &at);
      const int unit = n * kAcross;  // of which bits below 8 are turned
      simt::cp_async<16>(strip + (place_ ^ unit % 8) + unit / 8 * 8, at, exists);
    }
    source_.advance(state_);
  }

 private:
  static constexpr int kAcross = kThreads / kStrip<T>;  // threads side by side: 4, or 8 or 16
  using Lines = gemm::Steps<kLines / (kAcross * kPack<T>), 1, kAcross * kPack<T>>;
  static_assert(kLines % (kAcross * kPack<T>) == 0);

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
};

}  // namespace gpucnn::mma

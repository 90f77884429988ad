// What the depthwise kernels share: each channel has one filter of its own. For .cu files.
//
// A block's threads lie side by side along the channels, in vectors of kVector channels, and then along whatever else
// the block owns. Blocks take the channels in slabs of 2^shift vectors.
#pragma once

#include "common/epilogue.h"
#include "common/index.h"
#include "common/pack.h"
#include "common/problem.h"
#include "common/slabs.h"
#include "simt/simt.h"

#include <cstdint>
#include <stdexcept>
#include <string>

namespace gpucnn {

inline constexpr int kMostDepthwiseRows = 7;  // of a filter whose weights go to shared memory: at most 26 KiB a slab

inline void require_depthwise(const Conv2dProblem& p) {
  if (p.groups == p.C && p.K == p.C) return;
  throw std::invalid_argument("conv2d: a depthwise kernel needs groups=C and K=C, got groups=" +
                              std::to_string(p.groups) + ", C=" + std::to_string(p.C) + ", K=" + std::to_string(p.K));
}

// p[0] ... p[kCount - 1] where `ok`, else zeros; p is not followed then.
template <int kCount, typename T>
__device__ __forceinline__ Floats<kCount> load_where(bool ok, const T* p) {
  Floats<kCount> values;
#pragma unroll
  for (int i = 0; i < kCount; ++i) values[i] = 0.0f;
  if (ok) values = load<kCount>(p);
  return values;
}

// sums += values * weights
template <int kCount>
__device__ __forceinline__ void add_product(Floats<kCount>& sums, const Floats<kCount>& values,
                                            const Floats<kCount>& weights) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) sums[i] += values[i] * weights[i];
}

// A slab's weights in shared memory: (taps, channels) as float32, the channels by quads (slabs.h), and behind them room
// for some as they lie in memory.
template <int kVector>
struct TapLines {
  static constexpr int kTogether = 32;  // channels that lie there at a time
  int vectors;                          // of the slab

  // From the first quads of all vectors to the second ones: 4 * odd, 16 banks further on.
  __host__ __device__ constexpr int quads() const { return kVector > 4 ? (vectors + 3) / 8 * 8 + 4 : vectors; }
  // From a tap to the next.
  __host__ __device__ constexpr int floats() const { return kVector * quads(); }
  // From a channel to the next as they lie in memory: odd, so that 32 channels have a tap in as many banks.
  static __host__ __device__ constexpr int pitch(int taps) { return taps | 1; }

  std::size_t bytes(int taps) const { return sizeof(float) * (taps * floats() + kTogether * pitch(taps)); }
};

// Taps [first, first + taps) of w (channels,all) into `lines`; `flipped`, in the other order. A warp reads neighbours
// in memory and, of what it has then, takes a tap of 32 channels at a time. All threads of a block call it, and may use
// the lines then.
template <int kThreads, int kVector, typename T>
__device__ __forceinline__ void fill_taps(const TapLines<kVector>& shape, const T* __restrict__ w, float* lines,
                                          int channels, int first, int taps, int all, bool flipped) {
  constexpr int kTogether = TapLines<kVector>::kTogether;
  float* const raw = lines + taps * shape.floats();
  const int pitch = shape.pitch(taps);
  for (int begin = 0; begin < channels; begin += kTogether) {
    const int some = min(kTogether, channels - begin);
    for (int i = static_cast<int>(threadIdx.x); i < some * taps; i += kThreads) {
      const int channel = i / taps, tap = i % taps;
      raw[channel * pitch + tap] = simt::to_float(w[std::int64_t{begin + channel} * all + first + tap]);
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < kTogether * taps; i += kThreads) {
      const int tap = i / kTogether, channel = i % kTogether;
      if (channel >= some) continue;
      float* const line = lines + (flipped ? taps - 1 - tap : tap) * shape.floats();
      line[place_in_quads<kVector>(begin + channel, shape.quads())] = raw[channel * pitch + tap];
    }
    __syncthreads();
  }
}

// How blocks of the kernels for any filter share the work: a slab of channels, so many pixels, and taps by taps.
struct AnyTaps {
  static constexpr int kThreads = 256, kOwn = 4;  // pixels of a thread
  static constexpr int kResident = 2;             // blocks of a multiprocessor: left alone, ptxas spills
  static constexpr int kMostTaps = 64;            // that a block has in shared memory
  Slabs slabs;
  int together;  // taps

  __host__ __device__ constexpr int pixels() const { return (kThreads >> slabs.shift) * kOwn; }
};

template <int kVector>
AnyTaps any_taps(int channels, int taps) {
  return {slabs_of(channels / kVector), taps < AnyTaps::kMostTaps ? taps : AnyTaps::kMostTaps};
}

// One pass over images with a filter a channel: out[n,p,q,c] = epilogue(sum over r, s of
// source[n, p*stride-padding+r*dilation, q*..., c] * w[c,r,s]), which is a forward pass and, `flipped`, an input
// gradient at stride 1. Paddings may be negative.
struct Correlation {
  Axis vertical, horizontal;
  std::int64_t images;
  int channels;
  bool flipped;
};

// Whether the kernels for rows of 3, 5 or 7 taps can run it: horizontal stride 1 or 2, horizontal dilation 1, 16-byte
// accesses. What is read and written is aligned where `aligned` is true.
template <typename T>
bool has_short_rows(const Axis& vertical, const Axis& horizontal, int channels, bool aligned) {
  const int S = horizontal.kernel;
  return aligned && channels % kPack<T> == 0 && (S == 3 || S == 5 || S == 7) && horizontal.dilation == 1 &&
         horizontal.stride <= 2 && vertical.kernel <= kMostDepthwiseRows;
}

// Runs a correlation for which has_short_rows() is true.
template <typename T>
[[nodiscard]] simt::Status depthwise_strips(const Correlation& g, const T* source, const T* w,
                                            const Epilogue<T>& epilogue, T* out, simt::Stream stream);

}  // namespace gpucnn

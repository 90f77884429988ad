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

// Floats from one tap to the next in shared memory: so that 8 taps of a quad of channels lie on all 32 banks.
__host__ __device__ constexpr int taps_line(int slab_channels) {
  return slab_channels + (36 - slab_channels % 32) % 32;
}

// The weights of a slab's channels, w (channels,R,S), into shared memory as (R*S, taps_line()), the channels by quads
// (slabs.h); `flipped`, turned by 180 degrees. A warp takes 8 taps of 4 channels at a time. All threads of a block call
// it; a barrier has to follow.
template <int kThreads, typename T>
__device__ __forceinline__ void fill_taps(const T* __restrict__ w, float* taps, int channels, int slab_vectors,
                                          int count, bool flipped) {
  constexpr int kVector = kPack<T>, kTaps = 8, kChannels = 4;
  static_assert(kTaps * kChannels == 32 && kVector % kChannels == 0);
  const int lane = static_cast<int>(threadIdx.x) % 32, across = (count - 1) / kTaps + 1;
  for (int tile = static_cast<int>(threadIdx.x) / 32; tile < channels / kChannels * across; tile += kThreads / 32) {
    const int tap = tile % across * kTaps + lane % kTaps, channel = tile / across * kChannels + lane / kTaps;
    if (tap >= count) continue;
    float* const line = taps + (flipped ? count - 1 - tap : tap) * taps_line(slab_vectors * kVector);
    line[place_in_quads<kVector>(channel, slab_vectors)] = simt::to_float(w[channel * count + tap]);
  }
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

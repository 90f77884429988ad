// What brings an operand of a product from global into shared memory (tile.h says how it lies there). Two kinds:
//
//   DepthOperand  neighbours in depth are neighbours in memory: the windows of an image, whose depth is a tap's
//                 channels, or the rows of a matrix. A thread holds packs of 16 bytes along the depth, each of another
//                 line of the operand, and scatters a pack over as many lines of the strip.
//   LineOperand   neighbours among the operand's lines are neighbours in memory: a matrix whose columns are wanted. A
//                 thread holds packs of 16 bytes of a line of the strip, which stay together.
//
// Where things are is a Source's to say: matrices below, images in conv2d/. What lies beyond the depth is zero. What
// lies beyond the operand's lines repeats the last of them, and its sums are not stored.
//
// Wide     addresses and sizes are multiples of a pack: one access of 16 bytes a pack. In a depth operand 2 lanes side
//          by side read 32 bytes, a whole sector, and 16 lanes down read as many lines; in the other, a warp reads 128
//          bytes or more of each line of the strip. Not wide: element by element, the same threads and the same bits.
#pragma once

#include "common/pack.h"
#include "gemm/tile.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn::gemm {

// A pack as it came from memory, to be converted when it is there.
template <typename T>
struct Held {
  gpucnn::detail::Access<T, kPack<T>> pack;

  __device__ __forceinline__ void fetch(bool exists, const T* p) {
    using Word = decltype(pack.word);
    pack.word = simt::load_if<Word>(exists, reinterpret_cast<const Word*>(p), Word{});
  }
  __device__ __forceinline__ void fetch_one(int i, bool exists, const T* p) {
    pack.elements[i] = simt::load_if(exists, p, simt::from_float<T>(0.0f));
  }
  __device__ __forceinline__ float value(int i) const { return simt::to_float(pack.elements[i]); }
  // Elements [first, first + 4).
  __device__ __forceinline__ Floats<4> half(int first) const {
    return {{value(first), value(first + 1), value(first + 2), value(first + 3)}};
  }
};

// Lines of the operand, and their depth in memory order. A Source has
//
//   Line line(int64 index)                     of the operand, in [0, lines); beyond, the last
//   Depth depth(int64 d)                       of the first element of a pack, d in [0, depth); beyond, any
//   void advance(Depth&)                       by kDepth
//   Depth next(Depth)                          by 1
//   bool find(Line, Depth, const T** at)       where it is; false for a zero
template <typename T, typename Shape, int kSize, bool kWide, typename Source>
class DepthOperand {
  static constexpr int kThreads = Shape::kThreads;
  static constexpr int kPacks = kDepth / kPack<T>;  // of a line: 4, or 2 of 16-bit elements
  static constexpr int kLines = kThreads / kPacks;  // that a pass covers
  static constexpr int kPasses = kSize > kLines ? kSize / kLines : 1;
  static constexpr bool kSomeIdle = kSize < kLines;
  static_assert(kPacks % 2 == 0 && kThreads % (16 * kPacks) == 0 && (kSomeIdle || kSize % kLines == 0));
  using Order = Place<T, kSize>;

 public:
  // The kSize lines from `first` on, from depth `begin` on.
  __device__ __forceinline__ DepthOperand(const Source& source, std::int64_t first, std::int64_t begin = 0)
      : source_(source), depth_(source.depth(begin + pack() * kPack<T>)) {
#pragma unroll
    for (int i = 0; i < kPasses; ++i) {
      lines_[i] = source.line(first + Order::element((place() + i * kLines) % kSize));
    }
  }

  __device__ __forceinline__ void fetch() {
    if (kSomeIdle && place() >= kSize) return;
    if constexpr (kWide) {
#pragma unroll
      for (int i = 0; i < kPasses; ++i) {
        const T* at = nullptr;
        const bool exists = source_.find(lines_[i], depth_, &at);
        held_[i].fetch(exists, at);
      }
    } else {
      typename Source::Depth depth = depth_;
#pragma unroll
      for (int j = 0; j < kPack<T>; ++j) {
#pragma unroll
        for (int i = 0; i < kPasses; ++i) {
          const T* at = nullptr;
          const bool exists = source_.find(lines_[i], depth, &at);
          held_[i].fetch_one(j, exists, at);
        }
        depth = source_.next(depth);
      }
    }
  }

  __device__ __forceinline__ void advance() { source_.advance(depth_); }

  __device__ __forceinline__ void put(Strip<T, kSize>& strip) const {
    if (kSomeIdle && place() >= kSize) return;
    const int first = line_of<T>(pack() * kPack<T>);
#pragma unroll
    for (int i = 0; i < kPasses; ++i) {
#pragma unroll
      for (int j = 0; j < kPack<T>; ++j) strip[first + line_of<T>(j)][place() + i * kLines] = held_[i].value(j);
    }
  }

 private:
  // 2 packs by 16 places a warp: the packs' lines are 4 apart, hence 16 banks.
  static __device__ __forceinline__ int pack() {
    const int thread = static_cast<int>(threadIdx.x);
    return thread % 2 + thread / 32 % (kPacks / 2) * 2;
  }
  static __device__ __forceinline__ int place() {
    const int thread = static_cast<int>(threadIdx.x);
    return thread / 2 % 16 + thread / (16 * kPacks) * 16;
  }

  const Source& source_;
  typename Source::Depth depth_;
  typename Source::Line lines_[kPasses];
  Held<T> held_[kPasses];
};

// Depth by depth, the operand's lines in memory order. A Source has
//
//   Lines lines(int64 index, int together)     `together` lines from index on; at most the last that there are
//   Depth depth(int64 d)                       in [0, depth); beyond, any
//   void advance(Depth&)                       by kDepth
//   bool find(Lines, Depth, const T** at)      where it is; false for a zero
template <typename T, typename Shape, int kSize, bool kWide, typename Source>
class LineOperand {
  static constexpr int kThreads = Shape::kThreads;
  static constexpr int kPacks = kSize / kPack<T>;    // of a line of the strip
  static constexpr int kDepths = kThreads / kPacks;  // that a pass covers
  static constexpr int kPasses = kDepth > kDepths ? kDepth / kDepths : 1;
  static constexpr bool kSomeIdle = kDepth < kDepths;
  static_assert(kThreads % kPacks == 0 && (kSomeIdle || kDepth % kDepths == 0));
  using Order = Place<T, kSize>;

 public:
  // The kSize lines from `first` on, from depth `begin` on.
  __device__ __forceinline__ LineOperand(const Source& source, std::int64_t first, std::int64_t begin = 0)
      : source_(source) {
    const std::int64_t mine = first + pack() * kPack<T>;
    if constexpr (kWide) {
      lines_[0] = source.lines(mine, kPack<T>);
    } else {
#pragma unroll
      for (int j = 0; j < kPack<T>; ++j) lines_[j] = source.lines(mine + j, 1);
    }
#pragma unroll
    for (int i = 0; i < kPasses; ++i) depths_[i] = source.depth(begin + depth() + i * kDepths);
  }

  __device__ __forceinline__ void fetch() {
    if (kSomeIdle && depth() >= kDepth) return;
#pragma unroll
    for (int i = 0; i < kPasses; ++i) {
      if constexpr (kWide) {
        const T* at = nullptr;
        const bool exists = source_.find(lines_[0], depths_[i], &at);
        held_[i].fetch(exists, at);
      } else {
#pragma unroll
        for (int j = 0; j < kPack<T>; ++j) {
          const T* at = nullptr;
          const bool exists = source_.find(lines_[j], depths_[i], &at);
          held_[i].fetch_one(j, exists, at);
        }
      }
    }
  }

  __device__ __forceinline__ void advance() {
#pragma unroll
    for (int i = 0; i < kPasses; ++i) source_.advance(depths_[i]);
  }

  __device__ __forceinline__ void put(Strip<T, kSize>& strip) const {
    if (kSomeIdle && depth() >= kDepth) return;
#pragma unroll
    for (int i = 0; i < kPasses; ++i) {
      const int line = line_of<T>(depth() + i * kDepths);
#pragma unroll
      for (int j = 0; j < kPack<T>; j += 4) store(&strip[line][Order::of(pack() * kPack<T> + j)], held_[i].half(j));
    }
  }

 private:
  static __device__ __forceinline__ int pack() { return static_cast<int>(threadIdx.x) % kPacks; }
  // Where a line has only 4 packs, 8 lanes side by side store two, of which the places are to be in other banks.
  static __device__ __forceinline__ int depth() {
    const int depth = static_cast<int>(threadIdx.x) / kPacks;
    if constexpr (kPacks == 4) return depth < kDepth ? depth % 2 * 8 + depth / 2 : depth;
    return depth;
  }

  const Source& source_;
  typename Source::Lines lines_[kWide ? 1 : kPack<T>];
  typename Source::Depth depths_[kPasses];
  Held<T> held_[kPasses];
};

// A matrix (lines, depth) in C order.
template <typename T>
struct DepthMatrix {
  const T* data;
  std::int64_t lines, depths;

  using Line = const T*;
  using Depth = std::int64_t;
  __device__ __forceinline__ Line line(std::int64_t index) const { return data + min(index, lines - 1) * depths; }
  __device__ __forceinline__ Depth depth(std::int64_t d) const { return d; }
  __device__ __forceinline__ void advance(Depth& d) const { d += kDepth; }
  __device__ __forceinline__ Depth next(Depth d) const { return d + 1; }
  __device__ __forceinline__ bool find(Line line, Depth d, const T** at) const {
    *at = line + d;
    return d < depths;
  }
};

// A matrix (depth, lines) in C order, of which depths from `end` on are zeros.
template <typename T>
struct LineMatrix {
  const T* data;
  std::int64_t count, end;  // lines, depths

  using Lines = const T*;
  using Depth = std::int64_t;  // the offset of its first line
  __device__ __forceinline__ Lines lines(std::int64_t index, int together) const {
    return data + min(index, count - together);
  }
  __device__ __forceinline__ Depth depth(std::int64_t d) const { return d * count; }
  __device__ __forceinline__ void advance(Depth& offset) const { offset += kDepth * count; }
  __device__ __forceinline__ bool find(Lines lines, Depth offset, const T** at) const {
    *at = lines + offset;
    return offset < end * count;
  }
};

}  // namespace gpucnn::gemm

// What brings an operand of a product from global into shared memory (tile.h says how it lies there). Two kinds:
//
//   DepthOperand  neighbours in depth are neighbours in memory: the windows of an image, whose depth is a tap's
//                 channels, or the rows of a matrix. A thread holds packs of 16 bytes along the depth, each of another
//                 line of the operand, and scatters a pack over as many lines of the strip.
//   LineOperand   neighbours among the operand's lines are neighbours in memory: a matrix whose columns are wanted. A
//                 thread holds packs of 16 bytes of a line of the strip, which stay together.
//
// Where things are is a Source's to say: matrices below, images in conv2d/gather.h. What lies beyond the depth is zero;
// beyond the operand's lines is what the source likes, as its sums are not stored. A Source has
//
//   State<Steps> state<Steps>(int64 line, int64 depth)   a thread's own: lines line + Steps::of(n) at that depth
//   void advance(State&)                                 by a strip's depth, kDepth<T> here
//   void next(State&)                                    by 1; of a DepthOperand's that is not wide
//   bool find(State, int n, const T** at)                where line n's pack or element is; false for zeros
//
// Wide     addresses and sizes are multiples of a pack: one access of 16 bytes a pack. In a depth operand 2 lanes side
//          by side read 32 bytes, a whole sector, and 16 lanes down read as many lines; in the other, a warp reads 128
//          bytes or more of each line of the strip. Not wide: element by element, the same threads and the same bits.
#pragma once

#include "common/pack.h"
#include "gemm/tile.h"
#include "simt/simt.h"

#include <cstdint>
#include <type_traits>

namespace gpucnn::gemm {

// The lines of a thread: runs of kEach neighbours, kStep apart.
template <int kCount_, int kEach, int kStep>
struct Steps {
  static constexpr int kCount = kCount_;
  static constexpr bool kPacks = kEach == 1;  // of which each begins a pack
  static __host__ __device__ constexpr int of(int n) { return n / kEach * kStep + n % kEach; }
};

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

// Lines of the operand, whose depth is in memory order. Of the kSize a thread of the tile owns kOwn.
template <typename T, typename Shape, int kSize, int kOwn, bool kWide, typename Source>
class DepthOperand {
  static constexpr int kThreads = Shape::kThreads;
  static constexpr int kLines = kThreads / 2;  // that a pass covers, by 2 packs
  static constexpr int kPasses = kSize > kLines ? kSize / kLines : 1;
  static constexpr bool kSomeIdle = kSize < kLines;
  static_assert(kDepth<T> == 2 * kPack<T> && (kSomeIdle || kSize % kLines == 0));
  using Order = Place<T, kSize, kOwn>;
  using Lines = Steps<kPasses, 1, kLines>;
  static_assert(kPasses == 1 || Order::element(kLines + 5) == Order::element(5) + kLines);

 public:
  // The kSize lines from `first` on, from depth `begin` on.
  __device__ __forceinline__ DepthOperand(const Source& source, std::int64_t first, std::int64_t begin = 0)
      : source_(source),
        state_(source.template state<Lines>(first + Order::element(place() % kSize), begin + pack() * kPack<T>)) {}

  __device__ __forceinline__ void fetch(bool wanted) {
    if (kSomeIdle && place() >= kSize) return;
    if constexpr (kWide) {
#pragma unroll
      for (int i = 0; i < kPasses; ++i) {
        const T* at = nullptr;
        const bool exists = wanted && source_.find(state_, i, &at);
        held_[i].fetch(exists, at);
      }
    } else {
      auto state = state_;
#pragma unroll
      for (int j = 0; j < kPack<T>; ++j) {
#pragma unroll
        for (int i = 0; i < kPasses; ++i) {
          const T* at = nullptr;
          const bool exists = wanted && source_.find(state, i, &at);
          held_[i].fetch_one(j, exists, at);
        }
        source_.next(state);
      }
    }
  }

  __device__ __forceinline__ void advance() { source_.advance(state_); }

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
  static __device__ __forceinline__ int pack() { return static_cast<int>(threadIdx.x) % 2; }
  static __device__ __forceinline__ int place() { return static_cast<int>(threadIdx.x) / 2; }

  const Source& source_;
  typename Source::template State<Lines> state_;
  Held<T> held_[kPasses];
};

// Depth by depth, the operand's lines in memory order.
template <typename T, typename Shape, int kSize, int kOwn, bool kWide, typename Source>
class LineOperand {
  static constexpr int kThreads = Shape::kThreads;
  static constexpr int kPacks = kSize / kPack<T>;       // of a line of the strip
  static constexpr int kAcross = kThreads / kDepth<T>;  // that a pass covers
  static constexpr int kPasses = kPacks > kAcross ? kPacks / kAcross : 1;
  static constexpr bool kSomeIdle = kPacks < kAcross;
  static constexpr int kLanes = kSomeIdle ? kPacks : kAcross;  // side by side on one line of the strip
  static constexpr int kStep = kAcross * kPack<T>;
  static_assert(kThreads % kDepth<T> == 0 && (kSomeIdle || kPacks % kAcross == 0) && (kLanes == 4 || kLanes % 8 == 0));
  using Order = Place<T, kSize, kOwn>;
  using Lines = std::conditional_t<kWide, Steps<kPasses, 1, kStep>, Steps<kPasses * kPack<T>, kPack<T>, kStep>>;

 public:
  // The kSize lines from `first` on, from depth `begin` on.
  __device__ __forceinline__ LineOperand(const Source& source, std::int64_t first, std::int64_t begin = 0)
      : source_(source), state_(source.template state<Lines>(first + pack() * kPack<T>, begin + depth())) {}

  __device__ __forceinline__ void fetch(bool wanted) {
    if (kSomeIdle && depth() >= kDepth<T>) return;
#pragma unroll
    for (int n = 0; n < Lines::kCount; ++n) {
      const T* at = nullptr;
      const bool exists = wanted && source_.find(state_, n, &at);
      if constexpr (kWide) {
        held_[n].fetch(exists, at);
      } else {
        held_[n / kPack<T>].fetch_one(n % kPack<T>, exists, at);
      }
    }
  }

  __device__ __forceinline__ void advance() { source_.advance(state_); }

  __device__ __forceinline__ void put(Strip<T, kSize>& strip) const {
    if (kSomeIdle && depth() >= kDepth<T>) return;
    const int line = line_of<T>(depth());
#pragma unroll
    for (int i = 0; i < kPasses; ++i) {
      const int place = Order::of(pack() * kPack<T> + i * kStep);
      store(&strip[line][place], held_[i].half(0));
      if constexpr (kPack<T> == 8) store(&strip[line][Order::second(place)], held_[i].half(4));
    }
  }

 private:
  static __device__ __forceinline__ int pack() { return static_cast<int>(threadIdx.x) % kLanes; }
  // Where a line has only 4 packs, 8 lanes side by side store two, of which the places are to be in other banks.
  static __device__ __forceinline__ int depth() {
    const int depth = static_cast<int>(threadIdx.x) / kLanes;
    if constexpr (kLanes == 4) return depth < kDepth<T> ? depth % 2 * 8 + depth / 2 : depth;
    return depth;
  }

  const Source& source_;
  typename Source::template State<Lines> state_;
  Held<T> held_[kPasses];
};

// The operands of a tile: what is to be its rows, and its columns.
template <typename T, typename Shape, bool kWide, typename Source>
using DepthRows = DepthOperand<T, Shape, Shape::kRows, 8, kWide, Source>;
template <typename T, typename Shape, bool kWide, typename Source>
using DepthColumns = DepthOperand<T, Shape, Shape::kColumns, Shape::kOwnColumns, kWide, Source>;
template <typename T, typename Shape, bool kWide, typename Source>
using LineRows = LineOperand<T, Shape, Shape::kRows, 8, kWide, Source>;
template <typename T, typename Shape, bool kWide, typename Source>
using LineColumns = LineOperand<T, Shape, Shape::kColumns, Shape::kOwnColumns, kWide, Source>;

// Lines and depths that a wide operand counts from where it begins: what is beyond is too far to matter.
template <bool kWide>
using Count = std::conditional_t<kWide, int, std::int64_t>;

template <bool kWide>
__device__ __forceinline__ Count<kWide> count_of(std::int64_t value) {
  if constexpr (!kWide) return value;
  constexpr std::int64_t kMost = 0x7fffffff;
  return static_cast<int>(max(min(value, kMost), -kMost));
}

// A matrix (lines, depth) in C order, in strips of kStep of its depth. Wide: depths < 2^31.
template <typename T, bool kWide, int kStep = kDepth<T>>
struct DepthMatrix {
  const T* data;
  std::int64_t lines, depths;

  template <typename Lines>
  struct State {
    const T* at;                 // of line 0
    Count<kWide> lines, depths;  // from there on
  };

  template <typename Lines>
  __device__ __forceinline__ State<Lines> state(std::int64_t line, std::int64_t depth) const {
    return {data + (line * depths + depth), count_of<kWide>(lines - line), count_of<kWide>(depths - depth)};
  }
  template <typename Lines>
  __device__ __forceinline__ void advance(State<Lines>& state) const {
    state.at += kStep;
    state.depths -= kStep;
  }
  template <typename Lines>
  __device__ __forceinline__ void next(State<Lines>& state) const {
    ++state.at;
    --state.depths;
  }
  template <typename Lines>
  __device__ __forceinline__ bool find(const State<Lines>& state, int n, const T** at) const {
    *at = state.at + Lines::of(n) * depths;
    return Lines::of(n) < state.lines && state.depths > 0;
  }
};

// A matrix (depth, lines) in C order, in strips of kStep of its depth. Wide: depths < 2^31.
template <typename T, bool kWide, int kStep = kDepth<T>>
struct LineMatrix {
  const T* data;
  std::int64_t lines, depths;

  template <typename Lines>
  struct State {
    const T* at;                 // of line 0
    Count<kWide> lines, depths;  // from there on
  };

  template <typename Lines>
  __device__ __forceinline__ State<Lines> state(std::int64_t line, std::int64_t depth) const {
    return {data + (depth * lines + line), count_of<kWide>(lines - line), count_of<kWide>(depths - depth)};
  }
  template <typename Lines>
  __device__ __forceinline__ void advance(State<Lines>& state) const {
    state.at += kStep * lines;
    state.depths -= kStep;
  }
  template <typename Lines>
  __device__ __forceinline__ bool find(const State<Lines>& state, int n, const T** at) const {
    *at = state.at + Lines::of(n);
    return Lines::of(n) < state.lines && state.depths > 0;
  }
};

}  // namespace gpucnn::gemm

// y[n, f*h+i, f*w+j, c] = x[n, h, w, (c*f+i)*f+j], pixel shuffle, and its inverse. Elements are moved and none is
// changed: they are words of 1, 2, 4 or 8 bytes.
//
// The channels of a pixel of x are a matrix of C rows of f*f columns, of which y has each column in another pixel: a
// transposition, through shared memory, so that both sides are read and written along their channels.
//
// Layout   x (N,H,W,C*f*f), y (N,f*H,f*W,C).
// Block    256 threads, and a tile of at most 16 KiB: some neighbouring pixels of a line of x with all of their
//          channels, or one pixel with some of them.
// Thread   packs of 16 bytes of either side, or one element where they do not fill it or an address is not aligned. In
//          shared memory words of a line are permuted: with f = 2 and 4 neither side has bank conflicts, with an odd f
//          and 4 bytes none where a pixel of y has 128, else few.
// Limits   f in [1, 32].
// Bound    memory: each element read and written once. C64 f2 at 56x56 N32, 103 + 103 MB of float32: 69 us at 3.0 TB/s.
// Measured not run on hardware yet.
#include "common/index.h"
#include "common/pixels.h"
#include "simt/simt.h"
#include "upsample/upsample.h"

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace gpucnn {
namespace {

constexpr int kThreads = 256;
constexpr int kTileBytes = 16 * 1024;
static_assert(kMostShuffled * kMostShuffled * 16 <= kTileBytes, "16 bytes of y's channels fit for every factor");

template <typename Word>
constexpr int kInBank =
    sizeof(Word) < 4 ? 4 / static_cast<int>(sizeof(Word)) : 1;  // elements; banks are words of 4 or 8

// Where element `place` of a tile lies in shared memory: that of a word has the lowest bits, those of its bank, mixed
// with the higher ones. Lanes that read or write the tile differ in bits 2 to 6 of their words along a run of x; along
// y, with f = 2, in bits 4 to 8 or, where runs are shorter, in 0 too, and with f = 4 in bits 6 to 10, or 0 and 1 too:
// all of these become 32 banks. Of words of 8 bytes the 16 lanes that go together differ in bits 1 to 4, 3 to 6 or 0, 5
// to 8 or 0: these become 16.
template <typename Word>
__device__ __forceinline__ int mixed(int place) {
  const int word = place / kInBank<Word>;
  int mix = 0;
  if constexpr (sizeof(Word) == 8) {
    const int line = word >> 4;
    mix = (line & 1) * 3 ^ (line & 2) << 1 ^ (line & 4) >> 1 ^ (line & 8) ^ (line & 16) >> 4;
  } else {
    const int line = word >> 5;
    mix = (line & 1) << 1 ^ (line & 2) >> 1 ^ (line & 14) << 1 ^ (line & 8) >> 3 ^ (line & 16) >> 3 ^ (line & 32) >> 5;
  }
  return (word ^ mix) * kInBank<Word> + place % kInBank<Word>;
}

// With an odd f elements lie in their order, and each lane begins with another element of its pack: so that eight
// lanes, whose words are multiples of four apart (of two, where they have 8 bytes), leave the others' banks to the next
// eight. How many words on a lane begins that has a pack from `place` on.
template <typename Word>
__device__ __forceinline__ int turn_of(int place) {
  constexpr int kTurns = sizeof(Word) == 8 ? 2 : 4;
  return (static_cast<int>(threadIdx.x) / 8 - place / kInBank<Word>)&(kTurns - 1);
}

// The words of a pack from number `turn` on, around.
__device__ __forceinline__ uint4 turned(const uint4& pack, int turn) {
  const uint4 by_one = turn & 1 ? uint4{pack.y, pack.z, pack.w, pack.x} : pack;
  return turn & 2 ? uint4{by_one.z, by_one.w, by_one.x, by_one.y} : by_one;
}

template <typename Word>
constexpr int kTile = kTileBytes / static_cast<int>(sizeof(Word));

struct Shuffle {
  Divisor rows;           // of x: H
  Divisor factor;         // f
  Divisor strips, bands;  // tiles of a line, and of a pixel's channels
  std::int64_t W, C;
  int pixels, channels;  // of a full tile: one of them is all that there is, or 1 pixel
};

// What a block moves.
struct Tile {
  std::int64_t x, y;     // where its first pixel begins, at its first channel
  int pixels, channels;  // C of y's
};

__device__ __forceinline__ Tile tile_of(const Shuffle& s) {
  const int f = s.factor.value;
  const Quotient by_band = s.bands.divide(blockIdx.x);
  const Quotient by_strip = s.strips.divide(by_band.whole);
  const Quotient line = s.rows.divide(by_strip.whole);  // image, row
  const std::int64_t column = std::int64_t{by_strip.rest} * s.pixels, channel = std::int64_t{by_band.rest} * s.channels;
  const std::int64_t x = ((line.whole * s.rows.value + line.rest) * s.W + column) * s.C * f * f + channel * f * f;
  const std::int64_t y = (((line.whole * s.rows.value + line.rest) * f) * s.W + column) * f * s.C + channel;
  const std::int64_t pixels = s.W - column, channels = s.C - channel;
  return {x, y, pixels < s.pixels ? static_cast<int>(pixels) : s.pixels,
          channels < s.channels ? static_cast<int>(channels) : s.channels};
}

// Elements of one access.
template <typename Word, int kPacked>
union Pack {
  std::conditional_t<kPacked == 1, Word, uint4> whole;
  Word word[kPacked];
};

// kTo: into y, a shuffle; else out of it.
template <typename Word, int kPacked, bool kTo>
__global__ void __launch_bounds__(kThreads)
    shuffle_kernel(const Shuffle s, const Divisor pixel_packs, const Divisor channel_packs,
                   const Word* __restrict__ from, Word* __restrict__ to) {
  SIMT_SHARED(Word, tile, [kTile<Word>]);
  const Tile mine = tile_of(s);
  const int f = s.factor.value, square = f * f;

  const auto x_side = [&](auto move) {  // a run of channels * f * f elements a pixel
    const int run = mine.channels * square / kPacked, count = run * mine.pixels;
    for (int pack = static_cast<int>(threadIdx.x); pack < count; pack += kThreads) {
      const bool whole = mine.channels == s.channels;  // then the run is what pixel_packs divides by
      const int pixel = whole ? static_cast<int>(pixel_packs.divide(pack).whole) : pack / run;
      const int place = (pack - pixel * run) * kPacked;
      move(mine.x + pixel * s.C * square + place, pixel * mine.channels * square + place, 1);
    }
  };
  const auto y_side = [&](auto move) {  // f * f runs of `channels` elements a pixel
    const int run = mine.channels / kPacked, count = run * mine.pixels * square;
    for (int pack = static_cast<int>(threadIdx.x); pack < count; pack += kThreads) {
      const bool whole = mine.channels == s.channels;
      const int place = whole ? static_cast<int>(channel_packs.divide(pack).whole) : pack / run;  // i, pixel, j
      const int channel = (pack - place * run) * kPacked;
      const Quotient by_j = s.factor.divide(place);
      const int beside = static_cast<int>(by_j.whole), i = beside / mine.pixels, pixel = beside - i * mine.pixels;
      const int column = pixel * f + by_j.rest;  // of y, counted from the tile's first
      move(mine.y + (i * s.W * f + column) * s.C + channel,
           (pixel * mine.channels + channel) * square + i * f + by_j.rest, square);
    }
  };
  // Elements of a pack lie at place, place + step, ...
  using Access = Pack<Word, kPacked>;
  constexpr bool kTurns = kPacked > 1;
  constexpr int kWords = sizeof(Word) == 8 ? 2 : 1;  // of 4 bytes, in a bank
  const bool is_odd = square % 2 != 0;
  const auto at = [&](int place) { return is_odd ? place : mixed<Word>(place); };
  const auto read = [&](std::int64_t offset, int place, int step) {
    Access pack;
    pack.whole = simt::vload<decltype(pack.whole)>(from + offset);
    int turn = 0;
    if constexpr (kTurns) {
      turn = is_odd ? turn_of<Word>(place) : 0;
      pack.whole = turned(pack.whole, turn * kWords);
    }
#pragma unroll
    for (int e = 0; e < kPacked; ++e) {
      tile[at(place + (e + turn * kInBank<Word>) % kPacked * step)] = pack.word[e];
    }
  };
  const auto write = [&](std::int64_t offset, int place, int step) {
    Access pack;
    int turn = 0;
    if constexpr (kTurns) turn = is_odd ? turn_of<Word>(place) : 0;
#pragma unroll
    for (int e = 0; e < kPacked; ++e) {
      pack.word[e] = tile[at(place + (e + turn * kInBank<Word>) % kPacked * step)];
    }
    if constexpr (kTurns) pack.whole = turned(pack.whole, (4 - turn * kWords) & 3);
    simt::vstore(to + offset, pack.whole);
  };
  if constexpr (kTo) {
    x_side(read);
    __syncthreads();
    y_side(write);
  } else {
    y_side(read);
    __syncthreads();
    x_side(write);
  }
}

template <typename Word, int kPacked, bool kTo>
simt::Status launch_shuffle(const ShuffleProblem& p, const void* from, void* to, simt::Stream stream) {
  const std::int64_t square = p.factor * p.factor, of_a_pixel = p.C * square;
  const std::int64_t channels = std::min(p.C, kTile<Word> / square / kPacked * kPacked);
  const std::int64_t pixels = channels < p.C ? 1 : std::clamp<std::int64_t>(kTile<Word> / of_a_pixel, 1, p.W);
  const std::int64_t strips = blocks_of(pixels, p.W), bands = blocks_of(channels, p.C);
  const Shuffle s{divisor_of(p.H),          divisor_of(p.factor),      divisor_of(strips), divisor_of(bands), p.W, p.C,
                  static_cast<int>(pixels), static_cast<int>(channels)};
  return simt::launch(shuffle_kernel<Word, kPacked, kTo>, dim3(static_cast<unsigned>(p.N * p.H * strips * bands)),
                      dim3(kThreads), 0, stream, s, divisor_of(channels * square / kPacked),
                      divisor_of(channels / kPacked), static_cast<const Word*>(from), static_cast<Word*>(to));
}

template <bool kTo>
simt::Status shuffle(const ShuffleProblem& p, int bytes, const void* from, void* to, simt::Stream stream) {
  if (p.N * p.H * p.W * p.C == 0) return simt::kSuccess;
  const bool wide = p.C * bytes % 16 == 0 && are_aligned(static_cast<const char*>(from), static_cast<const char*>(to));
  const auto words = [&](auto word) {
    using Word = decltype(word);
    return wide ? launch_shuffle<Word, kPack<Word>, kTo>(p, from, to, stream)
                : launch_shuffle<Word, 1, kTo>(p, from, to, stream);
  };
  switch (bytes) {
    case 1:
      return words(static_cast<unsigned char>(0));
    case 2:
      return words(static_cast<unsigned short>(0));
    case 4:
      return words(0u);
    default:
      return words(0ull);
  }
}

}  // namespace

simt::Status pixel_shuffle(const ShuffleProblem& p, int bytes, const void* x, void* y, simt::Stream stream) {
  return shuffle<true>(p, bytes, x, y, stream);
}

simt::Status pixel_unshuffle(const ShuffleProblem& p, int bytes, const void* y, void* x, simt::Stream stream) {
  return shuffle<false>(p, bytes, y, x, stream);
}

}  // namespace gpucnn

// How the kernels of batch, instance and group norm go over an array (B,M,C). For .cu files.
//
// A thread owns a pack of kWidth channels and every so many rows of a split of one set, so that what belongs to a
// channel stays in its registers. `across` threads, a power of 2, lie along a row and kThreads / across on rows beneath
// each other: a warp reads memory without a gap where `across` packs are a row, else 64 bytes or more of each of its
// rows.
#pragma once

#include "common/index.h"
#include "common/pack.h"
#include "norm/norm.h"
#include "simt/simt.h"

#include <algorithm>
#include <cstdint>

namespace gpucnn {

inline constexpr int kColumnThreads = 256;
inline constexpr int kMostAcross = 32;  // threads along a row, where there are rows enough
inline constexpr int kLeastAcross = 4;  // where fewer leave fewer without work

// Channels of a block, at most.
template <int kWidth>
inline constexpr int kTileChannels = kColumnThreads * kWidth;

struct Columns {
  std::int64_t rows, rows_of_split;
  int channels, packs;
  int across_log2;    // of threads along a row
  int tiles, splits;  // blocks along a row and beneath each other, of each set

  __host__ __device__ int across() const { return 1 << across_log2; }
  __host__ __device__ int lines() const { return kColumnThreads >> across_log2; }  // rows that a block has at a time
};

// The logarithm of how many threads along a row of `packs` are to have one each. Packs of a single channel, which lie
// anyhow, take as many as there are; wide ones fewer, if that leaves fewer threads beyond the row's end: of 40 packs
// 32 threads would leave 24 of 64 without work, and 8 leave none.
inline int across_log2_of(int packs, int width) {
  int log2 = 0;
  while ((1 << log2) < std::min(packs, kMostAcross)) ++log2;
  const auto threads = [packs](int l) { return blocks_of(1 << l, packs) << l; };  // with and without work
  int best = log2;
  for (int fewer = log2 - 1; width > 1 && fewer >= 0 && (1 << fewer) >= kLeastAcross; --fewer) {
    if (10 * threads(fewer) < 9 * threads(best)) best = fewer;
  }
  return best;
}

// The columns of a problem for packs of `width` channels; a block has at least `fewest` rows a thread, and a set at
// most `most` blocks where that is not less than one for each tile.
inline Columns columns_of(const NormProblem& p, int width, int fewest, std::int64_t most) {
  Columns c{};
  c.rows = p.M;
  c.channels = static_cast<int>(p.C);
  c.packs = static_cast<int>(p.C / width);
  const auto across = [&] { return std::int64_t{1} << c.across_log2; };
  c.across_log2 = across_log2_of(c.packs, width);
  while (across() < std::min(c.packs, kColumnThreads) && kColumnThreads / across() > p.M) ++c.across_log2;
  c.tiles = static_cast<int>(blocks_of(across(), c.packs));
  const std::int64_t pass = kColumnThreads / across() * fewest;  // rows of a block, at least
  const std::int64_t splits =
      std::max<std::int64_t>(1, std::min(blocks_of(pass, p.M), std::max<std::int64_t>(1, most / c.tiles)));
  c.rows_of_split = std::max<std::int64_t>(1, blocks_of(splits, p.M));
  c.splits = static_cast<int>(std::max<std::int64_t>(1, blocks_of(c.rows_of_split, p.M)));
  return c;
}

// Elements of a pack of the problem's channels, where the addresses allow it: of 16 bytes, else 1.
template <typename T, typename... Pointers>
int width_of(const NormProblem& p, const Pointers*... pointers) {
  return p.C % kPack<T> == 0 && are_aligned(pointers...) ? kPack<T> : 1;
}

// What a thread of a grid of sets * splits * tiles blocks owns.
struct Place {
  std::int64_t set;
  int split, tile;
  int column;               // of the threads along a row
  int line;                 // [0, lines)
  int pack;                 // of the row; where the tile goes beyond it, the last one
  bool is_mine;             // not beyond it
  std::int64_t begin, end;  // rows of the split

  __device__ __forceinline__ explicit Place(const Columns& c) {
    const unsigned rest = blockIdx.x / static_cast<unsigned>(c.tiles);
    tile = static_cast<int>(blockIdx.x - rest * static_cast<unsigned>(c.tiles));
    set = rest / static_cast<unsigned>(c.splits);
    split = static_cast<int>(rest - static_cast<unsigned>(set) * static_cast<unsigned>(c.splits));
    column = static_cast<int>(threadIdx.x) & (c.across() - 1);
    line = static_cast<int>(threadIdx.x) >> c.across_log2;
    const int wanted = (tile << c.across_log2) + column;
    is_mine = wanted < c.packs;
    pack = min(wanted, c.packs - 1);
    begin = split * c.rows_of_split;
    end = min(begin + c.rows_of_split, c.rows);
  }

  // Of the block's channels the first one, and how many there are.
  template <int kWidth>
  __device__ __forceinline__ int first_channel(const Columns& c) const {
    return (tile << c.across_log2) * kWidth;
  }
  template <int kWidth>
  __device__ __forceinline__ int channels(const Columns& c) const {
    return min(c.across() * kWidth, c.channels - first_channel<kWidth>(c));
  }

  // Where the thread's channels of row 0 begin in an array (B,M,C).
  template <int kWidth>
  __device__ __forceinline__ std::int64_t offset(const Columns& c) const {
    return set * c.rows * c.channels + static_cast<std::int64_t>(pack) * kWidth;
  }
};

// A pack as it lies in memory: loading it waits for nothing, converting it does.
template <typename T, int kWidth>
struct Raw {
  detail::Access<T, kWidth> access;

  __device__ __forceinline__ void load(const T* p) { access.word = simt::vload<decltype(access.word)>(p); }
  __device__ __forceinline__ float operator[](int i) const { return simt::to_float(access.elements[i]); }
};

// Floats of shared memory that stage() needs for each number. The first four channels of all packs lie together, then
// the next four, half of the banks beyond: so neither side has bank conflicts.
template <int kWidth>
constexpr int kQuadLine = kWidth <= 4 ? kTileChannels<kWidth> : kColumnThreads * 4 + 16;
template <int kWidth>
constexpr int kStaged = kQuadLine<kWidth> * (kWidth <= 4 ? 1 : kWidth / 4);

// Copies numbers of the block's channels into shared memory: number i of the tile's channel becomes value(i, channel).
// Ends with a barrier.
template <int kWidth, int kCount, typename Value>
__device__ __forceinline__ void stage(const Columns& c, const Place& at, float* to, Value value) {
  constexpr int kQuad = kWidth < 4 ? kWidth : 4;
  const int first = at.first_channel<kWidth>(c), count = at.channels<kWidth>(c);
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kColumnThreads) {
    const int place = i % kWidth / kQuad * kQuadLine<kWidth> + i / kWidth * kQuad + i % kQuad;
#pragma unroll
    for (int j = 0; j < kCount; ++j) to[j * kStaged<kWidth> + place] = value(j, first + i);
  }
  __syncthreads();
}

// The thread's own of the numbers that stage() has copied, `number` of kCount. Beyond the row: any.
template <int kWidth>
__device__ __forceinline__ Floats<kWidth> staged(const Columns& c, const Place& at, const float* from, int number) {
  constexpr int kQuad = kWidth < 4 ? kWidth : 4;
  const int column = at.pack - (at.tile << c.across_log2);
  Floats<kWidth> result;
#pragma unroll
  for (int i = 0; i < kWidth; i += kQuad) {
    const Floats<kQuad> quad =
        load<kQuad>(from + number * kStaged<kWidth> + i / kQuad * kQuadLine<kWidth> + column * kQuad);
#pragma unroll
    for (int j = 0; j < kQuad; ++j) result[i + j] = quad[j];
  }
  return result;
}

// From the sums of one channel of all threads' packs in shared memory to those of the next one. So much more than a
// multiple of the banks that write_channels() has no conflicts.
template <int kWidth>
constexpr int kSumsLine = kColumnThreads + (kWidth == 1 ? 0 : 32 / kWidth);

// Channel number j of pack k, which lies at from[j * kSumsLine + k], to memory, for the block's channels: its threads
// lie along them, not along packs, so that nothing is left out between what a warp writes. Begins with a barrier.
template <int kWidth>
__device__ __forceinline__ void write_channels(const Columns& c, const Place& at, const float* from, float* to) {
  __syncthreads();
  const int first = at.first_channel<kWidth>(c), count = at.channels<kWidth>(c);
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kColumnThreads) {
    to[first + i] = from[i % kWidth * kSumsLine<kWidth> + i / kWidth];
  }
}

// The columns of the passes that take sums: the splits depend on M and C alone, whatever the addresses allow.
inline Columns summed_columns(const NormProblem& p, int bytes_of_element, int width) {
  constexpr int kFewestRows = 16;            // of a thread
  constexpr std::int64_t kMostBlocks = 528;  // of a set: four for each multiprocessor of an H100
  const int pack = 16 / bytes_of_element;
  Columns c = columns_of(p, width, kFewestRows, kMostBlocks);
  const Columns usual = columns_of(p, p.C % pack == 0 ? pack : 1, kFewestRows, kMostBlocks);
  c.splits = usual.splits;
  c.rows_of_split = usual.rows_of_split;
  return c;
}

// The columns of the passes over single elements, any number of blocks of which give the same bits.
inline Columns elementwise_columns(const NormProblem& p, int width) {
  constexpr int kFewestRows = 8;
  constexpr std::int64_t kMostBlocks = 132 * 32;  // of all sets
  return columns_of(p, width, kFewestRows, std::max<std::int64_t>(1, kMostBlocks / p.B));
}

// A launch over sets, splits and tiles. What the bindings have let through has fewer than 2^31 blocks.
template <typename... Parameters, typename... Arguments>
[[nodiscard]] simt::Status launch_columns(const NormProblem& p, const Columns& c, simt::Stream stream,
                                          void (*kernel)(Parameters...), Arguments... arguments) {
  return simt::launch(kernel, dim3(static_cast<unsigned>(p.B * c.splits * c.tiles)), dim3(kColumnThreads), 0, stream,
                      arguments...);
}

// Whether dy passes where y was cut, as of F.relu and F.relu6: a NaN passes the former alone.
__device__ __forceinline__ bool passes(float y, float limit) {
  return limit == INFINITY ? y != 0.0f : y > 0.0f && y < limit;
}

}  // namespace gpucnn

// The configurations of the tiles of tile.h, which of them suits a product, and into how many parts its depth is cut.
// Plain host arithmetic on sizes: the same answer on every machine, so the same bits.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace gpucnn::gemm {

// One configuration: a tile of kRows x kColumns, of which a thread owns 8 x kOwnColumns.
template <int kRows_, int kColumns_, int kOwnColumns_, int kBlocks_>
struct Shape {
  static constexpr int kRows = kRows_, kColumns = kColumns_, kOwnColumns = kOwnColumns_;
  static constexpr int kBlocks = kBlocks_;  // of a multiprocessor, that registers have to leave room for
  static constexpr int kWarpRows = 32, kWarpColumns = 8 * kOwnColumns;
  static constexpr int kWarpsAcross = kColumns / kWarpColumns;
  static constexpr int kThreads = kRows / kWarpRows * kWarpsAcross * 32;
  static_assert(kRows % 64 == 0 && kColumns % kWarpColumns == 0 && (kOwnColumns == 4 || kOwnColumns == 8));
  static_assert(kThreads >= 64 && kThreads <= 1024);
};

// THE configurations, by number: what configurations.h names and chooses from.
using Large = Shape<128, 128, 8, 2>;  // 256 threads
using Tall = Shape<128, 64, 8, 3>;    // 128 threads
using Small = Shape<64, 64, 4, 4>;    // 128 threads
using Thin = Shape<128, 32, 4, 4>;    // 128 threads

struct Configuration {
  const char* name;
  int rows, columns, threads, blocks;  // blocks that a multiprocessor holds
  double efficiency;                   // estimated, of the multiprocessor's rate when it is full
};

template <typename Shape>
constexpr Configuration configuration_of(const char* name, double efficiency) {
  return {name, Shape::kRows, Shape::kColumns, Shape::kThreads, Shape::kBlocks, efficiency};
}

// In the order of their numbers.
inline constexpr std::array<Configuration, 4> kConfigurations{
    configuration_of<Large>("128x128", 1.0),
    configuration_of<Tall>("128x64", 0.95),
    configuration_of<Small>("64x64", 0.85),
    configuration_of<Thin>("128x32", 0.75),
};
inline constexpr int kCount = static_cast<int>(kConfigurations.size());
inline constexpr int kNarrow = 2;  // the one that does what is not wide

inline constexpr int kAny = -1;                       // of a configuration: let choose() say
inline constexpr int kMultiprocessors = 132;          // an H100's, to plan for
inline constexpr int kMostRounds = 8;                 // of a cut sum: beyond, what is left of the last round is little
inline constexpr std::int64_t kFewestDepth = 128;     // of a part
inline constexpr std::int64_t kWholeDepth = 16;       // that it is a multiple of: of what a tile adds up at a time
inline constexpr std::int64_t kWorkspace = 64 << 20;  // bytes that the parts of a cut sum may take

constexpr std::int64_t tiles_of(const Configuration& c, std::int64_t rows, std::int64_t columns) {
  return ((rows + c.rows - 1) / c.rows) * ((columns + c.columns - 1) / c.columns);
}

// What the busiest multiprocessor computes, in sums weighted by the configuration's efficiency.
constexpr double cost_of(const Configuration& c, std::int64_t tiles) {
  const std::int64_t rounds = (tiles + kMultiprocessors - 1) / kMultiprocessors;
  return static_cast<double>(rounds * c.rows * c.columns) / c.efficiency;
}

// The number of the cheapest configuration for rows x columns sums; `wanted` where that is a number.
constexpr int choose(std::int64_t rows, std::int64_t columns, bool wide, int wanted = kAny) {
  if (!wide) return kNarrow;
  if (wanted != kAny) return wanted;
  int best = 0;
  for (int i = 1; i < kCount; ++i) {
    const Configuration &mine = kConfigurations[i], &other = kConfigurations[best];
    if (cost_of(mine, tiles_of(mine, rows, columns)) < cost_of(other, tiles_of(other, rows, columns))) best = i;
  }
  return best;
}

// A configuration and the parts into which a sum's depth is cut, each with a sum of its own.
struct Cut {
  int configuration;
  std::int64_t parts;
  std::int64_t depth;  // of each part but the last, a multiple of kWholeDepth
};

// In cycles of an H100: the products, and parts written and read again.
constexpr double cycles_of(const Configuration& c, std::int64_t rows, std::int64_t columns, std::int64_t depth,
                           std::int64_t parts) {
  const double sums = static_cast<double>(rows) * static_cast<double>(columns);
  const double products = cost_of(c, tiles_of(c, rows, columns) * parts) * static_cast<double>(depth) / 128;
  return products / static_cast<double>(parts) + (parts > 1 ? 8 * sums * static_cast<double>(parts) / 1700 : 0);
}

// The cheapest cut of rows x columns sums over `depth`, which is what weight gradients are: few sums of many products.
// By sizes alone, of all paths alike, so that a sum has the same bits wherever the arrays lie.
constexpr Cut choose_cut(std::int64_t rows, std::int64_t columns, std::int64_t depth, int wanted = kAny) {
  const std::int64_t most = std::max<std::int64_t>(
      1, std::min(depth / kFewestDepth, kWorkspace / 4 / std::max<std::int64_t>(rows * columns, 1)));
  int best = -1;
  std::int64_t best_parts = 1;
  double best_cycles = 0;
  for (int i = 0; i < kCount; ++i) {
    if (wanted != kAny && i != wanted) continue;
    const Configuration& c = kConfigurations[i];
    for (int rounds = 0; rounds <= kMostRounds; ++rounds) {  // of all multiprocessors; 0 is for one part
      const std::int64_t fitting = rounds * kMultiprocessors / std::max<std::int64_t>(tiles_of(c, rows, columns), 1);
      const std::int64_t parts = std::max<std::int64_t>(1, std::min(most, fitting));
      const double cycles = cycles_of(c, rows, columns, depth, parts);
      if (best >= 0 && cycles >= best_cycles) continue;
      best = i, best_parts = parts, best_cycles = cycles;
    }
  }
  const std::int64_t each = (depth + best_parts - 1) / best_parts;
  const std::int64_t whole = std::max<std::int64_t>(1, (each + kWholeDepth - 1) / kWholeDepth) * kWholeDepth;
  return {best, std::max<std::int64_t>(1, (depth + whole - 1) / whole), whole};
}

}  // namespace gpucnn::gemm

// Which tile a product of matrices is computed in, and into how many parts its depth is cut: a cost model over a table
// of configurations. Plain host arithmetic on sizes: the same answer on every machine, so the same bits.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace gpucnn {

// A tile of rows x columns sums that a block computes.
struct Configuration {
  const char* name;
  int rows, columns, threads, blocks;  // blocks that a multiprocessor holds
  double efficiency;                   // estimated, of the multiprocessor's rate when it is full of such blocks
};

template <typename Shape>
constexpr Configuration configuration_of(const char* name, double efficiency) {
  return {name, Shape::kRows, Shape::kColumns, Shape::kThreads, Shape::kBlocks, efficiency};
}

inline constexpr int kAnyConfiguration = -1;  // let choose() say

// A table of configurations, named by their numbers, and what is common to them.
template <std::size_t kCount_>
struct Tiling {
  static constexpr int kMultiprocessors = 132;          // an H100's, to plan for
  static constexpr int kMostRounds = 8;                 // of a cut sum: beyond, the rest of the last round is little
  static constexpr std::int64_t kWorkspace = 64 << 20;  // bytes that the parts of a cut sum may take
  static constexpr int kCount = static_cast<int>(kCount_);

  std::array<Configuration, kCount_> configurations;
  double rate;                // products a cycle and multiprocessor
  std::int64_t fewest_depth;  // of a part of a cut sum
  std::int64_t whole_depth;   // that a part is a multiple of
  double alone;               // how much longer a block takes by itself than beside others

  constexpr std::int64_t tiles(int configuration, std::int64_t rows, std::int64_t columns) const {
    const Configuration& c = configurations[static_cast<std::size_t>(configuration)];
    return ((rows + c.rows - 1) / c.rows) * ((columns + c.columns - 1) / c.columns);
  }

  // What the busiest multiprocessor computes of so many tiles, in sums weighted by the configuration's efficiency.
  constexpr double cost(int configuration, std::int64_t tiles) const {
    const Configuration& c = configurations[static_cast<std::size_t>(configuration)];
    const std::int64_t rounds = (tiles + kMultiprocessors - 1) / kMultiprocessors;
    return (rounds < 2 ? alone : 1.0) * static_cast<double>(rounds * c.rows * c.columns) / c.efficiency;
  }

  // The number of the cheapest configuration for rows x columns sums; `wanted` where that is a number.
  constexpr int choose(std::int64_t rows, std::int64_t columns, int wanted = kAnyConfiguration) const {
    if (wanted != kAnyConfiguration) return wanted;
    int best = 0;
    for (int i = 1; i < kCount; ++i) {
      if (cost(i, tiles(i, rows, columns)) < cost(best, tiles(best, rows, columns))) best = i;
    }
    return best;
  }

  // A configuration and the parts into which a sum's depth is cut, each with a sum of its own.
  struct Cut {
    int configuration;
    std::int64_t parts;
    std::int64_t depth;  // of each part but the last, a multiple of whole_depth
  };

  // The cheapest cut of rows x columns sums over `depth`, which is what weight gradients are: few sums of many
  // products. By sizes alone, of all paths alike, so that a sum has the same bits wherever the arrays lie.
  constexpr Cut choose_cut(std::int64_t rows, std::int64_t columns, std::int64_t depth,
                           int wanted = kAnyConfiguration) const {
    const std::int64_t most = std::max<std::int64_t>(
        1, std::min(depth / fewest_depth, kWorkspace / 4 / std::max<std::int64_t>(rows * columns, 1)));
    int best = -1;
    std::int64_t best_parts = 1;
    double best_cycles = 0;
    for (int i = 0; i < kCount; ++i) {
      if (wanted != kAnyConfiguration && i != wanted) continue;
      for (int rounds = 0; rounds <= kMostRounds; ++rounds) {  // of all multiprocessors; 0 is for one part
        const std::int64_t fitting = rounds * kMultiprocessors / std::max<std::int64_t>(tiles(i, rows, columns), 1);
        const std::int64_t parts = std::max<std::int64_t>(1, std::min(most, fitting));
        const double cycles = cycles_of(i, rows, columns, depth, parts);
        if (best >= 0 && cycles >= best_cycles) continue;
        best = i, best_parts = parts, best_cycles = cycles;
      }
    }
    const std::int64_t each = (depth + best_parts - 1) / best_parts;
    const std::int64_t whole = std::max<std::int64_t>(1, (each + whole_depth - 1) / whole_depth) * whole_depth;
    return {best, std::max<std::int64_t>(1, (depth + whole - 1) / whole), whole};
  }

 private:
  // In cycles of an H100: the products, and parts written and read again.
  constexpr double cycles_of(int configuration, std::int64_t rows, std::int64_t columns, std::int64_t depth,
                             std::int64_t parts) const {
    const double sums = static_cast<double>(rows) * static_cast<double>(columns);
    const double products =
        cost(configuration, tiles(configuration, rows, columns) * parts) * static_cast<double>(depth) / rate;
    return products / static_cast<double>(parts) + (parts > 1 ? 8 * sums * static_cast<double>(parts) / 1700 : 0);
  }
};

}  // namespace gpucnn

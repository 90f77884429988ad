// Which tile a product of matrices is computed in, and into how many parts its depth is cut: a cost model over a table
// of configurations. Plain host arithmetic on sizes and on what the GPU can do (common/machine.h): the same answer on
// every GPU of a model, so the same bits. Not calibrated on hardware yet.
#pragma once

#include "common/machine.h"

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

// What does the products: one of a machine's rates, and how many of that rate's products each of them takes.
struct Unit {
  double Machine::* rate;
  double each;
  int bytes;  // of a factor, as the second-level cache delivers it
};

// A table of configurations, named by their numbers, and what is common to them.
template <std::size_t kCount_>
struct Tiling {
  static constexpr int kMostRounds = 8;                 // of a cut sum: beyond, the rest of the last round is little
  static constexpr std::int64_t kWorkspace = 64 << 20;  // bytes that the parts of a cut sum may take
  static constexpr double kSecondLaunch = 1e-6;         // seconds, of the kernel that adds parts up
  static constexpr int kCount = static_cast<int>(kCount_);

  std::array<Configuration, kCount_> configurations;
  Unit unit;
  std::int64_t fewest_depth;  // of a part of a cut sum
  std::int64_t whole_depth;   // that a part is a multiple of
  double alone;               // how much longer a block takes by itself than beside others

  constexpr const Configuration& at(int configuration) const {
    return configurations[static_cast<std::size_t>(configuration)];
  }

  constexpr std::int64_t tiles(int configuration, std::int64_t rows, std::int64_t columns) const {
    const Configuration& c = at(configuration);
    return ((rows + c.rows - 1) / c.rows) * ((columns + c.columns - 1) / c.columns);
  }

  // Blocks over what all multiprocessors hold at once.
  constexpr double waves(const Machine& m, int configuration, std::int64_t blocks) const {
    return static_cast<double>(blocks) / (static_cast<double>(m.multiprocessors) * at(configuration).blocks);
  }

  // What rows x columns sums over `depth` take. The busiest multiprocessor multiplies for whole tiles, what hangs over
  // included, at the rate that the tile leaves it; every tile's strips come through the second-level cache; the parts
  // of a cut sum are written and read again, in that cache where they take no more than half of it, else in memory.
  constexpr double cycles(const Machine& m, int configuration, std::int64_t rows, std::int64_t columns,
                          std::int64_t depth, std::int64_t parts = 1) const {
    const Configuration& c = at(configuration);
    const std::int64_t blocks = tiles(configuration, rows, columns) * parts;
    const std::int64_t rounds = (blocks + m.multiprocessors - 1) / m.multiprocessors;
    const double each = static_cast<double>(depth) / static_cast<double>(parts);
    const double multiplying = static_cast<double>(rounds * c.rows * c.columns) * each * unit.each / (m.*unit.rate) *
                               (rounds < 2 ? alone : 1.0) / c.efficiency;
    const double reading = static_cast<double>(blocks * (c.rows + c.columns) * unit.bytes) * each / m.l2;
    const double sums = static_cast<double>(rows) * static_cast<double>(columns);
    const double partial = 4 * sums * static_cast<double>(parts);
    const double adding = 2 * partial / (2 * partial <= m.cache ? m.l2 : m.dram) + kSecondLaunch * m.clock;
    return std::max(multiplying, reading) + (parts > 1 ? adding : 0);
  }

  // The number of the cheapest configuration for rows x columns sums; `wanted` where that is a number.
  constexpr int choose(const Machine& m, std::int64_t rows, std::int64_t columns,
                       int wanted = kAnyConfiguration) const {
    if (wanted != kAnyConfiguration) return wanted;
    int best = 0;
    for (int i = 1; i < kCount; ++i) {
      if (cycles(m, i, rows, columns, 1) < cycles(m, best, rows, columns, 1)) best = i;
    }
    return best;
  }
  int choose(std::int64_t rows, std::int64_t columns, int wanted = kAnyConfiguration) const {
    return choose(machine(), rows, columns, wanted);
  }

  // A configuration and the parts into which a sum's depth is cut, each with a sum of its own.
  struct Cut {
    int configuration;
    std::int64_t parts;
    std::int64_t depth;  // of each part but the last, a multiple of whole_depth
  };

  // The cheapest cut of rows x columns sums over `depth`, which is what weight gradients are: few sums of many
  // products. By sizes alone, of all paths alike, so that a sum has the same bits wherever the arrays lie.
  constexpr Cut choose_cut(const Machine& m, std::int64_t rows, std::int64_t columns, std::int64_t depth,
                           int wanted = kAnyConfiguration) const {
    const std::int64_t most = std::max<std::int64_t>(
        1, std::min(depth / fewest_depth, kWorkspace / 4 / std::max<std::int64_t>(rows * columns, 1)));
    int best = -1;
    std::int64_t best_parts = 1;
    double best_cycles = 0;
    for (int i = 0; i < kCount; ++i) {
      if (wanted != kAnyConfiguration && i != wanted) continue;
      for (int rounds = 0; rounds <= kMostRounds; ++rounds) {  // of all multiprocessors; 0 is for one part
        const std::int64_t fitting = rounds * m.multiprocessors / std::max<std::int64_t>(tiles(i, rows, columns), 1);
        const std::int64_t parts = std::max<std::int64_t>(1, std::min(most, fitting));
        const double found = cycles(m, i, rows, columns, depth, parts);
        if (best >= 0 && found >= best_cycles) continue;
        best = i, best_parts = parts, best_cycles = found;
      }
    }
    const std::int64_t each = (depth + best_parts - 1) / best_parts;
    const std::int64_t whole = std::max<std::int64_t>(1, (each + whole_depth - 1) / whole_depth) * whole_depth;
    return {best, std::max<std::int64_t>(1, (depth + whole - 1) / whole), whole};
  }
  Cut choose_cut(std::int64_t rows, std::int64_t columns, std::int64_t depth, int wanted = kAnyConfiguration) const {
    return choose_cut(machine(), rows, columns, depth, wanted);
  }
};

}  // namespace gpucnn

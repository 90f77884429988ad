// The configurations of the tiles of tile.h. common/tiling.h says which of them suits a product.
#pragma once

#include "common/tiling.h"

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

// In the order of their numbers.
inline constexpr Tiling<4> kTiling{
    {configuration_of<Large>("128x128", 1.0), configuration_of<Tall>("128x64", 0.95),
     configuration_of<Small>("64x64", 0.85), configuration_of<Thin>("128x32", 0.75)},
    {&Machine::fp32, 1, 4},
    128,
    16,
    1.0,
};
inline constexpr const auto& kConfigurations = kTiling.configurations;
inline constexpr int kCount = kTiling.kCount;
inline constexpr int kNarrow = 2;  // the one that does what is not wide
inline constexpr int kAny = kAnyConfiguration;

using Cut = decltype(kTiling)::Cut;

// The number of the cheapest configuration for rows x columns sums; `wanted` where that is a number.
inline int choose(std::int64_t rows, std::int64_t columns, bool wide, int wanted = kAny) {
  return wide ? kTiling.choose(rows, columns, wanted) : kNarrow;
}

inline Cut choose_cut(std::int64_t rows, std::int64_t columns, std::int64_t depth, int wanted = kAny) {
  return kTiling.choose_cut(rows, columns, depth, wanted);
}

}  // namespace gpucnn::gemm

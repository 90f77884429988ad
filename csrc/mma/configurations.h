// The configurations of the tiles of mma/tile.h. common/tiling.h says which of them suits a product.
#pragma once

#include "common/tiling.h"

#include <cstdint>

namespace gpucnn::mma {

inline constexpr int kStages = 4;       // of the ring of strips in shared memory
inline constexpr int kStripBytes = 64;  // of a line of an operand, along the depth, in one strip

// How float32 is multiplied: rounded to 11 bits (TF32), or as exactly as float32 is. Of 16 bits it says nothing.
enum class Precision { high, highest };

// One configuration: a tile of kRows x kColumns sums, of which a warp owns kWarpRows x kWarpColumns.
template <int kRows_, int kColumns_, int kWarpRows_, int kWarpColumns_, int kBlocks_>
struct Shape {
  static constexpr int kRows = kRows_, kColumns = kColumns_, kWarpRows = kWarpRows_, kWarpColumns = kWarpColumns_;
  static constexpr int kBlocks = kBlocks_;  // of a multiprocessor, that registers have to leave room for
  static constexpr int kWarpsAcross = kColumns / kWarpColumns;
  static constexpr int kThreads = kRows / kWarpRows * kWarpsAcross * 32;
  static constexpr int kSharedBytes = kStages * (kRows + kColumns) * kStripBytes;
  static_assert((kThreads == 128 || kThreads == 256) && kWarpRows % 32 == 0 && kWarpColumns % 32 == 0);
};

// THE configurations of what is multiplied at once, by number. The efficiencies are what shared memory leaves: a warp
// of 64 x 64 sums reads 2 x 64 lines for 4,096 products, one of 32 x 32 half of that for a quarter.
using Tall = Shape<256, 64, 64, 64, 2>;
using Large = Shape<128, 128, 64, 64, 2>;
using Medium = Shape<128, 64, 64, 32, 3>;
using Small = Shape<64, 64, 32, 32, 4>;

// For operands that take more registers on their way.
using Roomy = Shape<128, 64, 64, 32, 2>;

// Of several groups at once, whose products with each other are zeros, or of no use: as few columns, or rows, as are
// copied without conflicts.
using Slim = Shape<256, 32, 64, 32, 2>;
using Broad = Shape<64, 128, 32, 64, 2>;

inline constexpr Tiling<4> kTiling{
    {configuration_of<Tall>("256x64", 0.95), configuration_of<Large>("128x128", 1.0),
     configuration_of<Medium>("128x64", 0.85), configuration_of<Small>("64x64", 0.6)},
    {&Machine::matrix, 1, 2},
    256,
    32,
    1.5,
};

// And of float32 that is split into three numbers each, which take more registers. Efficiencies: a warp issues 472
// instructions for 48 of the matrix unit's, which are 16,384 products of float32: at most 139 a cycle and
// multiprocessor, where six products of 16 bits each would leave 200, and FFMA has 128 at its best.
using SplitMedium = Shape<128, 64, 32, 32, 1>;
using SplitSmall = Shape<64, 64, 32, 32, 2>;
using SplitSlim = Shape<128, 32, 32, 32, 2>;

inline constexpr Tiling<2> kSplitTiling{
    {configuration_of<SplitMedium>("128x64", 0.7), configuration_of<SplitSmall>("64x64", 0.65)},
    {&Machine::matrix, 6, 4},
    256,
    32,
    1.5,
};

// The same tiles of TF32, for what they take: which suits a product is the same as in 16 bits.
inline constexpr Tiling<4> kTf32Tiling{kTiling.configurations, {&Machine::matrix, 2, 4}, 256, 32, 1.5};

// The weight gradient of groups.
inline constexpr Tiling<1> kGroupTiling{
    {configuration_of<Broad>("64x128", 0.75)}, {&Machine::matrix, 1, 2}, 256, 32, 1.5};

}  // namespace gpucnn::mma

// From a configuration's number to the kernel that is compiled for it. For .cu files.
#pragma once

#include "common/index.h"
#include "gemm/configurations.h"
#include "gemm/tile.h"
#include "simt/ptx.h"

#include <cstdint>
#include <type_traits>

namespace gpucnn::gemm {

// Calls launch(Shape{}, std::bool_constant<wide>{}) for a configuration: of the narrow path, kNarrow's.
template <typename Launch>
[[nodiscard]] simt::Status with_shape(int configuration, bool wide, Launch&& launch) {
  if (!wide) return launch(Small{}, std::false_type{});
  switch (configuration) {
    case 0:
      return launch(Large{}, std::true_type{});
    case 1:
      return launch(Tall{}, std::true_type{});
    case 2:
      return launch(Small{}, std::true_type{});
    default:
      return launch(Thin{}, std::true_type{});
  }
}

// The tile that a block owns: columns before rows, so that blocks side by side share the rows, which are what is large.
struct TileAt {
  std::int64_t row, column;
};

// Asked again where the sums are stored, with simt::anew(): nothing of it is kept over the loop.
template <typename Shape>
__device__ __forceinline__ TileAt tile_at(unsigned index, unsigned tiles_across) {
  return {std::int64_t{index / tiles_across} * Shape::kRows, std::int64_t{index % tiles_across} * Shape::kColumns};
}

template <typename Shape>
unsigned tiles_across(std::int64_t columns) {
  return static_cast<unsigned>(blocks_of(Shape::kColumns, columns));
}

template <typename Shape>
unsigned tiles(std::int64_t rows, std::int64_t columns) {
  return static_cast<unsigned>(blocks_of(Shape::kRows, rows)) * tiles_across<Shape>(columns);
}

// Whether rows of `size` elements are whole packs.
template <typename T>
bool in_packs(std::int64_t size) {
  return size % kPack<T> == 0;
}

}  // namespace gpucnn::gemm

// y = x where both lie in any order: the kernels of copies and conversions. For .cu files.
//
// Walked   each thread one word a pass over the grid, neighbours own neighbouring words of y. Where rows lie
//          together in both arrays a word is the largest of 16, 8, 4 ... bytes that rows, gaps and addresses are
//          multiples of.
// Tiled    where neighbours in y are not neighbours in x, but others are, as between N,C,H,W and N,H,W,C: a block of
//          256 threads brings a tile through shared memory, so that both sides move neighbouring elements. It has 32 x
//          32 of them or, of matrices that are narrower, as the 3 channels of pictures, all of the narrow side and 32,
//          64 ... of the other: what is one run of memory is moved as one. In shared memory lines along the longer side
//          lie so far apart that neighbours across them are in different banks, where an odd number or a power of 2 is
//          narrow.
// Limits   at most 8 axes once those that lie alike are merged, each but the first shorter than 2^31.
// Bound    memory: x once, y once. N32 C256 56x56 float32 from N,C,H,W to N,H,W,C, 206 MB, takes 69 us at the 3.0 TB/s
//          that an H100 copies at.
// Measured not run on hardware yet.
#pragma once

#include "common/grid.h"
#include "common/walk.h"
#include "shape/shape.h"
#include "simt/simt.h"

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace gpucnn {
namespace detail {

inline constexpr int kCopyThreads = 256;
inline constexpr int kTile = 32;  // elements of the narrow side of a tile, at most
inline constexpr int kTileElements = 1024;
inline constexpr int kSlots = 2 * kTileElements;  // with the gaps between a tile's lines

// An element in shared memory: a word at least, so that neighbours of any type are in different banks.
template <typename T>
struct alignas(sizeof(T) < 4 ? 4 : sizeof(T)) Slot {
  T value;
};

inline constexpr std::int64_t kLeastTiled = 64;  // elements: matrices of fewer are walked

template <typename Out, typename In>
__device__ __forceinline__ Out converted(In value) {
  if constexpr (std::is_same_v<In, Out>) {
    return value;
  } else {
    return simt::from_float<Out>(simt::to_float(value));
  }
}

namespace {  // each file has kernels of its own, by which they are told apart

// Arrays of the walk: y, x.
template <typename In, typename Out>
__global__ void __launch_bounds__(kCopyThreads)
    walked_copy_kernel(const In* __restrict__ x, Out* __restrict__ y, const __grid_constant__ Walk<2> walk) {
  const std::int64_t step = std::int64_t{gridDim.x} * kCopyThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kCopyThreads + threadIdx.x; i < walk.units; i += step) {
    const Offsets<2> at = offsets_of<1>(walk, i);
    simt::vstore(y + at.of[0], converted<Out>(simt::vload<In>(x + at.of[1])));
  }
}

}  // namespace

// Matrices of `rows` x `columns`: y's columns are neighbours, x's rows are.
struct Tiles {
  std::int64_t rows, columns;
  std::int64_t x_column, y_row;  // from one to the next in x and in y, in elements
  Divisor across, down;          // tiles along the columns and along the rows
  std::int64_t items;            // tiles in all
  int tile_rows, tile_columns;   // of a full tile
  unsigned by_rows, by_columns;  // place * by >> 20 is place / tile_rows, / tile_columns of places in a tile
  int row_pitch, column_pitch;   // in shared memory, from a row to the next, a column to the next: 1 is one of them
};

namespace {  // each file has kernels of its own, by which they are told apart

// The walk goes over the matrices.
template <typename In, typename Out>
__global__ void __launch_bounds__(kCopyThreads)
    tiled_copy_kernel(const In* __restrict__ x, Out* __restrict__ y, const __grid_constant__ Tiles p,
                      const __grid_constant__ Walk<2> walk) {
  SIMT_SHARED(Slot<Out>, tile, [kSlots]);
  const int count = p.tile_rows * p.tile_columns;
  for (std::int64_t item = blockIdx.x; item < p.items; item += gridDim.x) {
    const Quotient across = p.across.divide(item);
    const Quotient down = p.down.divide(across.whole);
    const Offsets<2> matrix = offsets_of<1>(walk, down.whole);
    const std::int64_t row = std::int64_t{down.rest} * p.tile_rows, column = std::int64_t{across.rest} * p.tile_columns;
    const std::int64_t rows = p.rows - row, columns = p.columns - column;  // that are left
#pragma unroll
    for (int i = 0; i < kTileElements; i += kCopyThreads) {  // neighbouring threads take neighbouring rows
      const int place = i + static_cast<int>(threadIdx.x);
      const int c = static_cast<int>(static_cast<unsigned>(place) * p.by_rows >> 20), r = place - c * p.tile_rows;
      if (place < count && r < rows && c < columns) {
        tile[r * p.row_pitch + c * p.column_pitch].value =
            converted<Out>(x[matrix.of[1] + row + r + (column + c) * p.x_column]);
      }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kTileElements; i += kCopyThreads) {  // neighbouring columns
      const int place = i + static_cast<int>(threadIdx.x);
      const int r = static_cast<int>(static_cast<unsigned>(place) * p.by_columns >> 20), c = place - r * p.tile_columns;
      if (place < count && r < rows && c < columns) {
        y[matrix.of[0] + (row + r) * p.y_row + column + c] = tile[r * p.row_pitch + c * p.column_pitch].value;
      }
    }
    __syncthreads();
  }
}

}  // namespace

// The axis along which x's neighbours lie, if a copy by tiles suits the walk; else -1.
inline int tiled_axis(const Walk<2>& walk) {
  const int last = walk.axes - 1;
  if (walk.stride[0][last] != 1 || walk.stride[1][last] == 1) return -1;
  for (int axis = last - 1; axis >= 0; --axis) {
    if (walk.stride[1][axis] == 1) return walk.length[axis] * walk.length[last] < kLeastTiled ? -1 : axis;
  }
  return -1;
}

// Slots from one line along the longer side of a tile to the next, of which `narrow` lie beneath each other: at least
// `length`, and so many more than a multiple of `banks`, which are as wide as a slot, that as many neighbours across
// the lines are in different ones. Those are place % narrow * pitch + place / narrow; with narrow * pitch one above a
// multiple of the banks that is place * pitch.
inline int pitch_of(int narrow, int length, int banks) {
  int beyond = 1;
  if (narrow % 2 != 0) {
    while (narrow * beyond % banks != 1) beyond += 2;
  } else {
    beyond = std::max(banks / narrow, 1);
  }
  return (length + banks - 1) / banks * banks + beyond;
}

template <typename In, typename Out>
simt::Status launch_tiled(const In* x, Out* y, const Walk<2>& all, int axis, simt::Stream stream) {
  const int last = all.axes - 1;
  Walk<2> walk{};
  for (int i = 0; i < last; ++i) {
    if (i == axis) continue;
    walk.length[walk.axes] = all.length[i];
    for (int k = 0; k < 2; ++k) walk.stride[k][walk.axes] = all.stride[k][i];
    ++walk.axes;
  }
  if (walk.axes == 0) {
    walk.axes = 1;
    walk.length[0] = 1;
  }
  set_step(walk, 1);
  const std::int64_t rows = all.length[axis], columns = all.length[last];
  const int narrow = static_cast<int>(std::min<std::int64_t>({kTile, rows, columns}));
  const int length = kTileElements / narrow / kTile * kTile;  // at most, of the other side
  const bool few_columns = columns <= rows;
  const int tile_rows = few_columns ? length : narrow, tile_columns = few_columns ? narrow : length;
  constexpr int kBanks = sizeof(Out) == 8 ? 16 : 32;
  const int pitch = pitch_of(narrow, length, kBanks);
  const auto inverse = [](int size) {
    return ((1u << 20) + static_cast<unsigned>(size) - 1) / static_cast<unsigned>(size);
  };
  const std::int64_t down = blocks_of(tile_rows, rows), across = blocks_of(tile_columns, columns);
  const Tiles tiles{rows,
                    columns,
                    all.stride[1][last],
                    all.stride[0][axis],
                    divisor_of(across),
                    divisor_of(down),
                    walk.units * down * across,
                    tile_rows,
                    tile_columns,
                    inverse(tile_rows),
                    inverse(tile_columns),
                    few_columns ? 1 : pitch,
                    few_columns ? pitch : 1};
  unsigned blocks = 0;
  if (const auto status = one_wave(tiles.items * kCopyThreads, kCopyThreads, &blocks); status != simt::kSuccess) {
    return status;
  }
  return simt::launch(tiled_copy_kernel<In, Out>, dim3(blocks), dim3(kCopyThreads), 0, stream, x, y, tiles, walk);
}

template <typename In, typename Out>
simt::Status launch_walked(const In* x, Out* y, Walk<2>& walk, simt::Stream stream) {
  set_step(walk, 1);
  unsigned blocks = 0;
  if (const auto status = one_wave(walk.units, kCopyThreads, &blocks); status != simt::kSuccess) return status;
  return simt::launch(walked_copy_kernel<In, Out>, dim3(blocks), dim3(kCopyThreads), 0, stream, x, y, walk);
}

}  // namespace detail
}  // namespace gpucnn

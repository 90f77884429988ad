// y = x where both lie in any order: the kernels of copies and conversions. For .cu files.
//
// Walked   each thread one word a pass over the grid, neighbours own neighbouring words of y. Where rows lie together
// in
//          both arrays a word is the largest of 16, 8, 4 ... bytes that rows, gaps and addresses are multiples of.
// Tiled    where neighbours in y are not neighbours in x, but others are, as between N,C,H,W and N,H,W,C: a block of
//          256 threads brings a tile of 32 x 32 through shared memory, so that both sides move 32 neighbouring elements
//          a warp. Rows of the tile are an odd number of words apart: its columns are free of conflicts.
// Limits   at most 8 axes once those that lie alike are merged, each but the first shorter than 2^31.
// Bound    memory: x once, y once. N32 C256 56x56 float32 from N,C,H,W to N,H,W,C, 206 MB, takes 69 us at the 3.0 TB/s
//          that an H100 copies at.
// Measured not run on hardware yet.
#pragma once

#include "common/grid.h"
#include "common/walk.h"
#include "shape/shape.h"
#include "simt/simt.h"

#include <cstdint>
#include <type_traits>
#include <vector>

namespace gpucnn {
namespace detail {

inline constexpr int kCopyThreads = 256;
inline constexpr int kTile = 32;
// Elements from one row of a tile to the next: an odd number of words, so that the 32 elements of a column lie in
// different banks.
template <typename T>
inline constexpr int kPitch = kTile + (sizeof(T) < 4 ? 4 / static_cast<int>(sizeof(T)) : 1);

inline constexpr std::int64_t kLeastTiled = 4;  // shorter axes are walked: of a tile they would fill little

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
};

namespace {  // each file has kernels of its own, by which they are told apart

// The walk goes over the matrices.
template <typename In, typename Out>
__global__ void __launch_bounds__(kCopyThreads) tiled_copy_kernel(const In* __restrict__ x, Out* __restrict__ y,
                                                                  const Tiles p, const __grid_constant__ Walk<2> walk) {
  SIMT_SHARED(Out, tile, [kTile][kPitch<Out>]);
  constexpr int kStep = kCopyThreads / kTile;
  const int lane = static_cast<int>(threadIdx.x) % kTile, first = static_cast<int>(threadIdx.x) / kTile;
  for (std::int64_t item = blockIdx.x; item < p.items; item += gridDim.x) {
    const Quotient across = p.across.divide(item);
    const Quotient down = p.down.divide(across.whole);
    const Offsets<2> matrix = offsets_of<1>(walk, down.whole);
    const std::int64_t row = std::int64_t{down.rest} * kTile, column = std::int64_t{across.rest} * kTile;
#pragma unroll
    for (int i = 0; i < kTile; i += kStep) {  // neighbouring lanes take neighbouring rows
      const std::int64_t r = row + lane, c = column + first + i;
      if (r < p.rows && c < p.columns) tile[first + i][lane] = converted<Out>(x[matrix.of[1] + r + c * p.x_column]);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kTile; i += kStep) {  // neighbouring columns
      const std::int64_t r = row + first + i, c = column + lane;
      if (r < p.rows && c < p.columns) y[matrix.of[0] + r * p.y_row + c] = tile[lane][first + i];
    }
    __syncthreads();
  }
}

}  // namespace

// The axis along which x's neighbours lie, if a copy by tiles suits the walk; else -1.
inline int tiled_axis(const Walk<2>& walk) {
  const int last = walk.axes - 1;
  if (walk.stride[0][last] != 1 || walk.stride[1][last] == 1 || walk.length[last] < kLeastTiled) return -1;
  for (int axis = last - 1; axis >= 0; --axis) {
    if (walk.stride[1][axis] == 1 && walk.length[axis] >= kLeastTiled) return axis;
  }
  return -1;
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
  const std::int64_t down = blocks_of(kTile, rows), across = blocks_of(kTile, columns);
  const Tiles tiles{rows,
                    columns,
                    all.stride[1][last],
                    all.stride[0][axis],
                    divisor_of(across),
                    divisor_of(down),
                    walk.units * down * across};
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

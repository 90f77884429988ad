// What becomes of a tile's sums: stored as rows (a row's columns are neighbours in memory), with a bias and ReLU, or as
// columns. Neighbouring sums go together where sizes and addresses allow it: of a row 4 of float32 or 8 of 16 bits in
// 16 bytes, of a column 4 of either.
#pragma once

#include "common/epilogue.h"
#include "common/pack.h"
#include "gemm/tile.h"
#include "simt/ptx.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn::gemm {

// kCount neighbours, of which those from `count` on do not exist: all of them or none where it is wide. pack.h's
// store() would do, were it not that the compiler shares its stores with the other path's, and makes single ones of
// them.
template <bool kWide, int kCount, typename T>
__device__ __forceinline__ void store_some(T* p, const Floats<kCount>& values, std::int64_t count) {
  if constexpr (kWide) {
    constexpr int kEach = gpucnn::detail::kTogether<T, kCount>;
    using Access = gpucnn::detail::Access<T, kEach>;
    if (count <= 0) return;
#pragma unroll
    for (int i = 0; i < kCount; i += kEach) {
      Access access;
#pragma unroll
      for (int j = 0; j < kEach; ++j) access.elements[j] = simt::from_float<T>(values[i + j]);
      simt::store_global(p + i, access.word);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (i < count) p[i] = simt::from_float<T>(values[i]);
    }
  }
}

// The biases of kCount neighbouring columns, 0 for those from `columns` on, and where there is no bias.
template <bool kWide, int kCount, typename T>
__device__ __forceinline__ Floats<kCount> offsets_of(const Epilogue<T>& epilogue, std::int64_t column,
                                                     std::int64_t columns) {
  Floats<kCount> offsets = {};
  if (epilogue.bias == nullptr) return offsets;
  if constexpr (kWide) {
    if (column < columns) offsets = load<kCount>(epilogue.bias + column);
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (column + i < columns) offsets[i] = epilogue.offset(column + i);
    }
  }
  return offsets;
}

// The sums of rows [first_row, rows) and columns [first_column, columns): row r begins at out + offset(r), and is not
// stored where that is negative.
template <bool kWide, typename T, typename Shape, typename Offset>
__device__ __forceinline__ void store_rows(const Tile<T, Shape>& tile, T* out, std::int64_t first_row,
                                           std::int64_t rows, std::int64_t first_column, std::int64_t columns,
                                           const Epilogue<T>& epilogue, const Offset& offset) {
  using Sums = Tile<T, Shape>;
  constexpr int kTogether = Sums::kColumnsTogether, kGroups = Sums::kOwnColumns / kTogether;
  Floats<kTogether> offsets[kGroups];
#pragma unroll
  for (int j = 0; j < kGroups; ++j) {
    const std::int64_t column = first_column + Sums::column(j * kTogether);
    offsets[j] = offsets_of<kWide, kTogether>(epilogue, column, columns);
  }
#pragma unroll
  for (int i = 0; i < Sums::kOwnRows; ++i) {
    const std::int64_t row = first_row + Sums::row(i / 4 * 4) + i % 4;
    if (row >= rows) continue;
    const std::int64_t begin = offset(row);
    if (begin < 0) continue;
#pragma unroll
    for (int j = 0; j < kGroups; ++j) {
      const std::int64_t column = first_column + Sums::column(j * kTogether);
      Floats<kTogether> values;
#pragma unroll
      for (int k = 0; k < kTogether; ++k) {
        values[k] = epilogue.clip(tile.sums[i][j * kTogether + k] + offsets[j][k]);
      }
      store_some<kWide>(out + (begin + column), values, columns - column);
    }
  }
}

// As store_rows<wide>, which is known when the kernel runs.
template <typename T, typename Shape, typename Offset>
__device__ __forceinline__ void store_rows(const Tile<T, Shape>& tile, T* out, std::int64_t first_row,
                                           std::int64_t rows, std::int64_t first_column, std::int64_t columns,
                                           bool wide, const Epilogue<T>& epilogue, const Offset& offset) {
  if (wide) {
    store_rows<true>(tile, out, first_row, rows, first_column, columns, epilogue, offset);
  } else {
    store_rows<false>(tile, out, first_row, rows, first_column, columns, epilogue, offset);
  }
}

// The sums of rows [first_row, rows) and columns [first_column, columns): column c begins at out + c * rows, and its
// rows are neighbours. Out is T, or float for a part of a sum. A kernel that has no registers to keep over its loop
// where a thread's sums belong passes simt::anew(threadIdx.x).
template <bool kWide, typename Out, typename T, typename Shape>
__device__ __forceinline__ void store_columns(const Tile<T, Shape>& tile, Out* out, std::int64_t first_row,
                                              std::int64_t rows, std::int64_t first_column, std::int64_t columns,
                                              unsigned thread) {
  using Sums = Tile<T, Shape>;
  constexpr int kTogether = Sums::kRowsTogether;
#pragma unroll
  for (int j = 0; j < Sums::kOwnColumns; ++j) {
    const std::int64_t column = first_column + Sums::column(j / 4 * 4, thread) + j % 4;
    if (column >= columns) continue;
    Out* const line = out + column * rows;
#pragma unroll
    for (int i = 0; i < Sums::kOwnRows; i += kTogether) {
      const std::int64_t row = first_row + Sums::row(i, thread);
      Floats<kTogether> values;
#pragma unroll
      for (int k = 0; k < kTogether; ++k) values[k] = tile.sums[i + k][j];
      store_some<kWide>(line + row, values, rows - row);
    }
  }
}

template <typename Out, typename T, typename Shape>
__device__ __forceinline__ void store_columns(const Tile<T, Shape>& tile, Out* out, std::int64_t first_row,
                                              std::int64_t rows, std::int64_t first_column, std::int64_t columns,
                                              bool wide, unsigned thread = threadIdx.x) {
  if (wide) {
    store_columns<true>(tile, out, first_row, rows, first_column, columns, thread);
  } else {
    store_columns<false>(tile, out, first_row, rows, first_column, columns, thread);
  }
}

}  // namespace gpucnn::gemm

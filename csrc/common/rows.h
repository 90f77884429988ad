// Rows of a matrix (rows, columns), each owned by a warp or by a block, behind one interface. For .cu files.
//
//   HeldRow      up to 1,024 columns: a warp reads the row once and keeps it in registers, 32 values a lane; or four
//                lanes do, eight rows a warp, of up to 128 columns
//   StreamedRow  any number: a block of 256 reads it again in every pass; all but the first come from the caches
//
// A kernel that is a template of one of them is written once:
//
//   Row row;
//   row.open(x + i * columns, columns);
//   row.each([&](float value, int column) { ... });                       in every thread, for the values it owns
//   row.packs([&](const Floats<Row::kWidth>& pack, int column) { ... });  the same, by accesses
//   total = Row::sum(part);                                               over the row's threads, in each of them
//   row.write(y + i * columns, [&](float value, int column) { return ...; });
//
// All threads of the owner call each of these. kWidth: elements of an access, as many as 16 bytes hold where a row is a
// whole number of such packs and addresses are aligned, else 1; or four of 16 bits where there are float32 beside them,
// so that a warp's accesses to either have no gaps.
#pragma once

#include "common/pack.h"
#include "common/reduce.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {

inline constexpr int kRowThreads = 256;  // of a block
inline constexpr int kHeldOfLane = 32;   // values
inline constexpr int kHeldColumns = 32 * kHeldOfLane;
inline constexpr int kSlimLanes = 4;
inline constexpr int kSlimColumns = kSlimLanes * kHeldOfLane;

template <typename T_, int kWidth_, int kLanes = 32>
struct HeldRow {
  using T = T_;
  static constexpr int kThreads = kLanes;  // of a row
  static constexpr int kWidth = kWidth_;
  static constexpr int kHeld = kHeldOfLane;
  static_assert(kHeld % kWidth == 0, "whole packs");

  Floats<kHeld> held;
  int columns;  // [0, kThreads * kHeld]; 0 beyond the last row, where all lanes take part with nothing

  // body(number of a register, column) for the first of each pack that the lane owns.
  template <typename Body>
  __device__ __forceinline__ void each_pack(Body body) const {
    const int first = static_cast<int>(threadIdx.x % kThreads) * kWidth;
#pragma unroll
    for (int i = 0; i < kHeld; i += kWidth) {
      if (i * kThreads >= columns) break;
      const int column = i * kThreads + first;
      if (column < columns) body(i, column);
    }
  }

  __device__ __forceinline__ void open(const T* from, int columns_) {
    columns = columns_;
    each_pack([&](int i, int column) {
      const Floats<kWidth> pack = load<kWidth>(from + column);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) held[i + j] = pack[j];
    });
  }

  // body(pack, its first column)
  template <typename Body>
  __device__ __forceinline__ void packs(Body body) const {
    each_pack([&](int i, int column) {
      Floats<kWidth> pack;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) pack[j] = held[i + j];
      body(pack, column);
    });
  }

  template <typename Body>
  __device__ __forceinline__ void each(Body body) const {
    each_pack([&](int i, int column) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) body(held[i + j], column + j);
    });
  }

  // The value at a column, 0 where there is none. Of several rows of a warp each has it in a sector of its own, so
  // there it comes from registers; `at` is where it lies in memory.
  __device__ __forceinline__ float pick(const T* at, std::int64_t column) const {
    if constexpr (kThreads == 32) {
      return column >= 0 && column < columns ? simt::to_float(*at) : 0.0f;
    } else {
      float found = 0.0f;
      each([&](float value, int i) { found = i == column ? value : found; });
      return sum(found);
    }
  }

  // As each(), with the values of another row beside them.
  template <typename Body>
  __device__ __forceinline__ void each(const HeldRow& other, Body body) const {
    each_pack([&](int i, int column) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) body(held[i + j], other.held[i + j], column + j);
    });
  }

  // As each(), with the values of a row in memory beside them, which are not kept.
  template <typename Body>
  __device__ __forceinline__ void each(const T* other, Body body) const {
    each_pack([&](int i, int column) {
      const Floats<kWidth> pack = load<kWidth>(other + column);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) body(held[i + j], pack[j], column + j);
    });
  }

  template <typename Body>
  __device__ __forceinline__ void write(T* to, Body body) const {
    each_pack([&](int i, int column) {
      Floats<kWidth> pack;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) pack[j] = body(held[i + j], column + j);
      store(to + column, pack);
    });
  }

  template <typename Body>
  __device__ __forceinline__ void write(const HeldRow& other, T* to, Body body) const {
    each_pack([&](int i, int column) {
      Floats<kWidth> pack;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) pack[j] = body(held[i + j], other.held[i + j], column + j);
      store(to + column, pack);
    });
  }

  __device__ __forceinline__ static float sum(float value) {
    return lanes_reduce<kThreads>(value, [](float a, float b) { return a + b; });
  }
  __device__ __forceinline__ static float largest(float value) {
    return lanes_reduce<kThreads>(value, [](float a, float b) { return fmaxf(a, b); });
  }
};

template <typename T_, int kWidth_>
struct StreamedRow {
  using T = T_;
  static constexpr int kThreads = kRowThreads;
  static constexpr int kWidth = kWidth_;

  const T* from;
  int columns;  // [0, 2^31)

  // body(column) for the first of each pack that the thread owns.
  template <typename Body>
  __device__ __forceinline__ void each_pack(Body body) const {
    for (std::int64_t column = std::int64_t{threadIdx.x} * kWidth; column < columns; column += kThreads * kWidth) {
      body(static_cast<int>(column));
    }
  }

  __device__ __forceinline__ void open(const T* from_, int columns_) {
    from = from_;
    columns = columns_;
  }

  template <typename Body>
  __device__ __forceinline__ void packs(Body body) const {
    each_pack([&](int column) { body(load<kWidth>(from + column), column); });
  }

  template <typename Body>
  __device__ __forceinline__ void each(Body body) const {
    packs([&](const Floats<kWidth>& pack, int column) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) body(pack[j], column + j);
    });
  }

  __device__ __forceinline__ float pick(const T* at, std::int64_t column) const {
    return column >= 0 && column < columns ? simt::to_float(*at) : 0.0f;
  }

  template <typename Body>
  __device__ __forceinline__ void each(const StreamedRow& other, Body body) const {
    each_pack([&](int column) {
      const Floats<kWidth> a = load<kWidth>(from + column), b = load<kWidth>(other.from + column);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) body(a[j], b[j], column + j);
    });
  }

  template <typename Body>
  __device__ __forceinline__ void each(const T* other, Body body) const {
    each_pack([&](int column) {
      const Floats<kWidth> a = load<kWidth>(from + column), b = load<kWidth>(other + column);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) body(a[j], b[j], column + j);
    });
  }

  template <typename Body>
  __device__ __forceinline__ void write(T* to, Body body) const {
    each_pack([&](int column) {
      Floats<kWidth> pack = load<kWidth>(from + column);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) pack[j] = body(pack[j], column + j);
      store(to + column, pack);
    });
  }

  template <typename Body>
  __device__ __forceinline__ void write(const StreamedRow& other, T* to, Body body) const {
    each_pack([&](int column) {
      Floats<kWidth> a = load<kWidth>(from + column);
      const Floats<kWidth> b = load<kWidth>(other.from + column);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) a[j] = body(a[j], b[j], column + j);
      store(to + column, a);
    });
  }

  __device__ __forceinline__ static float sum(float value) { return block_sum<kThreads>(value); }
  __device__ __forceinline__ static float largest(float value) {
    return block_reduce<kThreads>(value, [](float a, float b) { return fmaxf(a, b); });
  }
};

// What a softmax takes from a row. A NaN among the values, an infinity, or nothing but -infinity, makes
// exp(value - largest) / sum NaN in the whole row.
struct Exponentials {
  float largest;  // of the values
  float sum;      // of exp(value - largest)
};

template <typename T, int kWidth, int kLanes>
__device__ __forceinline__ Exponentials exponentials(const HeldRow<T, kWidth, kLanes>& row) {
  using Row = HeldRow<T, kWidth, kLanes>;
  float largest = -INFINITY, sum = 0.0f;
  row.each([&](float value, int) { largest = fmaxf(largest, value); });
  largest = Row::largest(largest);
  row.each([&](float value, int) { sum += expf(value - largest); });
  return {largest, Row::sum(sum)};
}

// In one pass over memory ("online"): a thread's sum is scaled anew where a larger value comes.
template <typename T, int kWidth>
__device__ __forceinline__ Exponentials exponentials(const StreamedRow<T, kWidth>& row) {
  using Row = StreamedRow<T, kWidth>;
  float largest = -INFINITY, sum = 0.0f;
  row.each_pack([&](int column) {
    const Floats<Row::kWidth> pack = load<Row::kWidth>(row.from + column);
    float of_pack = pack[0];
#pragma unroll
    for (int j = 1; j < Row::kWidth; ++j) of_pack = fmaxf(of_pack, pack[j]);
    if (of_pack > largest) {
      sum *= expf(largest - of_pack);  // before the first number 0, or NaN
      largest = of_pack;
    }
#pragma unroll
    for (int j = 0; j < Row::kWidth; ++j) {
      sum += pack[j] == -INFINITY ? 0.0f : expf(pack[j] - largest);  // -inf - -inf would be NaN before any number
    }
  });
  const float of_row = Row::largest(largest);
  return {of_row, Row::sum(sum * expf(largest - of_row))};
}

template <typename Row_>
struct RowType {
  using type = Row_;
  static constexpr int kTogether = kRowThreads / Row_::kThreads;  // rows that a block has at a time
};

// What launch(RowType<Row>{}) returns for the kind of row that fits.   aligned: all addresses to 16 bytes
template <typename T, int kWide = kPack<T>, typename Launch>
[[nodiscard]] simt::Status with_row(bool aligned, std::int64_t columns, Launch launch) {
  const bool wide = aligned && columns % kWide == 0;
  if (columns <= kHeldColumns) {
    return wide ? launch(RowType<HeldRow<T, kWide>>{}) : launch(RowType<HeldRow<T, 1>>{});
  }
  return wide ? launch(RowType<StreamedRow<T, kWide>>{}) : launch(RowType<StreamedRow<T, 1>>{});
}

// As with_row(), with four lanes for a row where that is enough: for kernels that go on with columns = 0 beyond the
// last row, so that whole warps take part in its sums.
template <typename T, typename Launch>
[[nodiscard]] simt::Status with_slim_row(bool aligned, std::int64_t columns, Launch launch) {
  if (columns > kSlimColumns) return with_row<T>(aligned, columns, launch);
  return aligned && columns % kPack<T> == 0 ? launch(RowType<HeldRow<T, kPack<T>, kSlimLanes>>{})
                                            : launch(RowType<HeldRow<T, 1, kSlimLanes>>{});
}

}  // namespace gpucnn

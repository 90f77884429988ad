// How several arrays of one logical shape are walked through together: broadcast, strided or contiguous, with as few
// axes as that takes. Host code makes a Walk; kernels ask it where their element lies in each array.
#pragma once

#include "common/index.h"
#include "common/operand.h"
#include "simt/simt.h"

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace gpucnn {

inline constexpr int kMostAxes = 8;  // that are left when those that lie alike are merged

// The shape and strides of kArrays arrays, of the outermost axis first.
template <int kArrays>
struct Walk {
  int axes;                                 // [1, kMostAxes]
  std::int64_t length[kMostAxes];           // each at least 1
  std::int64_t stride[kArrays][kMostAxes];  // in elements; 0 where an array is repeated
  Divisor divisor[kMostAxes];               // by the lengths, but of the last axis in units of `step` elements
  std::int64_t units;                       // that a walk in steps has in all
};

template <int kArrays>
struct Offsets {
  std::int64_t of[kArrays];
};

// Where unit number `unit` in [0, units) of a walk begins in each array, in elements.
template <int kStep, int kArrays>
__device__ __forceinline__ Offsets<kArrays> offsets_of(const Walk<kArrays>& walk, std::int64_t unit) {
  Offsets<kArrays> at;
  std::int64_t rest = unit, place = 0;
#pragma unroll
  for (int i = 0; i < kArrays; ++i) at.of[i] = 0;
  for (int axis = walk.axes - 1; axis >= 0; --axis) {
    if (axis == 0) {
      place = rest;
    } else {
      const Quotient cut = walk.divisor[axis].divide(rest);
      rest = cut.whole;
      place = cut.rest;
    }
    if (axis == walk.axes - 1) place *= kStep;
#pragma unroll
    for (int i = 0; i < kArrays; ++i) at.of[i] += place * walk.stride[i][axis];
  }
  return at;
}

// The walk over `shape` (no length 0) of arrays that broadcast to it. Axes along which all arrays go on as from the
// axis before are merged with it. Throws std::invalid_argument where an array does not broadcast, where more than
// kMostAxes are left, and where one but the first is 2^31 or longer.
template <int kArrays>
Walk<kArrays> walk_of(const std::vector<std::int64_t>& shape, const Operand* operands) {
  Walk<kArrays> walk{};
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    std::int64_t steps[kArrays] = {};
    for (int i = 0; i < kArrays; ++i) {
      const Operand& operand = operands[i];
      const std::size_t missing = shape.size() - operand.shape.size();
      if (operand.shape.size() > shape.size()) throw std::invalid_argument("an array has more axes than the result");
      if (axis < missing) continue;
      const std::int64_t length = operand.shape[axis - missing];
      if (length != 1 && length != shape[axis]) throw std::invalid_argument("the shapes do not broadcast");
      if (length != 1) steps[i] = operand.strides[axis - missing];
    }
    if (shape[axis] == 1) continue;
    const int last = walk.axes - 1;
    bool merges = last >= 0 && walk.length[last] * shape[axis] < std::int64_t{1} << 31;
    if (last == 0) merges = true;  // the first axis is never divided by
    for (int i = 0; merges && i < kArrays; ++i) merges = walk.stride[i][last] == steps[i] * shape[axis];
    if (!merges && walk.axes == kMostAxes) {
      throw std::invalid_argument("the arrays lie too differently: more than " + std::to_string(kMostAxes) + " axes");
    }
    const int into = merges ? last : walk.axes++;
    walk.length[into] = merges ? walk.length[last] * shape[axis] : shape[axis];
    for (int i = 0; i < kArrays; ++i) walk.stride[i][into] = steps[i];
  }
  if (walk.axes == 0) {  // one element
    walk.axes = 1;
    walk.length[0] = 1;
  }
  for (int axis = 1; axis < walk.axes; ++axis) {
    if (walk.length[axis] >= std::int64_t{1} << 31) {
      throw std::invalid_argument("an axis of " + std::to_string(walk.length[axis]) +
                                  " elements is 2^31 or longer and not the first");
    }
  }
  return walk;
}

// The walk in steps of `step` elements of the last axis, whose length is a multiple of it.
template <int kArrays>
void set_step(Walk<kArrays>& walk, int step) {
  walk.units = 1;
  for (int axis = 0; axis < walk.axes; ++axis) {
    const std::int64_t units = axis == walk.axes - 1 ? walk.length[axis] / step : walk.length[axis];
    walk.units *= units;
    if (axis > 0) walk.divisor[axis] = divisor_of(units);
  }
}

// Whether the walk can go in steps of `pack` elements that lie together in every array, or are all the same one.
// `is_aligned[i]`: whether array i begins at a multiple of 16 bytes.
template <int kArrays>
bool walks_in_packs(const Walk<kArrays>& walk, int pack, const bool* is_aligned) {
  const int last = walk.axes - 1;
  if (walk.length[last] % pack != 0) return false;
  for (int i = 0; i < kArrays; ++i) {
    if (walk.stride[i][last] == 0) continue;
    if (walk.stride[i][last] != 1 || !is_aligned[i]) return false;
    for (int axis = 0; axis < last; ++axis) {
      if (walk.stride[i][axis] % pack != 0) return false;
    }
  }
  return true;
}

}  // namespace gpucnn

// y[i,j,...] = x[source(i), source(j), ...], or the value where mode constant has no source; and dx, the sum of dy over
// the cells that were copied from each cell. Both gather: nothing is written twice, and sums have one order.
//
// Layout   x in any order, y, dy and dx C-contiguous. Axes to which nothing is added are merged with those behind them.
// Thread   one word of y a pass over the grid, of 16, 8, 4 ... bytes where the last axes get nothing, as the channels
// of
//          images; one element of dx. Neighbours own neighbouring ones.
// Limits   8 axes once merged, each but the first shorter than 2^31 in y; dx: of 3 that get cells. Modes other than
//          constant: no negative amounts; reflect: fewer than the axis has; circular: no more.
// Bound    memory: x once, y once. N32 C64 112x112 by 1 float32, 209 MB, takes 70 us at the 3.0 TB/s that an H100
//          copies at.
// Measured not run on hardware yet.
#include "common/grid.h"
#include "common/index.h"
#include "shape/shape.h"
#include "simt/simt.h"

#include <cstdint>
#include <cstring>
#include <stdexcept>

namespace gpucnn {
namespace {

constexpr int kThreads = 256;
constexpr int kAxes = 8;

// x and y, of the outermost axis first.
struct Cells {
  int axes;  // [1, kAxes]
  PadMode mode;
  Divisor padded[kAxes];       // by the lengths of y
  std::int64_t length[kAxes];  // of x
  std::int64_t before[kAxes];
  std::int64_t x_stride[kAxes], y_stride[kAxes];
  std::int64_t units;  // elements of y, or of x for the gradient
};

// Where on an axis of `length` cells that were continued by `mode` cell `at` was copied from; -1 for nowhere.
__device__ __forceinline__ std::int64_t source_of(std::int64_t at, std::int64_t length, PadMode mode) {
  if (at >= 0 && at < length) return at;
  if (mode == PadMode::constant) return -1;
  if (mode == PadMode::replicate) return at < 0 ? 0 : length - 1;
  if (mode == PadMode::reflect) return at < 0 ? -at : 2 * (length - 1) - at;
  return at < 0 ? at + length : at - length;
}

template <typename Word>
__global__ void __launch_bounds__(kThreads)
    pad_kernel(const Word* __restrict__ x, Word* __restrict__ y, const __grid_constant__ Cells p, Word value) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < p.units; i += step) {  // [0, units)
    std::int64_t rest = i, offset = 0;
    bool inside = true;
    for (int axis = p.axes - 1; axis >= 0; --axis) {
      std::int64_t at = rest;
      if (axis > 0) {
        const Quotient cut = p.padded[axis].divide(rest);
        rest = cut.whole;
        at = cut.rest;
      }
      const std::int64_t source = source_of(at - p.before[axis], p.length[axis], p.mode);
      inside = inside && source >= 0;
      offset += source * p.x_stride[axis];
    }
    simt::vstore(y + i, inside ? simt::vload<Word>(x + offset) : value);
  }
}

// The cells of y that were copied from cell `at` of an axis: numbers [0, count), of which some are not to be had.
struct Copies {
  std::int64_t at, before, length, padded;
  PadMode mode;

  __device__ __forceinline__ std::int64_t count() const { return mode == PadMode::replicate ? 1 + edge() : 3; }

  // Of mode replicate: how many lie outside.
  __device__ __forceinline__ std::int64_t edge() const {
    const std::int64_t front = at == 0 ? before : 0;
    return front + (at == length - 1 ? padded - before - length : 0);
  }

  // Where number k is, -1 for none. Number 0 is the cell itself.
  __device__ __forceinline__ std::int64_t place(std::int64_t k) const {
    const std::int64_t own = at + before;
    if (k == 0) return own;
    if (mode == PadMode::replicate) {
      const std::int64_t front = at == 0 ? before : 0;
      return k <= front ? k - 1 : before + length + (k - front - 1);
    }
    std::int64_t found = 0;
    if (mode == PadMode::reflect) {
      if (k == 1 ? at == 0 : at == length - 1) return -1;
      found = k == 1 ? before - at : before + 2 * (length - 1) - at;
    } else {
      found = k == 1 ? own - length : own + length;
    }
    return found >= 0 && found < padded ? found : -1;
  }
};

// An axis that got cells: its number, -1 for none.
struct PaddedAxes {
  int number[kMostPaddedAxes];
};

__device__ __forceinline__ Copies copies_of(const Cells& p, int axis, std::int64_t at) {
  if (axis < 0) return {0, 0, 1, 1, PadMode::replicate};  // the cell itself
  return {at, p.before[axis], p.length[axis], p.padded[axis].value, p.mode};
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    pad_grad_kernel(const T* __restrict__ dy, T* __restrict__ dx, const __grid_constant__ Cells p,
                    const __grid_constant__ Cells inner, const PaddedAxes axes) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < inner.units; i += step) {
    std::int64_t rest = i, offset = 0, first = 0, second = 0, third = 0;
    for (int axis = p.axes - 1; axis >= 0; --axis) {
      std::int64_t at = rest;
      if (axis > 0) {
        const Quotient cut = inner.padded[axis].divide(rest);
        rest = cut.whole;
        at = cut.rest;
      }
      if (axis == axes.number[0]) {
        first = at;
      } else if (axis == axes.number[1]) {
        second = at;
      } else if (axis == axes.number[2]) {
        third = at;
      } else {
        offset += at * p.y_stride[axis];
      }
    }
    const Copies a = copies_of(p, axes.number[0], first), b = copies_of(p, axes.number[1], second),
                 c = copies_of(p, axes.number[2], third);
    const std::int64_t a_step = axes.number[0] < 0 ? 0 : p.y_stride[axes.number[0]];
    const std::int64_t b_step = axes.number[1] < 0 ? 0 : p.y_stride[axes.number[1]];
    const std::int64_t c_step = axes.number[2] < 0 ? 0 : p.y_stride[axes.number[2]];
    float sum = 0.0f;
    for (std::int64_t j = 0; j < a.count(); ++j) {
      if (a.place(j) < 0) continue;
      for (std::int64_t k = 0; k < b.count(); ++k) {
        if (b.place(k) < 0) continue;
        for (std::int64_t l = 0; l < c.count(); ++l) {
          if (c.place(l) < 0) continue;
          sum += simt::to_float(dy[offset + a.place(j) * a_step + b.place(k) * b_step + c.place(l) * c_step]);
        }
      }
    }
    dx[i] = simt::from_float<T>(sum);
  }
}

// The cells of an x of `shape` and `strides` and of its y, C-contiguous.
Cells cells_of(const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& strides,
               const Padding& padding) {
  Cells p{};
  p.mode = padding.mode;
  std::int64_t padded[kAxes] = {};
  for (std::size_t i = 0; i < shape.size(); ++i) {
    const int last = p.axes - 1;
    const bool plain = padding.before[i] == 0 && padding.after[i] == 0;
    if (plain && shape[i] == 1 && i > 0) continue;
    const bool before_is_plain = last >= 0 && p.before[last] == 0 && padded[last] == p.length[last];
    const bool merges = plain && before_is_plain && p.x_stride[last] == strides[i] * shape[i] &&
                        (last == 0 || padded[last] * shape[i] < std::int64_t{1} << 31);
    if (!merges && p.axes == kAxes) throw std::invalid_argument("pads arrays of more than 8 axes");
    const int into = merges ? last : p.axes++;
    p.length[into] = merges ? p.length[last] * shape[i] : shape[i];
    padded[into] = merges ? p.length[into] : shape[i] + padding.before[i] + padding.after[i];
    p.before[into] = padding.before[i];
    p.x_stride[into] = strides[i];
  }
  if (p.axes == 0) {
    p.axes = 1;
    p.length[0] = padded[0] = 1;
  }
  p.units = 1;
  for (int axis = p.axes - 1; axis >= 0; --axis) {
    p.y_stride[axis] = p.units;
    p.units *= padded[axis];
    if (axis > 0 && padded[axis] >= std::int64_t{1} << 31) {
      throw std::invalid_argument("pads an axis of 2^31 or more cells that is not the first");
    }
    p.padded[axis] = divisor_of(std::min(padded[axis], (std::int64_t{1} << 31) - 1));
  }
  return p;
}

// As many elements as make a word, if the last axis gets nothing; returns the word's bytes.
int widen(Cells& p, int itemsize, const void* x, const void* y) {
  const int last = p.axes - 1;
  if (p.before[last] != 0 || p.padded[last].value != p.length[last] || p.x_stride[last] != 1) return itemsize;
  const auto addresses = reinterpret_cast<std::uintptr_t>(x) | reinterpret_cast<std::uintptr_t>(y);
  const auto fits = [&](int bytes) {
    const int elements = bytes / itemsize;
    bool whole = addresses % static_cast<std::uintptr_t>(bytes) == 0 && p.length[last] % elements == 0;
    for (int axis = 0; axis < last; ++axis) whole = whole && p.x_stride[axis] % elements == 0;
    return whole;
  };
  int word = 16;
  while (word > itemsize && !fits(word)) word /= 2;
  const int elements = word / itemsize;
  p.length[last] /= elements;
  p.padded[last] = divisor_of(p.length[last]);
  p.units /= elements;
  for (int axis = 0; axis < last; ++axis) p.x_stride[axis] /= elements;
  return word;
}

template <typename Word>
simt::Status pad_words(const void* x, void* y, const Cells& p, const void* value, int itemsize, simt::Stream stream) {
  Word word{};
  for (std::size_t i = 0; i < sizeof(Word); i += static_cast<std::size_t>(itemsize)) {
    std::memcpy(reinterpret_cast<char*>(&word) + i, value, static_cast<std::size_t>(itemsize));
  }
  unsigned blocks = 0;
  if (const auto status = one_wave(p.units, kThreads, &blocks); status != simt::kSuccess) return status;
  return simt::launch(pad_kernel<Word>, dim3(blocks), dim3(kThreads), 0, stream, static_cast<const Word*>(x),
                      static_cast<Word*>(y), p, word);
}

}  // namespace

simt::Status pad(const void* x, const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& strides,
                 const Padding& padding, const void* value, int itemsize, void* y, simt::Stream stream) {
  Cells p = cells_of(shape, strides, padding);
  switch (widen(p, itemsize, x, y)) {
    case 16:
      return pad_words<uint4>(x, y, p, value, itemsize, stream);
    case 8:
      return pad_words<uint2>(x, y, p, value, itemsize, stream);
    case 4:
      return pad_words<unsigned>(x, y, p, value, itemsize, stream);
    case 2:
      return pad_words<std::uint16_t>(x, y, p, value, itemsize, stream);
    default:
      return pad_words<std::uint8_t>(x, y, p, value, itemsize, stream);
  }
}

template <typename T>
simt::Status pad_grad(const T* dy, T* dx, const std::vector<std::int64_t>& shape, const Padding& padding,
                      simt::Stream stream) {
  std::vector<std::int64_t> strides(shape.size(), 1);
  for (std::size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * shape[i];
  const Cells p = cells_of(shape, strides, padding);
  Cells inner = p;  // dx's own places
  inner.units = 1;
  PaddedAxes axes{{-1, -1, -1}};
  int found = 0;
  for (int axis = 0; axis < p.axes; ++axis) {
    inner.units *= p.length[axis];
    inner.padded[axis] = divisor_of(std::min(p.length[axis], (std::int64_t{1} << 31) - 1));
    if (p.before[axis] == 0 && p.padded[axis].value == p.length[axis]) continue;
    if (p.length[axis] >= std::int64_t{1} << 31) throw std::invalid_argument("pads an axis of 2^31 or more cells");
    if (found == kMostPaddedAxes) throw std::invalid_argument("pads more than 3 axes");
    axes.number[found++] = axis;
  }
  unsigned blocks = 0;
  if (const auto status = one_wave(inner.units, kThreads, &blocks); status != simt::kSuccess) return status;
  return simt::launch(pad_grad_kernel<T>, dim3(blocks), dim3(kThreads), 0, stream, dy, dx, p, inner, axes);
}

template simt::Status pad_grad(const float*, float*, const std::vector<std::int64_t>&, const Padding&, simt::Stream);
template simt::Status pad_grad(const simt::half*, simt::half*, const std::vector<std::int64_t>&, const Padding&,
                               simt::Stream);
template simt::Status pad_grad(const simt::bfloat16*, simt::bfloat16*, const std::vector<std::int64_t>&, const Padding&,
                               simt::Stream);

}  // namespace gpucnn

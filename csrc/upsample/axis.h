// Which pixels of one axis an interpolation reads, with which weights, and which outputs read a pixel. For .cu files.
//
// Each way of interpolating is a type with the same functions, for an output in [0, count) and a pixel in [0, size):
//
//   first(output), last(output)     the pixels that it reads: neither falls from one output to the next
//   weight(output, pixel)           what it takes of a pixel that it reads
//
// so that the outputs that read a pixel are neighbours, and holders() finds them without a table. Places are computed
// in float64, as the reference does: a weight is the fraction of a place, and of a place at 500 a float32 has but 15
// bits behind the point.
#pragma once

#include "simt/simt.h"
#include "upsample/upsample.h"

#include <cmath>
#include <cstdint>

namespace gpucnn {

// A pixel may be on both sides of an output, at the image's edge; an infinity times a weight of 0 is NaN, a pixel that
// is not read is none.
struct Weight {
  float before, after;
  bool has_before, has_after;
};

// One axis of an interpolation. `per_pixel` is 1 / step, or 0.
struct Steps {
  int size, count;
  double step, per_pixel;
};

inline Steps steps_of(std::int64_t size, std::int64_t count, double scale, bool corners) {
  double step = scale != 0 ? 1 / scale : static_cast<double>(size) / static_cast<double>(count);
  if (corners) step = count > 1 ? static_cast<double>(size - 1) / static_cast<double>(count - 1) : 0;
  return {static_cast<int>(size), static_cast<int>(count), step, step > 0 ? 1 / step : 0};
}

// floor(position), in [0, count).
__device__ __forceinline__ int clamped_floor(double position, int count) {
  if (position < 0) return 0;
  return position < count ? static_cast<int>(position) : count - 1;
}

// The pixel floor((output + offset) * step), computed in float32 as PyTorch does; or output >> shift.
struct NearestAxis : Steps {
  float step32, offset;
  int shift;  // or -1

  __device__ __forceinline__ int source(int output) const {
    if (shift >= 0) return output >> shift;
    return min(static_cast<int>((static_cast<float>(output) + offset) * step32), size - 1);
  }
  __device__ __forceinline__ int first(int output) const { return source(output); }
  __device__ __forceinline__ int last(int output) const { return source(output); }
  __device__ __forceinline__ Weight weight(int, int) const { return {1.0f, 0.0f, true, false}; }

  // About where the outputs begin and end that read a pixel.
  __device__ __forceinline__ int about_first(int pixel) const {
    return clamped_floor(pixel * per_pixel - offset, count);
  }
  __device__ __forceinline__ int about_last(int pixel) const {
    return clamped_floor((pixel + 1) * per_pixel - offset, count);
  }
};

inline NearestAxis nearest_axis(std::int64_t size, std::int64_t count, double scale, bool exact) {
  const double step = scale != 0 ? 1 / scale : static_cast<double>(size) / static_cast<double>(count);
  NearestAxis axis{steps_of(size, count, scale, false), static_cast<float>(step), exact ? 0.5f : 0.0f, -1};
  if (!exact && (count == size || count == 2 * size)) {  // PyTorch's exception, whatever the scale
    axis.shift = count == size ? 0 : 1;
    axis.per_pixel = count == size ? 1 : 2;
  }
  return axis;
}

// The two pixels about a place: (output + offset) * step - offset, with offset 1/2, or 0 where corners lie on corners.
// As many outputs as pixels are the pixels.
struct LinearAxis : Steps {
  double offset;
  double nearly;  // what a place may be off by rounding: one so near to the next whole number is meant to be that
  bool same;

  struct Blend {
    int before, after;
    float share;  // of the pixel after the place
  };

  __device__ __forceinline__ Blend blend(int output) const {
    if (same) return {output, output, 0.0f};
    double place = (output + offset) * step - offset;
    place = place < 0 ? 0 : place < size - 1 ? place : size - 1;
    const int before = static_cast<int>(place + nearly);
    const double share = place - before;
    return {before, min(before + 1, size - 1), share > 0 ? static_cast<float>(share) : 0.0f};
  }
  __device__ __forceinline__ int first(int output) const { return blend(output).before; }
  __device__ __forceinline__ int last(int output) const { return blend(output).after; }
  __device__ __forceinline__ Weight weight(int output, int pixel) const {
    const Blend b = blend(output);
    return {1.0f - b.share, b.share, b.before == pixel, b.after == pixel && !same};
  }
  __device__ __forceinline__ int about_first(int pixel) const {
    return same ? pixel : clamped_floor((pixel - 1 + offset) * per_pixel - offset, count);
  }
  __device__ __forceinline__ int about_last(int pixel) const {
    return same ? pixel : clamped_floor((pixel + 1 + offset) * per_pixel - offset, count);
  }
};

inline LinearAxis linear_axis(std::int64_t size, std::int64_t count, double scale, bool corners) {
  return {steps_of(size, count, scale, corners), corners ? 0.0 : 0.5, static_cast<double>(size) * 0x1p-50,
          size == count};
}

// The pixels about a centre, (output + 1/2) * step, with weights that fall to 0 at a distance of `width` from there and
// that are made to sum to 1. Pixels have their centres at 1/2, 3/2, ...
struct TentAxis : Steps {
  double width, per_width;
  bool same;

  __device__ __forceinline__ double centre(int output) const { return (output + 0.5) * step; }
  __device__ __forceinline__ int first(int output) const {
    if (same) return output;
    return clamped_floor(floor(centre(output) - width - 0.5) + 1, size);
  }
  __device__ __forceinline__ int last(int output) const {
    if (same) return output;
    return clamped_floor(ceil(centre(output) + width - 0.5) - 1, size);
  }
  __device__ __forceinline__ double height(double centre, int pixel) const {
    const double fallen = 1 - fabs(pixel + 0.5 - centre) * per_width;
    return fallen > 0 ? fallen : 0;
  }
  // 1 over the sum of all heights.
  __device__ __forceinline__ double norm(int output) const {
    const double middle = centre(output);
    const int end = last(output);
    double sum = 0;
    for (int pixel = first(output); pixel <= end; ++pixel) sum += height(middle, pixel);
    return 1 / sum;
  }
  __device__ __forceinline__ float share(int output, int pixel, double norm) const {
    return same ? 1.0f : static_cast<float>(height(centre(output), pixel) * norm);
  }
  __device__ __forceinline__ Weight weight(int output, int pixel) const {
    const float all = same ? 1.0f : share(output, pixel, norm(output));
    return {all, 0.0f, all > 0.0f, false};
  }
  __device__ __forceinline__ int about_first(int pixel) const {
    return same ? pixel : clamped_floor((pixel + 0.5 - width) * per_pixel - 0.5, count);
  }
  __device__ __forceinline__ int about_last(int pixel) const {
    return same ? pixel : clamped_floor((pixel + 0.5 + width) * per_pixel - 0.5, count);
  }
};

inline TentAxis tent_axis(std::int64_t size, std::int64_t count, double scale, bool corners) {
  const Steps steps = steps_of(size, count, scale, corners);
  const double width = steps.step > 1 ? steps.step : 1;
  return {steps, width, 1 / width, size == count};
}

// The outputs that read a pixel; none if first is above last.
struct Holders {
  int first, last;
};

// A guess by division, put right by looking.
template <typename Way>
__device__ __forceinline__ Holders holders(const Way& axis, int pixel) {
  Holders found{axis.about_first(pixel), axis.about_last(pixel)};
  while (found.first > 0 && axis.last(found.first - 1) >= pixel) --found.first;
  while (found.first < axis.count && axis.last(found.first) < pixel) ++found.first;
  while (found.last + 1 < axis.count && axis.first(found.last + 1) <= pixel) ++found.last;
  while (found.last >= 0 && axis.first(found.last) > pixel) --found.last;
  return found;
}

}  // namespace gpucnn

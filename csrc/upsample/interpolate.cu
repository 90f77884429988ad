// y[n,p,q,c] = sum over h, w of a(p,h) * b(q,w) * x[n,h,w,c], and dx[n,h,w,c] = sum over p, q of a(p,h) * b(q,w) *
// dy[n,p,q,c]: bilinear interpolation, of the four pixels about a place, or of all within tents about it (antialias);
// backwards also of the nearest pixel. The weights a and b are those of axis.h, computed by each thread.
//
// The backward pass gathers: the outputs that read a pixel are neighbours, which it finds by division; nothing is
// written twice, and sums have one order: along a line of outputs, then over lines.
//
// Layout   x, dx (N,H,W,C), y, dy (N,P,Q,C).
// Block    256 consecutive packs of channels of the output, whatever pixels they belong to.
// Thread   one pack: 16 bytes of neighbouring channels where they fill a pixel and both addresses are aligned, else one
//          channel. The four loads of bilinear interpolation are under way together.
// Limits   axes of at most 2^29 pixels.
// Bound    memory: each element of x and of y once, the other three reads of a pixel come from L1 and L2. 28x28 to
// 56x56
//          at N32 C256 (a U-Net's): float32 26 + 103 MB, 43 us at 3.0 TB/s either way; 16 bits 22 us. Where images
//          shrink, tents cost a few float64 operations for each pixel that they cover: arithmetic bounds them, not
//          memory.
// Measured not run on hardware yet.
#include "common/index.h"
#include "common/pixels.h"
#include "simt/simt.h"
#include "upsample/axis.h"
#include "upsample/upsample.h"

#include <cstdint>

namespace gpucnn {
namespace {

template <typename Way>
struct Interpolated {
  Way vertical, horizontal;
  PackedImages x, y;
};

template <typename Way>
Interpolated<Way> interpolated(const InterpolateProblem& p, const Way& vertical, const Way& horizontal, int each) {
  return {vertical, horizontal, packed_images(p.N, p.H, p.W, p.C, each), packed_images(p.N, p.P, p.Q, p.C, each)};
}

template <int kChannels>
__device__ __forceinline__ void add(Floats<kChannels>& sum, const Floats<kChannels>& values, float weight) {
#pragma unroll
  for (int i = 0; i < kChannels; ++i) sum[i] += weight * values[i];
}

template <int kChannels>
__device__ __forceinline__ void add(Floats<kChannels>& sum, const Floats<kChannels>& values, const Weight& weight) {
  if (weight.has_before) add(sum, values, weight.before);
  if (weight.has_after) add(sum, values, weight.after);
}

// before * (1 - share) + after * share; `before` alone along an axis that keeps its size.
template <int kChannels>
__device__ __forceinline__ Floats<kChannels> blended(const Floats<kChannels>& before, const Floats<kChannels>& after,
                                                     float share, bool same) {
  Floats<kChannels> result;
#pragma unroll
  for (int i = 0; i < kChannels; ++i) {
    result[i] = same ? before[i] : (1.0f - share) * before[i] + share * after[i];
  }
  return result;
}

template <typename T, int kChannels>
__global__ void __launch_bounds__(kPixelThreads)
    linear_fprop_kernel(const Interpolated<LinearAxis> g, const T* __restrict__ x, T* __restrict__ y) {
  const std::int64_t index = pack_index();
  if (index >= g.y.count) return;
  const PackPlace to = place_of<kChannels>(g.y, index);
  const LinearAxis::Blend rows = g.vertical.blend(to.pixel.row), columns = g.horizontal.blend(to.pixel.column);
  const auto at = [&](int row, int column) {
    return load<kChannels>(x + g.x.images.offset({to.pixel.image, row, column}) + to.channel);
  };
  const Floats<kChannels> upper_left = at(rows.before, columns.before), upper_right = at(rows.before, columns.after);
  const Floats<kChannels> lower_left = at(rows.after, columns.before), lower_right = at(rows.after, columns.after);
  const Floats<kChannels> upper = blended(upper_left, upper_right, columns.share, g.horizontal.same);
  const Floats<kChannels> lower = blended(lower_left, lower_right, columns.share, g.horizontal.same);
  store(y + index * kChannels, blended(upper, lower, rows.share, g.vertical.same));
}

template <typename T, int kChannels>
__global__ void __launch_bounds__(kPixelThreads)
    tent_fprop_kernel(const Interpolated<TentAxis> g, const T* __restrict__ x, T* __restrict__ y) {
  const std::int64_t index = pack_index();
  if (index >= g.y.count) return;
  const PackPlace to = place_of<kChannels>(g.y, index);
  const int p = to.pixel.row, q = to.pixel.column;
  const int top = g.vertical.first(p), bottom = g.vertical.last(p);
  const int left = g.horizontal.first(q), right = g.horizontal.last(q);
  const double row_norm = g.vertical.norm(p), column_norm = g.horizontal.norm(q);
  Floats<kChannels> sum = filled<kChannels>(0.0f);
  for (int row = top; row <= bottom; ++row) {
    const float row_share = g.vertical.share(p, row, row_norm);
    if (row_share == 0.0f) continue;  // by rounding: such a pixel is not read
    Floats<kChannels> line = filled<kChannels>(0.0f);
    for (int column = left; column <= right; ++column) {
      const float share = g.horizontal.share(q, column, column_norm);
      if (share == 0.0f) continue;
      add(line, load<kChannels>(x + g.x.images.offset({to.pixel.image, row, column}) + to.channel), share);
    }
    add(sum, line, row_share);
  }
  store(y + index * kChannels, sum);
}

template <typename T, int kChannels, typename Way>
__global__ void __launch_bounds__(kPixelThreads)
    interpolate_dgrad_kernel(const Interpolated<Way> g, const T* __restrict__ dy, T* __restrict__ dx) {
  const std::int64_t index = pack_index();
  if (index >= g.x.count) return;
  const PackPlace cell = place_of<kChannels>(g.x, index);
  const Holders rows = holders(g.vertical, cell.pixel.row), columns = holders(g.horizontal, cell.pixel.column);
  Floats<kChannels> sum = filled<kChannels>(0.0f);
  for (int p = rows.first; p <= rows.last; ++p) {
    Floats<kChannels> line = filled<kChannels>(0.0f);
    for (int q = columns.first; q <= columns.last; ++q) {
      const Floats<kChannels> gradient =
          load<kChannels>(dy + g.y.images.offset({cell.pixel.image, p, q}) + cell.channel);
      add(line, gradient, g.horizontal.weight(q, cell.pixel.column));
    }
    add(sum, line, g.vertical.weight(p, cell.pixel.row));
  }
  store(dx + index * kChannels, sum);
}

template <typename T, typename Way>
simt::Status dgrad(const InterpolateProblem& p, const Way& vertical, const Way& horizontal, const T* dy, T* dx,
                   simt::Stream stream) {
  return by_width<kPack<T>>(
      p.C,
      [&](auto channels) {
        constexpr int kChannels = decltype(channels)::value;
        const auto g = interpolated(p, vertical, horizontal, kChannels);
        return launch_packs(interpolate_dgrad_kernel<T, kChannels, Way>, g.x.count, stream, g, dy, dx);
      },
      dy, dx);
}

}  // namespace

template <typename T>
simt::Status interpolate_weighted_fprop(const InterpolateProblem& p, const T* x, T* y, simt::Stream stream) {
  const bool corners = p.how == Interpolation::bilinear_corners || p.how == Interpolation::tents_corners;
  const bool tents = p.how == Interpolation::tents || p.how == Interpolation::tents_corners;
  return by_width<kPack<T>>(
      p.C,
      [&](auto channels) {
        constexpr int kChannels = decltype(channels)::value;
        if (tents) {
          const auto g = interpolated(p, tent_axis(p.H, p.P, p.scale.vertical, corners),
                                      tent_axis(p.W, p.Q, p.scale.horizontal, corners), kChannels);
          return launch_packs(tent_fprop_kernel<T, kChannels>, g.y.count, stream, g, x, y);
        }
        const auto g = interpolated(p, linear_axis(p.H, p.P, p.scale.vertical, corners),
                                    linear_axis(p.W, p.Q, p.scale.horizontal, corners), kChannels);
        return launch_packs(linear_fprop_kernel<T, kChannels>, g.y.count, stream, g, x, y);
      },
      x, y);
}

template <typename T>
simt::Status interpolate_dgrad(const InterpolateProblem& p, const T* dy, T* dx, simt::Stream stream) {
  const auto along = [&](auto axis, bool way) {
    return dgrad(p, axis(p.H, p.P, p.scale.vertical, way), axis(p.W, p.Q, p.scale.horizontal, way), dy, dx, stream);
  };
  switch (p.how) {
    case Interpolation::nearest:
    case Interpolation::nearest_exact:
      return along(nearest_axis, p.how == Interpolation::nearest_exact);
    case Interpolation::tents:
    case Interpolation::tents_corners:
      return along(tent_axis, p.how == Interpolation::tents_corners);
    default:
      return along(linear_axis, p.how == Interpolation::bilinear_corners);
  }
}

#define GPUCNN_INSTANTIATE(T)                                                                              \
  template simt::Status interpolate_weighted_fprop(const InterpolateProblem&, const T*, T*, simt::Stream); \
  template simt::Status interpolate_dgrad(const InterpolateProblem&, const T*, T*, simt::Stream);
GPUCNN_INSTANTIATE(float)
GPUCNN_INSTANTIATE(simt::half)
GPUCNN_INSTANTIATE(simt::bfloat16)

}  // namespace gpucnn

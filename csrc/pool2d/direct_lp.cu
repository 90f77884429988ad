// y[n,p,q,c] = sums[n,p,q,c]^(1/norm), sums = R*S/cells * (sum over the window's cells in the image of x^norm), where
// cells is their number; and dx[n,h,w,c] = x^(norm-1) * (sum over the windows that hold (h,w), and whose sum is not 0,
// of R*S/cells * sums^(1/norm-1) * dy). Powers of x, not of |x|, as PyTorch has it.
//
// Layout   x, dx (N,H,W,C), y, dy, sums (N,P,Q,C); sums are float32.
// Block    256 consecutive packs of channels of the output, whatever pixels they belong to.
// Thread   one pack: four neighbouring channels where they fill a pixel and all addresses are aligned, else one
// channel.
//          Four, whatever the type, since their sums are 16 bytes: with more a warp's accesses would have gaps. Powers
//          1, 2, 1/2 and -1/2 are a few instructions, others a call of powf (one for each channel and tap, some 40
//          instructions).
// Limits   what check() in problem.h asks for, dilation 1, a finite norm other than 0.
// Bound    memory with norm 1 or 2: an element of x and of y and four bytes for its sum. 2x2 with stride 2 on N32 C64
//          112x112: float32 103 + 26 + 26 MB, 51 us at 3.0 TB/s. Other norms: the powers, 26 M of them twice over.
// Measured not run on hardware yet.
#include "common/pixels.h"
#include "pool2d/pool2d.h"
#include "pool2d/pooling.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kTogether = 4;  // channels of a pack

__device__ __forceinline__ float power(float value, float exponent) {
  if (exponent == 1.0f) return value;
  if (exponent == 2.0f) return value * value;
  if (exponent == 0.5f) return sqrtf(value);
  if (exponent == -0.5f) return 1.0f / sqrtf(value);
  return powf(value, exponent);
}

// R * S over the number of the window's cells in the image.
__device__ __forceinline__ float scale_of(const Pooling& p, int row, int column) {
  const auto cells = [](const WindowAxis& axis, int window) {
    const int first = axis.first_cell(window);
    return min(first + axis.kernel, axis.size + axis.padding) - first;
  };
  return static_cast<float>(p.vertical.kernel * p.horizontal.kernel) /
         static_cast<float>(cells(p.vertical, row) * cells(p.horizontal, column));
}

template <typename T, int kChannels>
__global__ void __launch_bounds__(kPixelThreads)
    lp_fprop_kernel(const Pooling p, float norm, float root, const T* __restrict__ x, T* __restrict__ y,
                    float* __restrict__ sums) {
  const std::int64_t index = pack_index();
  if (index >= p.y.count) return;
  const PackPlace window = place_of<kChannels>(p.y, index);
  const int top = p.vertical.first_cell(window.pixel.row), left = p.horizontal.first_cell(window.pixel.column);
  const int bottom = min(top + p.vertical.kernel, p.vertical.size);
  const int right = min(left + p.horizontal.kernel, p.horizontal.size);
  const T* const image = x + p.x.images.offset({window.pixel.image, 0, 0}) + window.channel;

  Floats<kChannels> sum = filled<kChannels>(0.0f);
  for (int row = max(top, 0); row < bottom; ++row) {
    for (int column = max(left, 0); column < right; ++column) {
      const Floats<kChannels> cells = load<kChannels>(image + p.x.images.offset({0, row, column}));
#pragma unroll
      for (int i = 0; i < kChannels; ++i) sum[i] += power(cells[i], norm);
    }
  }
  const float scale = scale_of(p, window.pixel.row, window.pixel.column);
  Floats<kChannels> result;
#pragma unroll
  for (int i = 0; i < kChannels; ++i) {
    sum[i] *= scale;
    result[i] = power(sum[i], root);
  }
  store(sums + index * kChannels, sum);
  store(y + index * kChannels, result);
}

template <typename T, int kChannels>
__global__ void __launch_bounds__(kPixelThreads)
    lp_dgrad_kernel(const Pooling p, float inner, float outer, const T* __restrict__ dy, const T* __restrict__ x,
                    const float* __restrict__ sums, T* __restrict__ dx) {
  const std::int64_t index = pack_index();
  if (index >= p.x.count) return;
  const PackPlace cell = place_of<kChannels>(p.x, index);
  const std::int64_t image = p.y.images.offset({cell.pixel.image, 0, 0}) + cell.channel;

  Floats<kChannels> total = filled<kChannels>(0.0f);
  for (Meeting row = first_meeting(p.vertical, cell.pixel.row); row.holds(p.vertical); row.next(p.vertical)) {
    for (Meeting column = first_meeting(p.horizontal, cell.pixel.column); column.holds(p.horizontal);
         column.next(p.horizontal)) {
      const std::int64_t window = image + p.y.images.offset({0, row.window, column.window});
      const float scale = scale_of(p, row.window, column.window);
      const Floats<kChannels> gradient = load<kChannels>(dy + window), sum = load<kChannels>(sums + window);
#pragma unroll
      for (int i = 0; i < kChannels; ++i) {
        total[i] += sum[i] != 0.0f ? power(sum[i], outer) * scale * gradient[i] : 0.0f;
      }
    }
  }
  const Floats<kChannels> cells = load<kChannels>(x + index * kChannels);
#pragma unroll
  for (int i = 0; i < kChannels; ++i) total[i] *= power(cells[i], inner);
  store(dx + index * kChannels, total);
}

}  // namespace

template <typename T>
simt::Status lp_pool2d_direct_fprop(const Pool2dProblem& p, double norm, const T* x, T* y, float* sums,
                                    simt::Stream stream) {
  return by_width<kTogether>(
      p.C,
      [&](auto channels) {
        constexpr int kChannels = decltype(channels)::value;
        const Pooling pooling = pooling_of(p, kChannels);
        return launch_packs(lp_fprop_kernel<T, kChannels>, pooling.y.count, stream, pooling, static_cast<float>(norm),
                            static_cast<float>(1 / norm), x, y, sums);
      },
      x, y, sums);
}

template <typename T>
simt::Status lp_pool2d_direct_dgrad(const Pool2dProblem& p, double norm, const T* dy, const T* x, const float* sums,
                                    T* dx, simt::Stream stream) {
  return by_width<kTogether>(
      p.C,
      [&](auto channels) {
        constexpr int kChannels = decltype(channels)::value;
        const Pooling pooling = pooling_of(p, kChannels);
        return launch_packs(lp_dgrad_kernel<T, kChannels>, pooling.x.count, stream, pooling,
                            static_cast<float>(norm - 1), static_cast<float>(1 / norm - 1), dy, x, sums, dx);
      },
      dy, x, sums, dx);
}

#define GPUCNN_INSTANTIATE(T)                                                                                      \
  template simt::Status lp_pool2d_direct_fprop(const Pool2dProblem&, double, const T*, T*, float*, simt::Stream);  \
  template simt::Status lp_pool2d_direct_dgrad(const Pool2dProblem&, double, const T*, const T*, const float*, T*, \
                                               simt::Stream);
GPUCNN_INSTANTIATE(float)
GPUCNN_INSTANTIATE(simt::half)
GPUCNN_INSTANTIATE(simt::bfloat16)

}  // namespace gpucnn

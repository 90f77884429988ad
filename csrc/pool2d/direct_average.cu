// y[n,p,q,c] = (sum over r, s of x[n, p*stride-padding+r, q*stride-padding+s, c], 0 outside the image) / divisor(p,q);
// and dx[n,h,w,c], the sum of dy / divisor over the windows that hold (h,w).
//
// divisor(p,q) is the number of the window's cells in the image, with padding_counts of those in the stated padding
// too (what ceil_mode adds beyond never counts), or one number for all. Both passes gather: nothing is written twice,
// sums have one order, that of the taps.
//
// Layout   x, dx (N,H,W,C), y, dy (N,P,Q,C).
// Block    256 consecutive packs of channels of the output, whatever pixels they belong to.
// Thread   one pack: 16 bytes of neighbouring channels where they fill a pixel and all addresses are aligned, else one
//          channel. Windows of 2 x 2 and 3 x 3 taps are unrolled, and so are cells of at most 1 or 2 windows an axis:
//          their loads are all under way together.
// Limits   what check() in problem.h asks for, dilation 1.
// Bound    memory: an element of x and one of y. 2x2 with stride 2 on N32 C128 56x56 (DenseNet's transition): float32
//          51 + 13 MB, 21 us at 3.0 TB/s either way; 16 bits 11 us.
// Measured not run on hardware yet.
#include "common/pixels.h"
#include "pool2d/pool2d.h"
#include "pool2d/pooling.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {
namespace {

// Cells of a window along one axis: those in the image, and with `padding_counts` those in the padding.
__device__ __forceinline__ int cells_of(const WindowAxis& axis, int window, bool padding_counts) {
  const int first = axis.first_cell(window), end = min(first + axis.kernel, axis.size + axis.padding);
  return padding_counts ? end - first : min(end, axis.size) - max(first, 0);
}

__device__ __forceinline__ float divisor_at(const Pooling& p, const AverageDivisor& divisor, int row, int column) {
  if (divisor.every != 0.0f) return divisor.every;
  return static_cast<float>(cells_of(p.vertical, row, divisor.padding_counts) *
                            cells_of(p.horizontal, column, divisor.padding_counts));
}

template <int kChannels>
__device__ __forceinline__ void add(Floats<kChannels>& sum, const Floats<kChannels>& values, bool really = true) {
#pragma unroll
  for (int i = 0; i < kChannels; ++i) sum[i] += really ? values[i] : 0.0f;
}

// kTaps: those of a square window, or 0.
template <typename T, int kChannels, int kTaps>
__global__ void __launch_bounds__(kPixelThreads)
    average_fprop_kernel(const Pooling p, const AverageDivisor divisor, const T* __restrict__ x, T* __restrict__ y) {
  const std::int64_t index = pack_index();
  if (index >= p.y.count) return;
  const PackPlace window = place_of<kChannels>(p.y, index);
  const WindowAxis &vertical = p.vertical, &horizontal = p.horizontal;
  const int top = vertical.first_cell(window.pixel.row), left = horizontal.first_cell(window.pixel.column);
  const T* const image = x + p.x.images.offset({window.pixel.image, 0, 0}) + window.channel;

  const float divide_by = divisor_at(p, divisor, window.pixel.row, window.pixel.column), inverse = 1.0f / divide_by;
  Floats<kChannels> sum = filled<kChannels>(0.0f);
  if constexpr (kTaps > 0) {
    Floats<kChannels> cells[kTaps][kTaps];
#pragma unroll
    for (int r = 0; r < kTaps; ++r) {
#pragma unroll
      for (int s = 0; s < kTaps; ++s) {  // a cell outside the image is one at its edge, not added
        const int row = vertical.nearest_cell(top + r), column = horizontal.nearest_cell(left + s);
        cells[r][s] = load<kChannels>(image + p.x.images.offset({0, row, column}));
      }
    }
#pragma unroll
    for (int r = 0; r < kTaps; ++r) {
#pragma unroll
      for (int s = 0; s < kTaps; ++s) {
        add(sum, cells[r][s], vertical.contains(top + r) && horizontal.contains(left + s));
      }
    }
  } else {
    const int bottom = min(top + vertical.kernel, vertical.size),
              right = min(left + horizontal.kernel, horizontal.size);
    for (int row = max(top, 0); row < bottom; ++row) {
      for (int column = max(left, 0); column < right; ++column) {
        add(sum, load<kChannels>(image + p.x.images.offset({0, row, column})));
      }
    }
  }
  store(y + index * kChannels, divided(sum, divide_by, inverse));
}

// kWindows: the most windows that hold a cell along either axis, or 0.
template <typename T, int kChannels, int kWindows>
__global__ void __launch_bounds__(kPixelThreads)
    average_dgrad_kernel(const Pooling p, const AverageDivisor divisor, const T* __restrict__ dy, T* __restrict__ dx) {
  const std::int64_t index = pack_index();
  if (index >= p.x.count) return;
  const PackPlace cell = place_of<kChannels>(p.x, index);
  const WindowAxis &vertical = p.vertical, &horizontal = p.horizontal;
  const T* const image = dy + p.y.images.offset({cell.pixel.image, 0, 0}) + cell.channel;

  Floats<kChannels> sum = filled<kChannels>(0.0f);
  if constexpr (kWindows > 0) {
    Floats<kChannels> shares[kWindows][kWindows];
    float divisors[kWindows][kWindows];
    Meeting rows = first_meeting(vertical, cell.pixel.row);
#pragma unroll
    for (int i = 0; i < kWindows; ++i) {
      Meeting columns = first_meeting(horizontal, cell.pixel.column);
#pragma unroll
      for (int j = 0; j < kWindows; ++j) {
        shares[i][j] = filled<kChannels>(0.0f);
        if (rows.holds(vertical) && columns.holds(horizontal)) {
          shares[i][j] = load<kChannels>(image + p.y.images.offset({0, rows.window, columns.window}));
        }
        divisors[i][j] = divisor_at(p, divisor, max(rows.window, 0), max(columns.window, 0));
        columns.next(horizontal);
      }
      rows.next(vertical);
    }
#pragma unroll
    for (int i = 0; i < kWindows; ++i) {
#pragma unroll
      for (int j = 0; j < kWindows; ++j) add(sum, divided(shares[i][j], divisors[i][j], 1.0f / divisors[i][j]));
    }
  } else {
    for (Meeting row = first_meeting(vertical, cell.pixel.row); row.holds(vertical); row.next(vertical)) {
      for (Meeting column = first_meeting(horizontal, cell.pixel.column); column.holds(horizontal);
           column.next(horizontal)) {
        const Floats<kChannels> gradient = load<kChannels>(image + p.y.images.offset({0, row.window, column.window}));
        const float divide_by = divisor_at(p, divisor, row.window, column.window);
        add(sum, divided(gradient, divide_by, 1.0f / divide_by));
      }
    }
  }
  store(dx + index * kChannels, sum);
}

template <typename T, int kChannels, int kTaps>
simt::Status fprop(const Pool2dProblem& p, const AverageDivisor& divisor, const T* x, T* y, simt::Stream stream) {
  const Pooling pooling = pooling_of(p, kChannels);
  return launch_packs(average_fprop_kernel<T, kChannels, kTaps>, pooling.y.count, stream, pooling, divisor, x, y);
}

template <typename T, int kChannels, int kWindows>
simt::Status dgrad(const Pool2dProblem& p, const AverageDivisor& divisor, const T* dy, T* dx, simt::Stream stream) {
  const Pooling pooling = pooling_of(p, kChannels);
  return launch_packs(average_dgrad_kernel<T, kChannels, kWindows>, pooling.x.count, stream, pooling, divisor, dy, dx);
}

}  // namespace

template <typename T>
simt::Status avg_pool2d_direct_fprop(const Pool2dProblem& p, const AverageDivisor& divisor, const T* x, T* y,
                                     simt::Stream stream) {
  const bool wide = p.C % kPack<T> == 0 && are_aligned(x, y);
  if (!wide) return fprop<T, 1, 0>(p, divisor, x, y, stream);
  if (square_taps(p) == 2) return fprop<T, kPack<T>, 2>(p, divisor, x, y, stream);
  if (square_taps(p) == 3) return fprop<T, kPack<T>, 3>(p, divisor, x, y, stream);
  return fprop<T, kPack<T>, 0>(p, divisor, x, y, stream);
}

template <typename T>
simt::Status avg_pool2d_direct_dgrad(const Pool2dProblem& p, const AverageDivisor& divisor, const T* dy, T* dx,
                                     simt::Stream stream) {
  const bool wide = p.C % kPack<T> == 0 && are_aligned(dy, dx);
  if (!wide) return dgrad<T, 1, 0>(p, divisor, dy, dx, stream);
  if (most_windows(p) == 1) return dgrad<T, kPack<T>, 1>(p, divisor, dy, dx, stream);
  if (most_windows(p) == 2) return dgrad<T, kPack<T>, 2>(p, divisor, dy, dx, stream);
  return dgrad<T, kPack<T>, 0>(p, divisor, dy, dx, stream);
}

#define GPUCNN_INSTANTIATE(T)                                                                              \
  template simt::Status avg_pool2d_direct_fprop(const Pool2dProblem&, const AverageDivisor&, const T*, T*, \
                                                simt::Stream);                                             \
  template simt::Status avg_pool2d_direct_dgrad(const Pool2dProblem&, const AverageDivisor&, const T*, T*, \
                                                simt::Stream);
GPUCNN_INSTANTIATE(float)
GPUCNN_INSTANTIATE(simt::half)
GPUCNN_INSTANTIATE(simt::bfloat16)

}  // namespace gpucnn

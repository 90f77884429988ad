// y[n,p,q,c] = the average, or the maximum, of x[n,h,w,c] over the rows floor(p*H/P) <= h < ceil((p+1)*H/P) and the
// columns floor(q*W/Q) <= w < ceil((q+1)*W/Q); of maxima also where they lie; and dx[n,h,w,c], the sum over the windows
// that hold (h,w) of dy over their number of cells, or of dy where the maximum lies on (h,w).
//
// Which windows hold a cell follows the same rule as which cells a window holds, with sizes exchanged: so the backward
// passes gather, nothing is written twice, and sums have one order.
//
// Layout   x, dx (N,H,W,C), y, dy, indices (N,P,Q,C).
// Block    256 consecutive packs of channels of the output, whatever pixels they belong to.
// Thread   one pack: of averages 16 bytes of neighbouring channels; of maxima two channels, whose indices are 16 bytes;
//          where packs do not fill a pixel or an address is not aligned, one channel.
// Limits   sizes in [1, 2^31); N, C, P and Q may be 0.
// Bound    memory: each element of x and y once, of indices too; cells that windows share come from L2 the second time.
//          7x7 of 16x16 at N32 C512 (VGG's on larger images): float32 17 + 3 MB, 6.7 us at 3.0 TB/s; 16 bits 3.3 us.
// Measured not run on hardware yet.
#include "adaptive_pool2d/adaptive_pool2d.h"
#include "common/index.h"
#include "common/pixels.h"
#include "simt/simt.h"

#include <algorithm>
#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kResident = 4;  // blocks of a multiprocessor: 64 registers a thread, where ptxas would rather spill

// From `first` up to, not including, `end`.
struct Span {
  int first, end;
};

// `parts` spans over `size` positions: H and P, or the other way round for the windows of a cell.
struct Spans {
  int size;
  Divisor parts;

  __device__ __forceinline__ Span operator[](int part) const {
    const std::int64_t start = std::int64_t{part} * size;
    return {static_cast<int>(parts.divide(start).whole),
            static_cast<int>(parts.divide(start + size + parts.value - 1).whole)};
  }
};

struct Adaptive {
  Spans rows, columns;                    // of a window
  Spans vertical_windows, other_windows;  // of a cell: those above each other, those side by side
  PackedImages x, y;
};

Adaptive adaptive_of(const AdaptivePool2dProblem& p, int each) {
  const auto spans = [](std::int64_t size, std::int64_t parts) {
    return Spans{static_cast<int>(size), divisor_of(std::max<std::int64_t>(parts, 1))};
  };
  return {spans(p.H, p.P),
          spans(p.W, p.Q),
          spans(p.P, p.H),
          spans(p.Q, p.W),
          packed_images(p.N, p.H, p.W, p.C, each),
          packed_images(p.N, p.P, p.Q, p.C, each)};
}

template <typename T, int kChannels>
__global__ void __launch_bounds__(kPixelThreads, kResident)
    adaptive_average_fprop_kernel(const Adaptive a, const T* __restrict__ x, T* __restrict__ y) {
  const std::int64_t index = pack_index();
  if (index >= a.y.count) return;
  const PackPlace window = place_of<kChannels>(a.y, index);
  const Span rows = a.rows[window.pixel.row], columns = a.columns[window.pixel.column];
  const T* const image = x + a.x.images.offset({window.pixel.image, 0, 0}) + window.channel;
  const float count = static_cast<float>(rows.end - rows.first) * static_cast<float>(columns.end - columns.first);
  const float inverse = 1.0f / count;
  Floats<kChannels> sum = filled<kChannels>(0.0f);
  for (int row = rows.first; row < rows.end; ++row) {
    for (int column = columns.first; column < columns.end; ++column) {
      const Floats<kChannels> cells = load<kChannels>(image + a.x.images.offset({0, row, column}));
#pragma unroll
      for (int i = 0; i < kChannels; ++i) sum[i] += cells[i];
    }
  }
  store(y + index * kChannels, divided(sum, count, inverse));
}

template <typename T, int kChannels>
__global__ void __launch_bounds__(kPixelThreads, kResident)
    adaptive_average_dgrad_kernel(const Adaptive a, const T* __restrict__ dy, T* __restrict__ dx) {
  const std::int64_t index = pack_index();
  if (index >= a.x.count) return;
  const PackPlace cell = place_of<kChannels>(a.x, index);
  const Span above = a.vertical_windows[cell.pixel.row], beside = a.other_windows[cell.pixel.column];
  const T* const image = dy + a.y.images.offset({cell.pixel.image, 0, 0}) + cell.channel;
  Floats<kChannels> sum = filled<kChannels>(0.0f);
  for (int row = above.first; row < above.end; ++row) {
    const Span rows = a.rows[row];
    for (int column = beside.first; column < beside.end; ++column) {
      const Span columns = a.columns[column];
      const float count = static_cast<float>(rows.end - rows.first) * static_cast<float>(columns.end - columns.first);
      const Floats<kChannels> gradient = load<kChannels>(image + a.y.images.offset({0, row, column}));
      const Floats<kChannels> share = divided(gradient, count, 1.0f / count);
#pragma unroll
      for (int i = 0; i < kChannels; ++i) sum[i] += share[i];
    }
  }
  store(dx + index * kChannels, sum);
}

struct alignas(16) TwoIndices {
  long long first, second;
};

template <int kChannels>
struct Indices {
  long long value[kChannels];
};

template <int kChannels>
__device__ __forceinline__ Indices<kChannels> load_indices(const std::int64_t* p) {
  if constexpr (kChannels == 2) {
    const auto both = simt::vload<TwoIndices>(p);
    return {{both.first, both.second}};
  } else {
    return {{*p}};
  }
}

template <int kChannels>
__device__ __forceinline__ void store_indices(std::int64_t* p, const Indices<kChannels>& indices) {
  if constexpr (kChannels == 2) {
    simt::vstore(p, TwoIndices{indices.value[0], indices.value[1]});
  } else {
    *p = indices.value[0];
  }
}

template <typename T, int kChannels>
__global__ void __launch_bounds__(kPixelThreads, kResident)
    adaptive_max_fprop_kernel(const Adaptive a, const T* __restrict__ x, T* __restrict__ y,
                              std::int64_t* __restrict__ indices) {
  const std::int64_t index = pack_index();
  if (index >= a.y.count) return;
  const PackPlace window = place_of<kChannels>(a.y, index);
  const Span rows = a.rows[window.pixel.row], columns = a.columns[window.pixel.column];
  const T* const image = x + a.x.images.offset({window.pixel.image, 0, 0}) + window.channel;
  Floats<kChannels> best = filled<kChannels>(-INFINITY);
  Indices<kChannels> place;
#pragma unroll
  for (int i = 0; i < kChannels; ++i) {
    place.value[i] = static_cast<long long>(rows.first) * a.x.images.columns.value + columns.first;
  }
  for (int row = rows.first; row < rows.end; ++row) {
    const T* cell = image + a.x.images.offset({0, row, columns.first});
    long long here = static_cast<long long>(row) * a.x.images.columns.value + columns.first;
    const long long end = here + columns.end - columns.first;
    for (; here < end; ++here, cell += a.x.images.channels.value) {
      const Floats<kChannels> cells = load<kChannels>(cell);
#pragma unroll
      for (int i = 0; i < kChannels; ++i) {
        if (cells[i] > best[i] || cells[i] != cells[i]) {
          best[i] = cells[i];
          place.value[i] = here;
        }
      }
    }
  }
  store(y + index * kChannels, best);
  store_indices(indices + index * kChannels, place);
}

template <typename T, int kChannels>
__global__ void __launch_bounds__(kPixelThreads, kResident)
    adaptive_max_dgrad_kernel(const Adaptive a, const T* __restrict__ dy, const std::int64_t* __restrict__ indices,
                              T* __restrict__ dx) {
  const std::int64_t index = pack_index();
  if (index >= a.x.count) return;
  const PackPlace cell = place_of<kChannels>(a.x, index);
  const Span above = a.vertical_windows[cell.pixel.row], beside = a.other_windows[cell.pixel.column];
  const std::int64_t image = a.y.images.offset({cell.pixel.image, 0, 0}) + cell.channel;
  const long long own = static_cast<long long>(cell.pixel.row) * a.x.images.columns.value + cell.pixel.column;
  Floats<kChannels> sum = filled<kChannels>(0.0f);
  for (int row = above.first; row < above.end; ++row) {
    std::int64_t window = image + a.y.images.offset({0, row, beside.first});
    for (int column = beside.first; column < beside.end; ++column, window += a.y.images.channels.value) {
      const Floats<kChannels> gradient = load<kChannels>(dy + window);
      const Indices<kChannels> place = load_indices<kChannels>(indices + window);
#pragma unroll
      for (int i = 0; i < kChannels; ++i) sum[i] += place.value[i] == own ? gradient[i] : 0.0f;
    }
  }
  store(dx + index * kChannels, sum);
}

}  // namespace

template <typename T>
simt::Status adaptive_avg_pool2d_fprop(const AdaptivePool2dProblem& p, const T* x, T* y, simt::Stream stream) {
  return by_width<kPack<T>>(
      p.C,
      [&](auto channels) {
        constexpr int kChannels = decltype(channels)::value;
        const Adaptive a = adaptive_of(p, kChannels);
        return launch_packs(adaptive_average_fprop_kernel<T, kChannels>, a.y.count, stream, a, x, y);
      },
      x, y);
}

template <typename T>
simt::Status adaptive_avg_pool2d_dgrad(const AdaptivePool2dProblem& p, const T* dy, T* dx, simt::Stream stream) {
  return by_width<kPack<T>>(
      p.C,
      [&](auto channels) {
        constexpr int kChannels = decltype(channels)::value;
        const Adaptive a = adaptive_of(p, kChannels);
        return launch_packs(adaptive_average_dgrad_kernel<T, kChannels>, a.x.count, stream, a, dy, dx);
      },
      dy, dx);
}

template <typename T>
simt::Status adaptive_max_pool2d_fprop(const AdaptivePool2dProblem& p, const T* x, T* y, std::int64_t* indices,
                                       simt::Stream stream) {
  return by_width<2>(
      p.C,
      [&](auto channels) {
        constexpr int kChannels = decltype(channels)::value;
        const Adaptive a = adaptive_of(p, kChannels);
        return launch_packs(adaptive_max_fprop_kernel<T, kChannels>, a.y.count, stream, a, x, y, indices);
      },
      x, y, indices);
}

template <typename T>
simt::Status adaptive_max_pool2d_dgrad(const AdaptivePool2dProblem& p, const T* dy, const std::int64_t* indices, T* dx,
                                       simt::Stream stream) {
  return by_width<2>(
      p.C,
      [&](auto channels) {
        constexpr int kChannels = decltype(channels)::value;
        const Adaptive a = adaptive_of(p, kChannels);
        return launch_packs(adaptive_max_dgrad_kernel<T, kChannels>, a.x.count, stream, a, dy, indices, dx);
      },
      dy, indices, dx);
}

#define GPUCNN_INSTANTIATE(T)                                                                                      \
  template simt::Status adaptive_avg_pool2d_fprop(const AdaptivePool2dProblem&, const T*, T*, simt::Stream);       \
  template simt::Status adaptive_avg_pool2d_dgrad(const AdaptivePool2dProblem&, const T*, T*, simt::Stream);       \
  template simt::Status adaptive_max_pool2d_fprop(const AdaptivePool2dProblem&, const T*, T*, std::int64_t*,       \
                                                  simt::Stream);                                                   \
  template simt::Status adaptive_max_pool2d_dgrad(const AdaptivePool2dProblem&, const T*, const std::int64_t*, T*, \
                                                  simt::Stream);
GPUCNN_INSTANTIATE(float)
GPUCNN_INSTANTIATE(simt::half)
GPUCNN_INSTANTIATE(simt::bfloat16)

}  // namespace gpucnn

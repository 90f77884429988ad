// y[n,p,q,c] = max over r, s of x[n, p*stride-padding+r*dilation, q*..., c], over the taps that lie in the image; which
// tap that was; where it lies; and dx[n,h,w,c], the sum of dy over the windows whose winner lies on (h,w).
//
// The backward pass gathers: a cell asks every window that it is in, so nothing is written twice and the sum has one
// order, that of the taps.
//
// Layout   x, dx (N,H,W,C), y, dy, winners, indices (N,P,Q,C).
// Block    256 consecutive packs of channels of the output, whatever pixels they belong to.
// Thread   one pack: 16 bytes of neighbouring channels where they fill a pixel and all addresses are aligned, else one
//          channel. Windows of 2 x 2 and 3 x 3 taps are unrolled, and so are cells of at most 1 or 2 windows an axis:
//          their loads are all under way together. Of indices a thread has two, the 16 bytes of its store.
// Limits   what check() in problem.h asks for, padding of at most half the window.
// Bound    memory: forward, an element of x and one of y with a byte for its winner, backward the same. 3x3 with stride
//          2 on N32 C64 112x112 (ResNet's): float32 103 + 26 + 6 MB, 45 us at 3.0 TB/s; 16 bits 23 us. Rows that two
//          windows share come from L2 the second time.
// Measured not run on hardware yet.
#include "common/pixels.h"
#include "pool2d/pool2d.h"
#include "pool2d/pooling.h"
#include "pool2d/winners.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {
namespace {

// The largest so far, of each channel.
template <int kChannels, bool kMagnitudes>
struct Best {
  Floats<kChannels> value;
  Winners<kChannels> winner;

  __device__ __forceinline__ void take(const Floats<kChannels>& cells, float sign, int tap, bool inside) {
#pragma unroll
    for (int i = 0; i < kChannels; ++i) {
      const float cell = kMagnitudes ? sign * fabsf(cells[i]) : cells[i];
      if (inside && (cell > value[i] || cell != cell)) {
        value[i] = cell;
        winner.tap[i] = tap;
      }
    }
  }
};

// kTaps: those of a square window without dilation, or 0. sign: of the magnitudes that are compared.
template <typename T, int kChannels, int kTaps, typename Winner, bool kMagnitudes>
__global__ void __launch_bounds__(kPixelThreads)
    max_fprop_kernel(const Pooling p, const T* __restrict__ x, T* __restrict__ y, Winner* __restrict__ winners,
                     float sign) {
  const std::int64_t index = pack_index();
  if (index >= p.y.count) return;
  const PackPlace window = place_of<kChannels>(p.y, index);
  const WindowAxis &vertical = p.vertical, &horizontal = p.horizontal;
  const int top = vertical.first_cell(window.pixel.row), left = horizontal.first_cell(window.pixel.column);
  const int first_r = vertical.first_tap(top), first_s = horizontal.first_tap(left);
  const T* const image = x + p.x.images.offset({window.pixel.image, 0, 0}) + window.channel;

  Best<kChannels, kMagnitudes> best{filled<kChannels>(-INFINITY), {}};
#pragma unroll
  for (int i = 0; i < kChannels; ++i) best.winner.tap[i] = first_r * horizontal.kernel + first_s;
  if constexpr (kTaps > 0) {
    Floats<kChannels> cells[kTaps][kTaps];
#pragma unroll
    for (int r = 0; r < kTaps; ++r) {
#pragma unroll
      for (int s = 0; s < kTaps; ++s) {  // a cell outside the image is one at its edge, not looked at
        const int row = vertical.nearest_cell(top + r), column = horizontal.nearest_cell(left + s);
        cells[r][s] = load<kChannels>(image + p.x.images.offset({0, row, column}));
      }
    }
#pragma unroll
    for (int r = 0; r < kTaps; ++r) {
#pragma unroll
      for (int s = 0; s < kTaps; ++s) {
        best.take(cells[r][s], sign, r * kTaps + s, vertical.contains(top + r) && horizontal.contains(left + s));
      }
    }
  } else {
    for (int r = first_r; r < vertical.kernel; ++r) {
      const int row = top + r * vertical.dilation;
      if (row >= vertical.size) break;
      for (int s = first_s; s < horizontal.kernel; ++s) {
        const int column = left + s * horizontal.dilation;
        if (column >= horizontal.size) break;
        best.take(load<kChannels>(image + p.x.images.offset({0, row, column})), sign, r * horizontal.kernel + s, true);
      }
    }
  }
  if constexpr (kMagnitudes) {
#pragma unroll
    for (int i = 0; i < kChannels; ++i) best.value[i] *= sign;
  }
  store(y + index * kChannels, best.value);
  if (winners != nullptr) store_winners(winners + index * kChannels, best.winner);
}

// Blocks of a multiprocessor, which leaves a thread 64 or 80 registers, where ptxas would rather spill.
template <int kWindows>
constexpr int kResident = kWindows == 2 ? 3 : 4;

// kWindows: the most windows that hold a cell along either axis, without dilation, or 0.
template <typename T, int kChannels, int kWindows, typename Winner, bool kMagnitudes>
__global__ void __launch_bounds__(kPixelThreads, kResident<kWindows>)
    max_dgrad_kernel(const Pooling p, const T* __restrict__ dy, const Winner* __restrict__ winners,
                     const T* __restrict__ x, T* __restrict__ dx) {
  const std::int64_t index = pack_index();
  if (index >= p.x.count) return;
  const PackPlace cell = place_of<kChannels>(p.x, index);
  const WindowAxis &vertical = p.vertical, &horizontal = p.horizontal;
  const std::int64_t image = p.y.images.offset({cell.pixel.image, 0, 0}) + cell.channel;

  Floats<kChannels> sum = filled<kChannels>(0.0f);
  const auto add = [&](const Floats<kChannels>& gradient, const Winners<kChannels>& winner, int tap) {
#pragma unroll
    for (int i = 0; i < kChannels; ++i) sum[i] += winner.tap[i] == tap ? gradient[i] : 0.0f;
  };
  if constexpr (kWindows > 0) {
    Floats<kChannels> gradients[kWindows][kWindows];
    Winners<kChannels> theirs[kWindows][kWindows];
    int taps[kWindows][kWindows];
    Meeting row = first_meeting(vertical, cell.pixel.row);
#pragma unroll
    for (int i = 0; i < kWindows; ++i, row.next(vertical)) {
      Meeting column = first_meeting(horizontal, cell.pixel.column);
#pragma unroll
      for (int j = 0; j < kWindows; ++j, column.next(horizontal)) {
        const bool holds = row.holds(vertical) && column.holds(horizontal);
        taps[i][j] = holds ? row.distance * horizontal.kernel + column.distance : -1;  // a winner is not -1
        gradients[i][j] = filled<kChannels>(0.0f);
        theirs[i][j] = {};
        if (holds) {
          const std::int64_t window = image + p.y.images.offset({0, row.window, column.window});
          gradients[i][j] = load<kChannels>(dy + window);
          theirs[i][j] = load_winners<kChannels>(winners + window);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kWindows; ++i) {
#pragma unroll
      for (int j = 0; j < kWindows; ++j) add(gradients[i][j], theirs[i][j], taps[i][j]);
    }
  } else {
    for (Meeting row = first_meeting(vertical, cell.pixel.row); row.holds(vertical); row.next(vertical)) {
      const Quotient r = vertical.by_dilation.divide(row.distance);
      if (r.rest != 0) continue;
      for (Meeting column = first_meeting(horizontal, cell.pixel.column); column.holds(horizontal);
           column.next(horizontal)) {
        const Quotient s = horizontal.by_dilation.divide(column.distance);
        if (s.rest != 0) continue;
        const std::int64_t window = image + p.y.images.offset({0, row.window, column.window});
        add(load<kChannels>(dy + window), load_winners<kChannels>(winners + window),
            static_cast<int>(r.whole) * horizontal.kernel + static_cast<int>(s.whole));
      }
    }
  }
  if constexpr (kMagnitudes) {
    const Floats<kChannels> cells = load<kChannels>(x + index * kChannels);
#pragma unroll
    for (int i = 0; i < kChannels; ++i) {
      const float sign = cells[i] > 0.0f ? 1.0f : cells[i] < 0.0f ? -1.0f : cells[i];  // of 0 and of NaN: itself
      sum[i] *= sign;
    }
  }
  store(dx + index * kChannels, sum);
}

struct alignas(16) TwoIndices {
  long long first, second;
};

template <int kChannels, typename Winner>
__global__ void __launch_bounds__(kPixelThreads)
    max_indices_kernel(const Pooling p, const Winner* __restrict__ winners, std::int64_t* __restrict__ indices) {
  const std::int64_t index = pack_index();
  if (index >= p.y.count) return;
  const Pixel window = place_of<kChannels>(p.y, index).pixel;
  const Winners<kChannels> winner = load_winners<kChannels>(winners + index * kChannels);
  long long found[kChannels];
#pragma unroll
  for (int i = 0; i < kChannels; ++i) {
    const int r = winner.tap[i] / p.horizontal.kernel, s = winner.tap[i] % p.horizontal.kernel;
    const int row = p.vertical.first_cell(window.row) + r * p.vertical.dilation;
    const int column = p.horizontal.first_cell(window.column) + s * p.horizontal.dilation;
    const bool inside = p.vertical.contains(row) && p.horizontal.contains(column);
    found[i] = inside ? static_cast<long long>(row) * p.horizontal.size + column : -1;
  }
  if constexpr (kChannels == 2) {
    simt::vstore(indices + index * 2, TwoIndices{found[0], found[1]});
  } else {
    indices[index] = found[0];
  }
}

template <typename T, int kChannels, int kTaps, typename Winner, bool kMagnitudes = false>
simt::Status fprop(const Pool2dProblem& p, const T* x, T* y, Winner* winners, simt::Stream stream, float sign = 1.0f) {
  const Pooling pooling = pooling_of(p, kChannels);
  return launch_packs(max_fprop_kernel<T, kChannels, kTaps, Winner, kMagnitudes>, pooling.y.count, stream, pooling, x,
                      y, winners, sign);
}

template <typename T, int kChannels, int kWindows, typename Winner, bool kMagnitudes = false>
simt::Status dgrad(const Pool2dProblem& p, const T* dy, const Winner* winners, T* dx, simt::Stream stream,
                   const T* x = nullptr) {
  const Pooling pooling = pooling_of(p, kChannels);
  return launch_packs(max_dgrad_kernel<T, kChannels, kWindows, Winner, kMagnitudes>, pooling.x.count, stream, pooling,
                      dy, winners, x, dx);
}

// Whether packs of 16 bytes will do: winners of four bytes, of very large windows, go one by one.
template <typename T, typename Winner, typename... Pointers>
bool is_wide(const Pool2dProblem& p, const Pointers*... arrays) {
  return sizeof(Winner) == 1 && p.C % kPack<T> == 0 && are_aligned(arrays...);
}

}  // namespace

template <typename T, typename Winner>
simt::Status max_pool2d_direct_fprop(const Pool2dProblem& p, MaxOf of, const T* x, T* y, Winner* winners,
                                     simt::Stream stream) {
  const bool wide = is_wide<T, Winner>(p, x, y, winners);
  if (of != MaxOf::values) {
    const float sign = of == MaxOf::magnitudes ? 1.0f : -1.0f;
    if constexpr (sizeof(Winner) == 1) {
      if (wide) return fprop<T, kPack<T>, 0, Winner, true>(p, x, y, winners, stream, sign);
    }
    return fprop<T, 1, 0, Winner, true>(p, x, y, winners, stream, sign);
  }
  if constexpr (sizeof(Winner) == 1) {
    if (wide && square_taps(p) == 2) return fprop<T, kPack<T>, 2, Winner>(p, x, y, winners, stream);
    if (wide && square_taps(p) == 3) return fprop<T, kPack<T>, 3, Winner>(p, x, y, winners, stream);
    if (wide) return fprop<T, kPack<T>, 0, Winner>(p, x, y, winners, stream);
  }
  return fprop<T, 1, 0, Winner>(p, x, y, winners, stream);
}

template <typename T, typename Winner>
simt::Status max_pool2d_direct_dgrad(const Pool2dProblem& p, const T* dy, const Winner* winners, const T* x, T* dx,
                                     simt::Stream stream) {
  const bool wide = is_wide<T, Winner>(p, dy, winners, x, dx);
  if (x != nullptr) {
    if constexpr (sizeof(Winner) == 1) {
      if (wide) return dgrad<T, kPack<T>, 0, Winner, true>(p, dy, winners, dx, stream, x);
    }
    return dgrad<T, 1, 0, Winner, true>(p, dy, winners, dx, stream, x);
  }
  if constexpr (sizeof(Winner) == 1) {
    if (wide && most_windows(p) == 1) return dgrad<T, kPack<T>, 1, Winner>(p, dy, winners, dx, stream);
    if (wide && most_windows(p) == 2) return dgrad<T, kPack<T>, 2, Winner>(p, dy, winners, dx, stream);
    if (wide) return dgrad<T, kPack<T>, 0, Winner>(p, dy, winners, dx, stream);
  }
  return dgrad<T, 1, 0, Winner>(p, dy, winners, dx, stream);
}

template <typename Winner>
simt::Status max_pool2d_direct_indices(const Pool2dProblem& p, const Winner* winners, std::int64_t* indices,
                                       simt::Stream stream) {
  return by_width<2>(
      p.C,
      [&](auto channels) {
        constexpr int kChannels = decltype(channels)::value;
        const Pooling pooling = pooling_of(p, kChannels);
        return launch_packs(max_indices_kernel<kChannels, Winner>, pooling.y.count, stream, pooling, winners, indices);
      },
      winners, indices);
}

#define GPUCNN_INSTANTIATE(T, Winner)                                                                              \
  template simt::Status max_pool2d_direct_fprop(const Pool2dProblem&, MaxOf, const T*, T*, Winner*, simt::Stream); \
  template simt::Status max_pool2d_direct_dgrad(const Pool2dProblem&, const T*, const Winner*, const T*, T*,       \
                                                simt::Stream);
GPUCNN_INSTANTIATE(float, std::uint8_t)
GPUCNN_INSTANTIATE(float, std::int32_t)
GPUCNN_INSTANTIATE(simt::half, std::uint8_t)
GPUCNN_INSTANTIATE(simt::half, std::int32_t)
GPUCNN_INSTANTIATE(simt::bfloat16, std::uint8_t)
GPUCNN_INSTANTIATE(simt::bfloat16, std::int32_t)
template simt::Status max_pool2d_direct_indices(const Pool2dProblem&, const std::uint8_t*, std::int64_t*, simt::Stream);
template simt::Status max_pool2d_direct_indices(const Pool2dProblem&, const std::int32_t*, std::int64_t*, simt::Stream);

}  // namespace gpucnn

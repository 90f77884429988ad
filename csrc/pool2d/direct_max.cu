// y[n,p,q,c] = max over r, s of x[n, p*stride-padding+r*dilation, q*..., c], over the taps that lie in the image; which
// tap that was; where it lies; and dx[n,h,w,c], the sum of dy over the windows whose winner lies on (h,w). float32.
//
// The backward pass gathers: a cell asks every window that it is in, so nothing is written twice and the sum has one
// order, that of the taps.
//
// Layout   x, dx (N,H,W,C), y, dy, winners, indices (N,P,Q,C).
// Thread   one element of the output; neighbours own neighbouring channels of a pixel: a warp moves 128 contiguous
//          bytes a load where C is a multiple of 32.
// Limits   what check() in problem.h asks for, padding of at most half the window; nothing needs to be aligned.
// Bound    memory: forward 4 bytes an element of x and 5 of y (a maximum and its winner), backward the same. 2x2 with
//          stride 2 on N32 C64 112x112, 135 MB, takes 40 us at an H100's 3.35 TB/s.
// Measured not run on hardware yet.
#include "common/index.h"
#include "pool2d/pool2d.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kThreads = 256;

// A Pool2dProblem in the numbers that kernels compute with.
struct Pooling {
  Axis vertical, horizontal;
  Images x, y;
  std::int64_t inputs, outputs;  // elements of x and of y
};

Pooling pooling_of(const Pool2dProblem& p) {
  return {vertical_axis(p),         horizontal_axis(p),    images_of(p.H, p.W, p.C),
          images_of(p.P, p.Q, p.C), p.N * p.H * p.W * p.C, p.N * p.P * p.Q * p.C};
}

// The first tap of a window that is not before the image, given the cell under tap 0.
__device__ __forceinline__ int first_tap(const Axis& axis, int first_cell) {
  return first_cell < 0 ? (-first_cell + axis.dilation - 1) / axis.dilation : 0;
}

// An element of an output: its pixel, and its channel.
struct Element {
  Pixel pixel;
  int channel;
};

__device__ __forceinline__ Element element_of(const Images& images, std::int64_t index) {
  const Quotient at = images.channels.divide(index);
  return {images.pixel(at.whole), at.rest};
}

template <typename Winner>
__global__ void __launch_bounds__(kThreads) max_fprop_kernel(const Pooling p, const float* __restrict__ x,
                                                             float* __restrict__ y, Winner* __restrict__ winners) {
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;  // of an element of y
  if (index >= p.outputs) return;
  const Element window = element_of(p.y, index);
  const int top = p.vertical.first_cell(window.pixel.row), left = p.horizontal.first_cell(window.pixel.column);
  const int first_r = first_tap(p.vertical, top), first_s = first_tap(p.horizontal, left);

  float best = -INFINITY;
  int winner = first_r * p.horizontal.kernel + first_s;
  for (int r = first_r; r < p.vertical.kernel; ++r) {
    const int row = top + r * p.vertical.dilation;
    if (row >= p.vertical.size) break;
    for (int s = first_s; s < p.horizontal.kernel; ++s) {
      const int column = left + s * p.horizontal.dilation;
      if (column >= p.horizontal.size) break;
      const float value = x[p.x.offset({window.pixel.image, row, column}) + window.channel];
      if (value > best || value != value) {
        best = value;
        winner = r * p.horizontal.kernel + s;
      }
    }
  }
  y[index] = best;
  if (winners != nullptr) winners[index] = static_cast<Winner>(winner);
}

template <typename Winner>
__global__ void __launch_bounds__(kThreads)
    max_dgrad_kernel(const Pooling p, const float* __restrict__ dy, const Winner* __restrict__ winners,
                     float* __restrict__ dx) {
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;  // of an element of dx
  if (index >= p.inputs) return;
  const Element cell = element_of(p.x, index);
  float sum = 0.0f;
  for (int r = 0; r < p.vertical.kernel; ++r) {
    const int row = p.vertical.window_at(cell.pixel.row, r);
    if (row < 0) continue;
    for (int s = 0; s < p.horizontal.kernel; ++s) {
      const int column = p.horizontal.window_at(cell.pixel.column, s);
      if (column < 0) continue;
      const std::int64_t window = p.y.offset({cell.pixel.image, row, column}) + cell.channel;
      if (static_cast<int>(winners[window]) == r * p.horizontal.kernel + s) sum += dy[window];
    }
  }
  dx[index] = sum;
}

template <typename Winner>
__global__ void __launch_bounds__(kThreads)
    max_indices_kernel(const Pooling p, const Winner* __restrict__ winners, std::int64_t* __restrict__ indices) {
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;  // of an element of y
  if (index >= p.outputs) return;
  const Pixel window = element_of(p.y, index).pixel;
  const int winner = static_cast<int>(winners[index]);
  const int row = p.vertical.first_cell(window.row) + winner / p.horizontal.kernel * p.vertical.dilation;
  const int column = p.horizontal.first_cell(window.column) + winner % p.horizontal.kernel * p.horizontal.dilation;
  const bool inside = p.vertical.contains(row) && p.horizontal.contains(column);
  indices[index] = inside ? std::int64_t{row} * p.horizontal.size + column : -1;
}

// One thread an element of the output, of which there are `count`.
template <typename... Parameters, typename... Arguments>
simt::Status launch_each(void (*kernel)(Parameters...), std::int64_t count, simt::Stream stream,
                         const Arguments&... arguments) {
  if (count == 0) return simt::kSuccess;
  const auto blocks = static_cast<unsigned>(blocks_of(kThreads, count));
  return simt::launch(kernel, dim3(blocks), dim3(kThreads), 0, stream, arguments...);
}

}  // namespace

template <typename Winner>
simt::Status max_pool2d_direct_fprop(const Pool2dProblem& p, const float* x, float* y, Winner* winners,
                                     simt::Stream stream) {
  const Pooling pooling = pooling_of(p);
  return launch_each(max_fprop_kernel<Winner>, pooling.outputs, stream, pooling, x, y, winners);
}

template <typename Winner>
simt::Status max_pool2d_direct_dgrad(const Pool2dProblem& p, const float* dy, const Winner* winners, float* dx,
                                     simt::Stream stream) {
  const Pooling pooling = pooling_of(p);
  return launch_each(max_dgrad_kernel<Winner>, pooling.inputs, stream, pooling, dy, winners, dx);
}

template <typename Winner>
simt::Status max_pool2d_direct_indices(const Pool2dProblem& p, const Winner* winners, std::int64_t* indices,
                                       simt::Stream stream) {
  const Pooling pooling = pooling_of(p);
  return launch_each(max_indices_kernel<Winner>, pooling.outputs, stream, pooling, winners, indices);
}

template simt::Status max_pool2d_direct_fprop(const Pool2dProblem&, const float*, float*, std::uint8_t*, simt::Stream);
template simt::Status max_pool2d_direct_fprop(const Pool2dProblem&, const float*, float*, std::int32_t*, simt::Stream);
template simt::Status max_pool2d_direct_dgrad(const Pool2dProblem&, const float*, const std::uint8_t*, float*,
                                              simt::Stream);
template simt::Status max_pool2d_direct_dgrad(const Pool2dProblem&, const float*, const std::int32_t*, float*,
                                              simt::Stream);
template simt::Status max_pool2d_direct_indices(const Pool2dProblem&, const std::uint8_t*, std::int64_t*, simt::Stream);
template simt::Status max_pool2d_direct_indices(const Pool2dProblem&, const std::int32_t*, std::int64_t*, simt::Stream);

}  // namespace gpucnn

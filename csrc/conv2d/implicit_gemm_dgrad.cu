// dx[n,h,w,c] = sum over r, s, k of dy[n,p,q,k] * w[k,r,s,c], over the taps (r,s) of windows (p,q) that lie on (h,w):
// h = p*stride - padding + r*dilation, and w likewise; as a product of matrices that are gathered. Groups of 1.
//
// Pixels whose rows (and columns) are strides apart meet the same taps: every so many of a filter, from the first that
// meets them. Of one such class, dx is dy convolved with its taps at stride 1, back to front: no product has a zero of
// the stride, and nothing is scattered. Stride 1 has one class, of all taps.
//
// Layout   dy (N,P,Q,K), w (K,R,S,C), dx (N,H,W,C). Rows are a class's pixels, columns the C channels, and the depth is
//          (tap, k): packs of dy are along it, packs of w along the columns. Classes are counted as equally large as
//          the largest, so that one division serves all: rows of the others that are beyond the image are not stored.
// Block    a tile of pixels of one class x channels (gemm/tile.h). Blocks of all classes of some pixels are neighbours,
//          as the windows that they read are. A class that meets no tap stores zeros.
// Limits   what check() in problem.h asks for, and groups=1. Sums have the order of the taps: an image has the
//          same bits in any batch, and in any configuration. C or K that is not whole packs takes the narrow path.
// Bound    FFMA: 2*N*P*Q*K*R*S*C flops; N32 C64 56x56 K64 3x3 pad 1, 7.4 GFLOP: 0.12 ms at the 60 TFLOP/s that an H100
//          gives in practice.
// Measured not run on hardware yet.
#include "conv2d/conv2d.h"
#include "conv2d/gather.h"
#include "gemm/launch.h"
#include "gemm/store.h"

#include <algorithm>
#include <numeric>

namespace gpucnn {
namespace {

// One axis of all classes.
struct ClassAxis {
  Axis axis;
  int classes;   // pixels [0, classes) are the first of theirs
  int tap_step;  // from one tap of a class to its next
  int back;      // windows that the next tap's is before
};

ClassAxis class_axis(const Axis& axis) {
  const int common = std::gcd(axis.stride, axis.dilation);
  return {axis, std::min(axis.stride, axis.size), axis.stride / common, axis.dilation / common};
}

// Of one class: its first tap, how many there are, and the window in which that tap lies on the class's first pixel.
struct ClassTaps {
  int first, count, window;
};

__device__ __forceinline__ ClassTaps taps_of(const ClassAxis& a, int first_cell) {
  const int place = first_cell + a.axis.padding, kernel = a.axis.kernel;  // counted from the first padded cell
  int first = 0;
  while (first < a.tap_step && first < kernel && (place - first * a.axis.dilation) % a.axis.stride != 0) ++first;
  if (first >= a.tap_step || first >= kernel) return {0, 0, 0};
  return {first, (kernel - first - 1) / a.tap_step + 1, (place - first * a.axis.dilation) / a.axis.stride};
}

template <typename T>
struct DgradArguments {
  const T* dy;
  const T* w;
  T* dx;
  ClassAxis down, across;
  Images pixels;       // of the largest class
  std::int64_t count;  // N times as many
  int C, K;
  bool wide_dx;
  unsigned tiles_across;
};

// What a block owns: pixels of the class whose first one is (h, w), and channels.
struct DgradTile {
  std::int64_t row, column;
  int h, w;
};

template <typename Shape, typename T>
__device__ __forceinline__ DgradTile dgrad_tile(const DgradArguments<T>& p, unsigned block) {
  const unsigned classes = static_cast<unsigned>(p.down.classes * p.across.classes);
  const unsigned line = block / p.tiles_across, across = static_cast<unsigned>(p.across.classes);
  const unsigned mine = line % classes;
  return {std::int64_t{line / classes} * Shape::kRows, std::int64_t{block % p.tiles_across} * Shape::kColumns,
          static_cast<int>(mine / across), static_cast<int>(mine % across)};
}

template <typename T, typename Shape, bool kWide>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks) implicit_dgrad_kernel(const DgradArguments<T> p) {
  using Shared = gemm::Strips<T, Shape>;
  SIMT_SHARED(Shared, strips, );
  const DgradTile at = dgrad_tile<Shape>(p, blockIdx.x);
  const ClassTaps r = taps_of(p.down, at.h), s = taps_of(p.across, at.w);
  const auto taps = TapGrid<T, kWide>::of(r.count, s.count, p.K);
  const ImageRows<T, kWide> windows{p.dy,
                                    {p.down.axis.outputs, r.window, 1, -p.down.back},
                                    {p.across.axis.outputs, s.window, 1, -p.across.back},
                                    p.pixels,
                                    p.count,
                                    taps};
  const int kernel = p.across.axis.kernel;
  const FilterLines<T, kWide> filters{p.w + (std::int64_t{r.first} * kernel + s.first) * p.C,
                                      p.C,
                                      p.down.axis.kernel * kernel,
                                      p.down.tap_step * kernel,
                                      p.across.tap_step,
                                      taps};
  gemm::DepthRows<T, Shape, kWide, ImageRows<T, kWide>> rows(windows, at.row);
  gemm::LineColumns<T, Shape, kWide, FilterLines<T, kWide>> columns(filters, at.column);
  gemm::Tile<T, Shape> tile;
  gemm::multiply(tile, strips, rows, columns, taps.depth());
  const DgradTile to = dgrad_tile<Shape>(p, simt::anew(blockIdx.x));
  gemm::store_rows(
      tile, p.dx, to.row, p.count, to.column, p.C, p.wide_dx, Epilogue<T>{nullptr, false}, [&](std::int64_t index) {
        const Pixel pixel = p.pixels.pixel(index);
        const int y = to.h + pixel.row * p.down.axis.stride, x = to.w + pixel.column * p.across.axis.stride;
        if (y >= p.down.axis.size || x >= p.across.axis.size) return std::int64_t{-1};
        return ((pixel.image * p.down.axis.size + y) * p.across.axis.size + x) * p.C;
      });
}

}  // namespace

template <typename T>
simt::Status conv2d_implicit_gemm_dgrad(const Conv2dProblem& p, const T* dy, const T* w, T* dx, simt::Stream stream,
                                        int configuration) {
  require_dense(p);
  if (p.N == 0) return simt::kSuccess;
  const ClassAxis down = class_axis(vertical_axis(p)), across = class_axis(horizontal_axis(p));
  const std::int64_t height = blocks_of(down.axis.stride, p.H), width = blocks_of(across.axis.stride, p.W);
  const std::int64_t count = p.N * height * width, classes = std::int64_t{down.classes} * across.classes;
  const Gather down_windows{down.axis.outputs, 0, 1, down.back}, across_windows{across.axis.outputs, 0, 1, across.back};
  const bool wide = are_aligned(dy, w) && gemm::in_packs<T>(p.C) && gemm::in_packs<T>(p.K) && p.K >= gemm::kDepth<T> &&
                    fits_wide(down_windows, across_windows, height, width, p.R, p.S, p.K);
  const int chosen = gemm::choose(count * classes, p.C, wide, configuration);
  return gemm::with_shape(chosen, wide, [&](auto shape, auto is_wide) {
    using Shape = decltype(shape);
    const DgradArguments<T> arguments{dy,
                                      w,
                                      dx,
                                      down,
                                      across,
                                      images_of(height, width, p.C),
                                      count,
                                      static_cast<int>(p.C),
                                      static_cast<int>(p.K),
                                      are_aligned(dx) && gemm::in_packs<T>(p.C),
                                      gemm::tiles_across<Shape>(p.C)};
    return simt::launch(implicit_dgrad_kernel<T, Shape, is_wide>,
                        dim3(gemm::tiles<Shape>(count, p.C) * static_cast<unsigned>(classes)), dim3(Shape::kThreads), 0,
                        stream, arguments);
  });
}

template simt::Status conv2d_implicit_gemm_dgrad(const Conv2dProblem&, const float*, const float*, float*, simt::Stream,
                                                 int);
template simt::Status conv2d_implicit_gemm_dgrad(const Conv2dProblem&, const simt::half*, const simt::half*,
                                                 simt::half*, simt::Stream, int);
template simt::Status conv2d_implicit_gemm_dgrad(const Conv2dProblem&, const simt::bfloat16*, const simt::bfloat16*,
                                                 simt::bfloat16*, simt::Stream, int);

}  // namespace gpucnn

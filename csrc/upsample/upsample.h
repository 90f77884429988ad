// Larger and smaller images: the menu of the launchers.
//
// Pointers are C-contiguous memory of the device (of the process, in a simt module); launchers return what the launch
// said. Problems must have been through check(). T is float, half or bfloat16; what is added up is float32. What only
// moves elements is told how many bytes one has.
//
//   x, dx (N,H,W,C)   y, dy (N,P,Q,C)
#pragma once

#include "common/problem.h"
#include "simt/float16.h"
#include "simt/status.h"

#include <cmath>
#include <cstdint>
#include <string>

namespace gpucnn {

enum class Interpolation { nearest, nearest_exact, bilinear, bilinear_corners, tents, tents_corners };

// By how much images grow along each axis, or 0 where that is just P / H and Q / W.
struct Scale {
  double vertical, horizontal;
};

struct InterpolateProblem {
  std::int64_t N, H, W, C, P, Q;
  Interpolation how;
  Scale scale;
};

// A pixel's place is computed in float64, of which 2^29 times a fraction leaves enough behind the point.
inline constexpr std::int64_t kMostPixels = std::int64_t{1} << 29;

namespace detail {

inline void check_growth(const char* op, std::int64_t size, std::int64_t count, double scale) {
  if (size > kMostPixels || count > kMostPixels) refuse(op, "an axis must have at most 2^29 pixels");
  if (scale == 0) return;
  if (!(std::isfinite(scale) && scale > 0)) refuse(op, "scale must be finite and above 0");
  if (static_cast<double>(count) > static_cast<double>(size) * scale + 1) {
    refuse(op, std::to_string(size) + " pixels do not grow to " + std::to_string(count) + " by the scale given");
  }
}

}  // namespace detail

// These throw std::invalid_argument for a problem that no kernel could be trusted with.
inline void check(const char* op, const InterpolateProblem& p) {
  detail::require_range(op, {{"N", p.N}}, 0);
  detail::require_range(op, {{"H", p.H}, {"W", p.W}, {"C", p.C}, {"P", p.P}, {"Q", p.Q}}, 1);
  detail::require_countable(op, "the input (N,H,W,C)", {p.N, p.H, p.W, p.C});
  detail::require_countable(op, "the output (N,P,Q,C)", {p.N, p.P, p.Q, p.C});
  detail::check_growth(op, p.H, p.P, p.scale.vertical);
  detail::check_growth(op, p.W, p.Q, p.scale.horizontal);
}

// y[n,p,q,c] = x[n,h,w,c] of the nearest pixel (h,w). Elements of `bytes`, 2 or 4.
[[nodiscard]] simt::Status interpolate_nearest_fprop(const InterpolateProblem& p, int bytes, const void* x, void* y,
                                                     simt::Stream stream);

// y: of other interpolations, the sum of the pixels about each place with their weights.
template <typename T>
[[nodiscard]] simt::Status interpolate_weighted_fprop(const InterpolateProblem& p, const T* x, T* y,
                                                      simt::Stream stream);

// dx: of any interpolation, each pixel's sum of the gradients that it went into, with its weights.
template <typename T>
[[nodiscard]] simt::Status interpolate_dgrad(const InterpolateProblem& p, const T* dy, T* dx, simt::Stream stream);

// Images of H x W become `down`*H x `right`*W.
struct NailsProblem {
  std::int64_t N, H, W, C, down, right;
};

inline void check(const char* op, const NailsProblem& p) {
  detail::require_range(op, {{"N", p.N}, {"H", p.H}, {"W", p.W}, {"C", p.C}}, 0);
  detail::require_range(op, {{"factor", p.down}, {"factor", p.right}}, 1);
  detail::require_range(op, {{"factor * H", p.down * p.H}, {"factor * W", p.right * p.W}}, 0);
  detail::require_countable(op, "the output", {p.N, p.H * p.down, p.W * p.right, p.C});
}

// y (N,down*H,right*W,C): x at the top left of each cell, 0 elsewhere. Elements of `bytes`, 2 or 4.
[[nodiscard]] simt::Status bed_of_nails_fprop(const NailsProblem& p, int bytes, const void* x, void* y,
                                              simt::Stream stream);
[[nodiscard]] simt::Status bed_of_nails_dgrad(const NailsProblem& p, int bytes, const void* dy, void* dx,
                                              simt::Stream stream);

// Images of H x W with C * factor^2 channels, and of factor*H x factor*W with C.
struct ShuffleProblem {
  std::int64_t N, H, W, C, factor;
};

inline constexpr std::int64_t kMostShuffled = 32;

inline void check(const char* op, const ShuffleProblem& p) {
  detail::require_range(op, {{"N", p.N}, {"H", p.H}, {"W", p.W}, {"C", p.C}}, 0);
  detail::require_range(op, {{"factor", p.factor}}, 1);
  if (p.factor > kMostShuffled) detail::refuse(op, "factor must be at most 32");
  detail::require_range(op, {{"N * H", p.N * p.H}}, 0);
  const std::int64_t f = p.factor;
  detail::require_range(op, {{"factor * H", f * p.H}, {"factor * W", f * p.W}, {"factor^2 * C", f * f * p.C}}, 0);
  detail::require_countable(op, "the image", {p.N, f * p.H, f * p.W, p.C});
}

// Between x (N,H,W,C*f*f) and y (N,f*H,f*W,C): y[f*h+i, f*w+j, c] = x[h, w, (c*f+i)*f+j]. Elements of `bytes`, 1, 2, 4
// or 8.
[[nodiscard]] simt::Status pixel_shuffle(const ShuffleProblem& p, int bytes, const void* x, void* y,
                                         simt::Stream stream);
[[nodiscard]] simt::Status pixel_unshuffle(const ShuffleProblem& p, int bytes, const void* y, void* x,
                                           simt::Stream stream);

}  // namespace gpucnn

// Descriptions of convolutions and poolings, and THE formula for output sizes: gpucnn/problem.py in C++.
//
// For host and device code; nothing of Python or CUDA. A description that check() took lets kernels keep coordinates
// in int; offsets into arrays are 64-bit everywhere (common/index.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <string>

namespace gpucnn {

struct Pair {
  std::int64_t vertical, horizontal;
};

// P x Q windows of R x S taps over N images of H x W x C. P and Q are given: they imply the padding at the end.
struct Windows {
  std::int64_t N, H, W, C;
  std::int64_t R, S, P, Q;
  Pair stride, padding, dilation;  // padding: rows above, columns left of the image
};

// y[n,p,q,k] = sum over r, s, c of x[n, p*stride-padding+r*dilation, ..., c] * w[k,r,s,c], where x is 0 outside.
struct Conv2dProblem : Windows {
  std::int64_t K, groups;

  constexpr std::int64_t channels() const { return C / groups; }         // of one group
  constexpr std::int64_t filters() const { return K / groups; }          // of one group
  constexpr std::int64_t positions() const { return N * P * Q; }         // windows: pixels of y
  constexpr std::int64_t weights() const { return R * S * channels(); }  // of one filter
};

// Windows of a pooling, whose padded cells take part in nothing.
struct Pool2dProblem : Windows {};

// Windows of `kernel` taps that fit along `size` cells with `padding` more, at both ends together; below 1 if none
// fits: floor((size + padding - dilation * (kernel - 1) - 1) / stride) + 1, and with `ceil_mode` rounded up.
constexpr std::int64_t output_size(std::int64_t size, std::int64_t kernel, std::int64_t stride, std::int64_t padding,
                                   std::int64_t dilation, bool ceil_mode = false) {
  const std::int64_t room = size + padding - dilation * (kernel - 1) - 1;
  const std::int64_t whole = room / stride, rest = room % stride;  // C++ rounds to zero: correct what is negative
  if (ceil_mode) return whole + (rest > 0) + 1;
  return whole - (rest < 0) + 1;
}

// What check() allows. Coordinates: none that a kernel computes, padded rows and columns included, exceeds an int.
// Elements: of any array; 2^38 float32 are 1 TiB, and a grid of one thread each stays below 2^31 blocks. Terms: of one
// sum, that an int counts, and counts a little beyond.
inline constexpr std::int64_t kMostCells = std::numeric_limits<std::int32_t>::max();
inline constexpr std::int64_t kMostElements = std::int64_t{1} << 38;
inline constexpr std::int64_t kMostTerms = std::int64_t{1} << 30;

namespace detail {

struct NamedSize {
  const char* name;
  std::int64_t value;
};

[[noreturn]] inline void refuse(const char* op, const std::string& rule) {
  throw std::invalid_argument(std::string(op) + ": " + rule);
}

inline void require_range(const char* op, std::initializer_list<NamedSize> sizes, std::int64_t least) {
  for (const auto& [name, value] : sizes) {
    if (value >= least && value <= kMostCells) continue;
    refuse(op, std::string(name) + " must be in [" + std::to_string(least) + ", 2^31), got " + std::to_string(value));
  }
}

inline void require_countable(const char* op, const char* array, std::initializer_list<std::int64_t> sizes) {
  std::int64_t elements = 1;
  for (const std::int64_t size : sizes) {
    if (size == 0) return;
    elements = size <= kMostElements / elements ? elements * size : kMostElements + 1;
    if (elements > kMostElements) refuse(op, std::string(array) + " has more than 2^38 elements");
  }
}

// One axis: H, R, P and the vertical steps, or W, S, Q and the horizontal ones.
inline void check_axis(const char* op, const char* letters, std::int64_t size, std::int64_t kernel,
                       std::int64_t outputs, std::int64_t stride, std::int64_t padding, std::int64_t dilation) {
  const std::string what = std::string(letters) + "=" + std::to_string(size) + "," + std::to_string(kernel) + "," +
                           std::to_string(outputs) + ", stride=" + std::to_string(stride) +
                           ", padding=" + std::to_string(padding) + ", dilation=" + std::to_string(dilation);
  // Each of them is below 2^31, so that no product here overflows.
  const std::int64_t reach = std::max(size, (outputs - 1) * stride + 1) + 2 * padding + (kernel - 1) * dilation;
  if (reach > kMostCells) refuse(op, "the padded image and its windows span 2^31 cells or more (" + what + ")");
  // A cell more than the padding at both ends is padding='same' of even kernels; rounded up is ceil_mode.
  if (outputs > output_size(size, kernel, stride, 2 * padding + 1, dilation, true)) {
    refuse(op, "there are more outputs than windows that fit the padded image (" + what + ")");
  }
}

}  // namespace detail

// Throws std::invalid_argument, which Python sees as ValueError, for windows that no kernel could be trusted with.
inline void check(const char* op, const Windows& p) {
  detail::require_range(op, {{"N", p.N}, {"padding", p.padding.vertical}, {"padding", p.padding.horizontal}}, 0);
  detail::require_range(op, {{"H", p.H}, {"W", p.W}, {"C", p.C}, {"R", p.R}, {"S", p.S}, {"P", p.P}, {"Q", p.Q}}, 1);
  detail::require_range(op, {{"stride", p.stride.vertical}, {"stride", p.stride.horizontal}}, 1);
  detail::require_range(op, {{"dilation", p.dilation.vertical}, {"dilation", p.dilation.horizontal}}, 1);
  detail::require_countable(op, "the input (N,H,W,C)", {p.N, p.H, p.W, p.C});
  detail::check_axis(op, "H,R,P", p.H, p.R, p.P, p.stride.vertical, p.padding.vertical, p.dilation.vertical);
  detail::check_axis(op, "W,S,Q", p.W, p.S, p.Q, p.stride.horizontal, p.padding.horizontal, p.dilation.horizontal);
}

inline void check(const char* op, const Conv2dProblem& p) {
  check(op, static_cast<const Windows&>(p));
  detail::require_range(op, {{"K", p.K}, {"groups", p.groups}}, 1);
  if (p.C % p.groups != 0 || p.K % p.groups != 0) {
    detail::refuse(op, "groups=" + std::to_string(p.groups) + " must divide C=" + std::to_string(p.C) +
                           " and K=" + std::to_string(p.K));
  }
  detail::require_countable(op, "the output (N,P,Q,K)", {p.N, p.P, p.Q, p.K});
  detail::require_countable(op, "the filters (K,R,S,C/groups)", {p.K, p.R, p.S, p.channels()});
  if (p.R * p.S > kMostTerms / std::max(p.channels(), p.filters())) {
    detail::refuse(op, "R*S*C/groups and R*S*K/groups must be at most 2^30");
  }
}

inline void check(const char* op, const Pool2dProblem& p) {
  check(op, static_cast<const Windows&>(p));
  detail::require_countable(op, "the output (N,P,Q,C)", {p.N, p.P, p.Q, p.C});
  if (p.R * p.S > kMostTerms) detail::refuse(op, "R*S must be at most 2^30");
}

}  // namespace gpucnn

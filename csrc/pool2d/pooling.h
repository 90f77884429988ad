// What the kernels of a pooling are told of it. For .cu files.
#pragma once

#include "common/pixels.h"
#include "common/problem.h"
#include "common/window_axis.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {

// A Pool2dProblem in the numbers that kernels compute with.
struct Pooling {
  WindowAxis vertical, horizontal;
  PackedImages x, y;
};

// `each` channels a thread.
inline Pooling pooling_of(const Pool2dProblem& p, int each) {
  return {window_axis(vertical_axis(p)), window_axis(horizontal_axis(p)), packed_images(p.N, p.H, p.W, p.C, each),
          packed_images(p.N, p.P, p.Q, p.C, each)};
}

// Windows of 2 x 2 and 3 x 3 taps beside each other have kernels in which all loads of a thread are under way at once:
// 2 and 3; 0 for any other.
inline int square_taps(const Pool2dProblem& p) {
  const bool square = p.R == p.S && (p.R == 2 || p.R == 3) && p.dilation.vertical == 1 && p.dilation.horizontal == 1;
  return square ? static_cast<int>(p.R) : 0;
}

// Likewise where a cell is in at most 1 or 2 windows along either axis: 1 and 2; 0 for any other.
inline int most_windows(const Pool2dProblem& p) {
  if (p.dilation.vertical != 1 || p.dilation.horizontal != 1) return 0;
  if (p.R <= p.stride.vertical && p.S <= p.stride.horizontal) return 1;
  return p.R <= 2 * p.stride.vertical && p.S <= 2 * p.stride.horizontal ? 2 : 0;
}

}  // namespace gpucnn

// What the forward pass's product of matrices is of, where groups are 1: the windows of x, by (tap, channel), and the
// filters as they lie in memory. For .cu files.
#pragma once

#include "conv2d/gather.h"
#include "conv2d/geometry.h"

namespace gpucnn {

template <typename T, bool kWide, int kStep>
struct FpropSources {
  ImageRows<T, kWide, kStep> windows;
  gemm::DepthMatrix<T, kWide, kStep> filters;
};

template <bool kWide, int kStep, typename T>
FpropSources<T, kWide, kStep> fprop_sources(const Conv2dProblem& p, const T* x, const T* w) {
  const Axis v = vertical_axis(p), h = horizontal_axis(p);
  return {{x,
           {v.size, -v.padding, v.stride, v.dilation},
           {h.size, -h.padding, h.stride, h.dilation},
           images_of(p.P, p.Q, p.K),
           p.positions(),
           TapGrid<T, kWide, kStep>::of(v.kernel, h.kernel, static_cast<int>(p.C)),
           static_cast<int>(p.C)},
          {w, p.K, p.weights()}};
}

}  // namespace gpucnn

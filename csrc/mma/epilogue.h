// What becomes of a finished sum of a forward pass before it is rounded and stored, each part of it by choice of the
// caller, in float32:
//
//     y = relu((sum + bias) * scale + shift + residual)
//
// and, once it is rounded, the moments of each column of a tile: what a batch norm behind it would read y for. Plain
// data: store.h and moments.h do it.
#pragma once

namespace gpucnn::mma {

// Null where nothing is asked for; `scale` and `shift`: both or neither.
//
// Layout   bias, scale, shift (columns,); residual as y. moments (2 * tiles down + 1, columns): mean and sum of squared
//          differences from it of the first tile's rows, of the second's, ...; then a line of zeros: as norm_moments()
//          of norm/norm.h leaves them, which subtracts what it has in that line.
template <typename T>
struct Epilogue {
  const T* bias;
  bool relu;
  const float* scale;
  const float* shift;
  const T* residual;
  float* moments;
};

}  // namespace gpucnn::mma

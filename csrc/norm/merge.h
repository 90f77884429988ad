// Means and sums of squared differences, put together in a fixed order. For .cu files.
#pragma once

#include "simt/simt.h"

namespace gpucnn {

// How much of two parts of a sample the second one is: Chan, Golub and LeVeque, "Updating formulae and a pairwise
// algorithm for computing sample variances" (1979).
struct Share {
  float of_second;  // its number over that of both; 0 where both are empty
  float cross;      // product of the numbers over that of both

  __device__ __forceinline__ Share(float first, float second) {
    const float both = first + second;
    of_second = both > 0.0f ? second / both : 0.0f;
    cross = first * of_second;
  }
};

// (mean, squares) of both parts, from (mean, squares) of the first and those of the second.
__device__ __forceinline__ void merge(float& mean, float& squares, float second_mean, float second_squares,
                                      const Share& share) {
  const float apart = second_mean - mean;
  mean += apart * share.of_second;
  squares += second_squares + apart * apart * share.cross;
}

}  // namespace gpucnn

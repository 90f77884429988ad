// Layer norm and local response norm, over rows of a matrix. The menu of the launchers.
#pragma once

#include "simt/status.h"

#include <cstdint>

namespace gpucnn {

// y = (x - mean) * inverse * weight + bias, mean and inverse = 1 / sqrt(variance + eps) being those of a row.
// x, y (rows,columns), columns in [0, 2^31), weight, bias (columns,) or null for 1 and 0, mean, inverse (rows,).
template <typename T>
[[nodiscard]] simt::Status layer_norm_fprop(std::int64_t rows, std::int64_t columns, float eps, const T* x,
                                            const float* weight, const float* bias, T* y, double* mean, double* inverse,
                                            simt::Stream stream);

// dx = inverse * (g - mean(g) - z * mean(g * z)) with g = dy * weight, z = (x - mean) * inverse and means over a row.
template <typename T>
[[nodiscard]] simt::Status layer_norm_dgrad(std::int64_t rows, std::int64_t columns, const T* dy, const T* x,
                                            const float* weight, const double* mean, const double* inverse, T* dx,
                                            simt::Stream stream);

// Splits of layer_norm_wgrad: of rows and columns alone.
[[nodiscard]] std::int64_t layer_norm_splits(std::int64_t rows, std::int64_t columns, int bytes_of_element);

// sums (2,columns): of dy and of dy * z over the rows, the gradients of bias and weight. partial (splits,2,columns),
// null for one split.
template <typename T>
[[nodiscard]] simt::Status layer_norm_wgrad(std::int64_t rows, std::int64_t columns, const T* dy, const T* x,
                                            const double* mean, const double* inverse, float* partial, float* sums,
                                            simt::Stream stream);

// base[c] = k + alpha * sum of x[j]^2 over j in [c - before, c + after], as far as these are channels.
struct LocalResponse {
  std::int64_t rows, channels;
  std::int64_t before, after;  // [0, channels)
  float alpha, beta, k;        // alpha is that of one square
};

// y[c] = x[c] / base[c]^beta.   x, y (rows,channels)
template <typename T>
[[nodiscard]] simt::Status local_response_fprop(const LocalResponse& p, const T* x, T* y, simt::Stream stream);

// dx[c] = dy[c] / base[c]^beta - 2 alpha beta x[c] * sum of dy[j] x[j] / base[j]^(beta + 1) over j whose windows hold
// c.
template <typename T>
[[nodiscard]] simt::Status local_response_dgrad(const LocalResponse& p, const T* dy, const T* x, T* dx,
                                                simt::Stream stream);

}  // namespace gpucnn

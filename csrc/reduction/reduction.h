// Sums, extrema and products over axes: the menu, a table of reductions by name.
//
// x is (outer, reduced, inner), C-contiguous, of float, half or bfloat16; the result (outer, inner). Axes that are
// merged, and permuted where need be, make that of a reduction over any axes. Arithmetic is float32.
//
// A long axis is cut into splits, each with a result of its own in `partial`, which a second launch puts together in
// order. How many there are depends on `reduced` and `inner` alone, so an image's bits do not depend on the batch.
#pragma once

#include "simt/status.h"

#include <cstdint>
#include <vector>

namespace gpucnn {

// How sums become results.
enum class Finish { none, divide, root, log, power };

enum class Storage { float32, float16, bfloat16 };

struct ReduceArguments {
  const void* x;
  std::int64_t outer, reduced, inner;  // reduced may be 0, the others are not
  const void* centre;                  // (outer, inner), what terms are relative to; null where they are not
  Storage centre_storage;              // whatever that of x is
  float exponent;                      // of terms
  Finish finish;
  float finish_by;  // the divisor or exponent
  float* partial;   // (outer, splits, inner); null where there is one split
  void* y;          // (outer, inner)
  Storage y_storage;
};

// The parts that `reduced` terms are cut into, at least 1.
[[nodiscard]] std::int64_t reduction_splits(std::int64_t reduced, std::int64_t inner);

using ReduceLauncher = simt::Status (*)(const ReduceArguments&, simt::Stream);

struct ReduceFunction {
  const char* name;
  bool has_centre;
  ReduceLauncher float32, float16, bfloat16;
};

using ReduceFunctions = std::vector<ReduceFunction>;

void add_sums(ReduceFunctions& functions);
void add_powers(ReduceFunctions& functions);
void add_extrema(ReduceFunctions& functions);

// The second launch: partial (outer, splits, inner), which is `a.reduced` = splits long, added up.
[[nodiscard]] simt::Status add_partials(const ReduceArguments& a, simt::Stream stream);

// An array (outer, reduced, inner) with elements.
struct Extents {
  std::int64_t outer, reduced, inner;
};

// Gradients; reduced and inner below 2^31.   x, dx (outer, reduced, inner)   dy, y, mean, counts (outer, inner)

// dx = (x - mean) * scale, with scale = 2 dy / divisor, or for a root y of the variance dy / (divisor y), 0 where y is
// 0.
template <typename T>
[[nodiscard]] simt::Status var_grad(const T* dy, const T* x, const T* y, const float* mean, T* dx, const Extents& e,
                                    float divisor, bool root, simt::Stream stream);

// dx = dy / counts where x equals y, else 0.
template <typename T>
[[nodiscard]] simt::Status extremum_grad(const T* dy, const T* x, const T* y, const float* counts, T* dx,
                                         const Extents& e, simt::Stream stream);

// dx = dy * the product of all other x of its row.
template <typename T>
[[nodiscard]] simt::Status prod_grad(const T* dy, const T* x, T* dx, const Extents& e, simt::Stream stream);

}  // namespace gpucnn

// The end of a launch that computes a loss for each of many rows: what the last block writes. For .cu files.
#pragma once

#include "common/flag.h"
#include "common/ordered_sum.h"
#include "loss/loss.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {

// sums: of the losses, and of what a mean divides by; each thread has its part. All threads of every block call it.
template <int kThreads, typename T>
__device__ __forceinline__ void write_reduced(bool is_mean, Floats<2>& sums, T* loss, float* total, unsigned* memory,
                                              std::int64_t* flag, bool check_loss) {
  if (!sum_in_order<kThreads>(memory, sums) || threadIdx.x != 0) return;
  const T rounded = simt::from_float<T>(is_mean ? sums[0] / sums[1] : sums[0]);
  *loss = rounded;
  *total = sums[1];
  if (check_loss && !is_finite(simt::to_float(rounded))) raise_flag(flag, Trouble::kLoss, 0);
}

}  // namespace gpucnn

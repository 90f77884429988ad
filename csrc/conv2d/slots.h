// Sums that several threads of a block have parts of, added in order. For .cu files.
#pragma once

#include "common/pack.h"
#include "simt/simt.h"

namespace gpucnn {

// Adds to the sums of slot 0 those of slots 1, 2, ..., in this order, for each of `units` units: thread
// slot * units + unit of a block has the slot's sums of the unit; what comes after the last slot is left alone.
// shared: 16 floats a thread, which nobody uses before or until a barrier after. All threads of a block call it.
__device__ __forceinline__ void add_slots(Floats<4> (&sums)[4], float* shared, int slot, int slots, int unit,
                                          int units) {
  float* const line = shared + (slot * units + unit) * 16;
  if (slot < slots) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {  // turned: other lanes, other banks
      store(line + (i + (slot * units + unit) / 2) % 4 * 4, sums[i]);
    }
  }
  __syncthreads();
  if (slot > 0) return;
  for (int other = 1; other < slots; ++other) {
    const float* const theirs = line + other * units * 16;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Floats<4> value = load<4>(theirs + (i + (other * units + unit) / 2) % 4 * 4);
#pragma unroll
      for (int j = 0; j < 4; ++j) sums[i][j] += value[j];
    }
  }
}

}  // namespace gpucnn

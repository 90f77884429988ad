// What a GPU can do, as far as choosing a tile depends on it. gpucnn/profile/devices.py describes some GPUs in the same
// figures.
#pragma once

namespace gpucnn {

struct Machine {
  int multiprocessors;
  double fp32;    // products of float32, added up, a cycle and multiprocessor
  double matrix;  // the same of 16-bit numbers by mma.sync; of TF32 it is half as many
  double l2;      // bytes a cycle that the second-level cache delivers to all multiprocessors together
  double cache;   // bytes that it holds
  double dram;    // bytes a cycle from device memory
  double clock;   // cycles a second
};

// What the runtime does not say of a GPU is known by its compute capability; of one newer than these, by the newest
// before it. Whether cards of 8.6 and 8.9 multiply 16 bits at 256 or twice that is not told by their capability.
constexpr Machine machine_of(int major, int minor, int multiprocessors, double clock, double cache,
                             double bytes_a_second) {
  struct Rates {
    int capability;
    double fp32, matrix, l2;
  };
  constexpr Rates rates[] = {
      {80, 64, 1024, 5120},  {86, 128, 256, 2048},  {87, 128, 512, 2048},
      {89, 128, 256, 2048},  {90, 128, 1200, 5120},  // mma.sync reaches 1,200 of 2,048: the rest is wgmma's
      {120, 128, 256, 2048},
  };
  Rates found = rates[0];
  for (const Rates& each : rates) {
    if (each.capability <= 10 * major + minor) found = each;
  }
  return {multiprocessors, found.fp32, found.matrix, found.l2, cache, bytes_a_second / clock, clock};
}

inline constexpr Machine kH100 = machine_of(9, 0, 132, 1.83e9, 50 << 20, 3.35e12);

// The current device, described once; an H100 where there is none, and always on the CPU, so that what is chosen there
// is what a GPU would be given. The same GPU model gives the same figures, and so the same choices and bits.
[[nodiscard]] const Machine& machine();  // device/bindings.cpp for CUDA, simt/machine.cpp for the CPU

}  // namespace gpucnn

// CUDA's vocabulary for the host compiler: qualifiers, vector types, built-in variables. No runtime behind it.
//
// Names are CUDA's own and therefore global. Included by host.h; a kernel source includes simt.h.
#pragma once

#include <cstddef>
#include <cstdint>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

struct __align__(8) int2 {
  int x, y;
};
struct __align__(16) int4 {
  int x, y, z, w;
};
struct __align__(8) uint2 {
  unsigned x, y;
};
struct __align__(16) uint4 {
  unsigned x, y, z, w;
};
struct __align__(8) float2 {
  float x, y;
};
struct __align__(16) float4 {
  float x, y, z, w;
};

constexpr int2 make_int2(int x, int y) {
  return {x, y};
}
constexpr int4 make_int4(int x, int y, int z, int w) {
  return {x, y, z, w};
}
constexpr uint2 make_uint2(unsigned x, unsigned y) {
  return {x, y};
}
constexpr uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
  return {x, y, z, w};
}
constexpr float2 make_float2(float x, float y) {
  return {x, y};
}
constexpr float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}

// Constant for the thread that reads them, across barriers too; the runtime rewrites them whenever it changes fibers
// (and declares them otherwise to do so). Launches are one at a time, so no two threads of the system see them at once.
// Hidden, so that each compiled module has its own.
#define GPUCNN_SIMT_HIDDEN __attribute__((visibility("hidden")))
extern const uint3 threadIdx GPUCNN_SIMT_HIDDEN;
extern const uint3 blockIdx GPUCNN_SIMT_HIDDEN;
extern const dim3 blockDim GPUCNN_SIMT_HIDDEN;
extern const dim3 gridDim GPUCNN_SIMT_HIDDEN;
constexpr int warpSize = 32;

namespace gpucnn::simt {

// A place in the source. As the default argument `Site site = Site::here()` it is the caller's.
struct Site {
  const char* file;
  int line;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

}  // namespace gpucnn::simt

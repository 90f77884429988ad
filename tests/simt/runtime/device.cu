// Every name that the layer offers, used once: compiled by nvcc, and looked at in the PTX, never run.
#include "simt/ptx.h"

#include <cstdint>

using namespace gpucnn;

namespace {

template <typename T>
__device__ float both_ways(float x) {
  return simt::to_float(simt::from_float<T>(x));
}

__global__ void __launch_bounds__(128) kernel(const float* x, float* y, int n) {
  SIMT_SHARED(float, tile, [16][33]);
  SIMT_SHARED(int, total, );
  SIMT_DYNAMIC_SHARED(std::uint32_t, buffer);
  const int t = static_cast<int>(threadIdx.x);
  tile[t / 32][t % 32] = simt::load_if(t < n, x + t);
  if (t == 0) total = 0;
  simt::cp_async<4>(buffer + t, x + t);
  simt::cp_async<8>(buffer + 256 + 2 * t, x + 2 * t, t < n);
  simt::cp_async<16>(buffer + 512 + 4 * t, x + 4 * t);
  simt::cp_async_commit();
  simt::cp_async_wait_group<1>();
  simt::cp_async_wait_all();
  __syncthreads();
  std::uint32_t a[4], b[2], one[1];
  float d[4] = {};
  simt::ldmatrix_x1(one, buffer + 4 * t);
  simt::ldmatrix_x2(b, buffer + 4 * t);
  simt::ldmatrix_x4(a, buffer + 4 * t);
  simt::mma_m16n8k16_bf16(d, a, b);
  simt::mma_m16n8k16_fp16(d, a, b);
  simt::ldmatrix_x1_trans(one, buffer + 4 * t);
  simt::ldmatrix_x2_trans(b, buffer + 4 * t);
  simt::ldmatrix_x4_trans(a, buffer + 4 * t);
  simt::mma_m16n8k8_tf32(d, a, b);
  __syncwarp();
  atomicAdd(&total, __reduce_add_sync(~0u, t) + static_cast<int>(__ballot_sync(~0u, t & 1)));
  float sum = __shfl_xor_sync(~0u, d[0], 1) + __shfl_down_sync(~0u, d[1], 2) + __shfl_up_sync(~0u, d[2], 4);
  sum += __shfl_sync(~0u, d[3], 0) + static_cast<float>(one[0]) + both_ways<simt::half>(sum);
  sum += both_ways<simt::bfloat16>(sum) + tile[t % 16][t / 16] + __ldg(x) + static_cast<float>(min(t, n));
  __threadfence();
  __syncthreads();
  const float4 wide = simt::vload<float4>(x + 4 * t);
  simt::vstore(y + 4 * t, make_float4(wide.w, sum, wide.y, static_cast<float>(total)));
}

}  // namespace

simt::Status launch_kernel(const float* x, float* y, int n, simt::Stream stream) {
  int count = 0;
  if (const simt::Status status = simt::multiprocessors(&count); status != simt::kSuccess) return status;
  return simt::launch(kernel, dim3(static_cast<unsigned>(count)), dim3(128), 64 * 1024, stream, x, y, n);
}

// What anew() and store_global() are for, by names that the PTX shows.

extern "C" __global__ void quotient_kept(unsigned* y, unsigned divisor) {
  y[0] = blockIdx.x / divisor;
  y[1] = blockIdx.x / divisor;
}
extern "C" __global__ void quotient_anew(unsigned* y, unsigned divisor) {
  y[0] = blockIdx.x / divisor;
  y[1] = simt::anew(blockIdx.x) / divisor;
}

extern "C" __global__ void store_2(const uint2* x, uint2* y) {
  simt::store_global(y + threadIdx.x, x[threadIdx.x]);
}
extern "C" __global__ void store_4(const uint4* x, uint4* y) {
  simt::store_global(y + threadIdx.x, x[threadIdx.x]);
}

// The other path stores the same numbers one by one, which is what the compiler could make of both.
extern "C" __global__ void store_beside(unsigned* y, uint4 x, bool wide, int count) {
  if (wide) {
    simt::store_global(y, x);
  } else {
    if (count > 0) y[0] = x.x;
    if (count > 1) y[1] = x.y;
    if (count > 2) y[2] = x.z;
    if (count > 3) y[3] = x.w;
  }
}

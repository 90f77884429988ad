// The layer every kernel is written against: one source, compiled by nvcc for the GPU and by g++ for the CPU.
//
// A kernel source includes this file (and simt/ptx.h for instructions) and nothing of CUDA's. Under nvcc the names
// below are CUDA's own or thin wrappers (cuda.h). Under a host compiler every CUDA thread is a fiber that a scheduler
// runs one at a time (host.h), and what a kernel does wrong is a Fault that says where. Both sides offer:
//
//   launch(kernel, grid, block, shared_bytes, stream, arguments...) -> Status     never <<<>>>
//   multiprocessors(&count) -> Status
//   SIMT_SHARED(float, tile, [16][33]);     static shared memory, aligned to 16; SIMT_SHARED(float, total, ); for one
//   SIMT_DYNAMIC_SHARED(float, buffer);     float* buffer, aligned to 1,024: the launch's shared_bytes
//   vload<float4>(p)  vstore<float4>(p, v)  one access of that width (1 to 16 bytes); p must be aligned to it
//   load_if(ok, p, otherwise = 0)           *p where ok; p is not followed where not
//   half  bfloat16  to_float(h)  from_float<half>(x)     rounded to nearest, ties to even; of float, itself
//   threadIdx ... __syncthreads() __syncwarp() __shfl_*_sync() __ballot_sync() __any_sync() __all_sync()
//   __reduce_*_sync() atomicAdd() ... __ldg() __threadfence() min() max(): as in CUDA
//
// Rules of kernel sources, which the host enforces where it can: wide and guarded access through the functions above;
// shared memory through the macros; full masks on warp intrinsics, and all lanes come to them; no return before a
// barrier; no floating-point atomics; no inline assembly outside this folder.
#pragma once

#if defined(__CUDACC__)
#include "simt/cuda.h"
#else
#include "simt/host.h"
#endif

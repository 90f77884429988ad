// Kernels that do something wrong, by name. A comment "@name" at a line's end marks what the Fault has to point at.
#include "runtime.h"

#include <cstring>

namespace {

volatile int zero = 0;  // to hide from the compiler what is known

__device__ __attribute__((noinline)) float deep(volatile float* results, int depth) {
  volatile float frame[64];
  for (int i = 0; i < 64; ++i) frame[i] = results[0];
  return depth > 0 ? deep(results, depth - 1) + frame[depth % 64] : frame[0];
}

struct Case {
  const char* name;
  void (*kernel)(float*);
  dim3 block = dim3(128);
  std::size_t shared_bytes = 0;
};

const Case cases[] = {
    {"nothing",
     [](float* results) {
       SIMT_SHARED(float, tile, [128]);
       const int t = linear_thread();
       tile[t] = static_cast<float>(t);
       __syncthreads();
       results[t] = tile[127 - t];
     }},
    {"divergent_barrier",
     [](float*) {
       if (threadIdx.x < 64) {
         __syncthreads();  // @divergent_barrier
       } else {
         __syncthreads();  // @divergent_barrier
       }
     }},
    {"early_return",
     [](float*) {
       if (threadIdx.x == 77) return;
       __syncthreads();  // @early_return
     }},
    {"late_barrier",  // the last to come finds that another has gone
     [](float*) {
       __syncthreads();
       if (threadIdx.x < 127) return;
       __syncthreads();  // @late_barrier
     }},
    {"early_return_in_warp",
     [](float*) {
       if (threadIdx.x == 40) return;
       __syncwarp();  // @early_return_in_warp
     }},
    {"return_while_awaited",
     [](float*) {
       if (threadIdx.x == 31) return;
       __ballot_sync(~0u, 1);  // @return_while_awaited
     }},
    {"own_lane_missing",
     [](float*) {
       if (threadIdx.x == 3) __syncwarp(0xfffffff7u);  // @own_lane_missing
     }},
    {"mask_too_narrow",
     [](float*) {
       if (threadIdx.x < 8) __shfl_down_sync(0xffu, 1, 4);  // @mask_too_narrow
     }},
    {"overlapping_masks",
     [](float*) {
       if (threadIdx.x < 16) {
         __syncwarp(0x0001ffffu);  // @overlapping_masks
       } else if (threadIdx.x < 32) {
         __syncwarp(0xffff8000u);  // @overlapping_masks
       }
     },
     dim3(32)},
    {"different_operations",
     [](float*) {
       if (threadIdx.x % 2) {
         __any_sync(~0u, 1);  // @different_operations
       } else {
         __all_sync(~0u, 1);  // @different_operations
       }
     }},
    {"different_lines",
     [](float*) {
       if (threadIdx.x % 2) {
         __shfl_xor_sync(~0u, 1, 1);  // @different_lines
       } else {
         __shfl_xor_sync(~0u, 1, 1);  // @different_lines
       }
     }},
    {"width", [](float*) { __shfl_sync(~0u, 1, 0, 12); }},  // @width
    {"deadlock",
     [](float*) {
       if (threadIdx.x % 32 < 16) {
         __syncthreads();  // @deadlock
       } else {
         __syncwarp();  // @deadlock
       }
     }},
    {"misaligned_load", [](float* results) { results[0] = simt::vload<float4>(results + 1).x; }},  // @misaligned_load
    {"misaligned_store", [](float* results) { simt::vstore(results + 1, make_float2(1, 2)); }},    // @misaligned_store
    {"misaligned_global_store",
     [](float* results) { simt::store_global(results + 2, uint4{}); }},  // @misaligned_global_store
    {"misaligned_guarded_load",
     [](float* results) {
       const auto p = reinterpret_cast<const float4*>(results + 2);
       results[0] = simt::load_if(true, p).x;  // @misaligned_guarded_load
     }},
    {"misaligned_copy_to",
     [](float* results) {
       SIMT_DYNAMIC_SHARED(float, buffer);
       simt::cp_async<16>(buffer + 2, results);  // @misaligned_copy_to
     },
     dim3(1), 64},
    {"misaligned_copy_from",
     [](float* results) {
       SIMT_DYNAMIC_SHARED(float, buffer);
       simt::cp_async<8>(buffer, results + 1);  // @misaligned_copy_from
     },
     dim3(1), 64},
    {"copy_to_global", [](float* results) { simt::cp_async<4>(results, results + 8); }},  // @copy_to_global
    {"copy_from_shared",
     [](float*) {
       SIMT_DYNAMIC_SHARED(float, buffer);
       simt::cp_async<4>(buffer, buffer + 8);  // @copy_from_shared
     },
     dim3(1), 64},
    {"copy_past_the_end",
     [](float* results) {
       SIMT_DYNAMIC_SHARED(float, buffer);
       simt::cp_async<16>(buffer + 16, results);  // @copy_past_the_end
     },
     dim3(1), 64},
    {"misaligned_rows",
     [](float*) {
       SIMT_DYNAMIC_SHARED(float, buffer);
       std::uint32_t r[2];
       simt::ldmatrix_x2(r, buffer + linear_thread());  // @misaligned_rows
     },
     dim3(32), 1024},
    {"rows_in_global",
     [](float* results) {
       std::uint32_t r[1];
       simt::ldmatrix_x1_trans(r, results);  // @rows_in_global
     },
     dim3(32)},
    {"half_a_warp_multiplies",
     [](float*) {
       std::uint32_t a[4] = {}, b[2] = {};
       float d[4] = {};
       if (threadIdx.x < 16) simt::mma_m16n8k16_bf16(d, a, b);  // @half_a_warp_multiplies
     },
     dim3(32)},
    {"written_past_the_end",
     [](float*) {
       SIMT_SHARED(float, tile, [100]);  // @written_past_the_end
       if (threadIdx.x == 7) tile[100 + zero] = 1;
     }},
    {"written_before_the_start",
     [](float*) {
       SIMT_SHARED(float, first, [100]);
       SIMT_SHARED(float, tile, [100]);  // @written_before_the_start
       first[0] = 1;
       if (threadIdx.x == 7) (&tile[0])[zero - 1] = 1;
     }},
    {"written_past_dynamic",
     [](float*) {
       SIMT_DYNAMIC_SHARED(float, buffer);
       if (threadIdx.x == 7) buffer[16] = 1;
     },
     dim3(128), 64},
    {"no_dynamic_memory",
     [](float* results) {
       SIMT_DYNAMIC_SHARED(float, buffer);
       results[0] = buffer[0];
     }},
    {"too_much_static",
     [](float* results) {
       SIMT_SHARED(float, half_of_it, [6 * 1024]);
       SIMT_SHARED(float, too_much, [6 * 1024 + 1]);  // @too_much_static
       results[0] = half_of_it[0] + too_much[0];
     }},
    {"too_much_together",
     [](float* results) {
       SIMT_SHARED(float, on_top, [1024]);  // @too_much_together
       results[0] = on_top[0];
     },
     dim3(1), 224 * 1024},
    {"stack_overflow", [](float* results) { results[0] = deep(results, 100000 + zero); }},
    {"null",
     [](float* results) {
       const auto nowhere = reinterpret_cast<float*>(static_cast<std::uintptr_t>(zero));
       if (threadIdx.x == 9) nowhere[0] = results[0];  // @null
     }},
    {"wild",
     [](float* results) {
       if (threadIdx.x == 9) (results - (std::size_t{1} << 38))[0] = 1;  // @wild
     }},
    {"trap",
     [](float*) {
       if (threadIdx.x == 9) __builtin_trap();  // @trap
     }},
#if defined(__x86_64__)  // other processors answer with 0, as GPUs answer with something
    {"zero_division",
     [](float* results) {
       if (threadIdx.x == 9) results[0] = static_cast<float>(7 / zero);  // @zero_division
     }},
#endif
};

}  // namespace

// The same kernels as functions with names, as a Fault calls them.
template <int kRows, typename T>
__global__ void named_kernel(const T*, int) {
  if (threadIdx.x == 1) return;
  __syncthreads();
}
namespace some::nested {
namespace {
__global__ void hidden_kernel(float*) {
  if (threadIdx.x == 1) return;
  __syncthreads();
}
}  // namespace
}  // namespace some::nested

// "no such case" where there is none.
TEST_FUNCTION run_case(const char* name, float* results) {
  for (const Case& one : cases) {
    if (std::strcmp(one.name, name) == 0) return fault_of(one.kernel, dim3(2), one.block, one.shared_bytes, results);
  }
  return "no such case";
}
TEST_FUNCTION run_named(int which, const unsigned* block) {
  const dim3 shape(block[0], block[1], block[2]);
  if (which == 0) return fault_of(named_kernel<3, float>, dim3(1), shape, 0, nullptr, 1);
  return fault_of(some::nested::hidden_kernel, dim3(1), shape, 0, nullptr);
}
extern "C" __attribute__((visibility("default"))) const char* case_names() {
  static std::string names;
  names.clear();
  for (const Case& one : cases) names += std::string(one.name) + "\n";
  return names.c_str();
}

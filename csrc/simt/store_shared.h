// store_shared(p, word): one store of 16 bytes to shared memory, of which p is a multiple, that the compiler does not
// take to pieces. It makes four of a store of elements that come by several ways, such as zeros beside what was read.
#pragma once

#include "simt/ptx.h"

#include <cstdint>

namespace gpucnn::simt {

#if defined(__CUDACC__)
__device__ __forceinline__ void store_shared(void* p, const uint4& word) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(detail::shared_address(p)), "r"(word.x), "r"(word.y),
               "r"(word.z), "r"(word.w)
               : "memory");
}
#else
__forceinline__ void store_shared(void* p, const uint4& word, Site site = Site::here()) {
  vstore(p, word, site);
}
#endif

}  // namespace gpucnn::simt

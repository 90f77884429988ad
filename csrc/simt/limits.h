// What the hardware takes: compute capability 8.0 and up, except that shared memory is 9.0's. Internal to the runtime.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gpucnn::simt::detail {

constexpr unsigned kMaxBlockZ = 64;  // x and y may have all of a block's 1,024 threads
constexpr std::uint64_t kMaxGridX = 0x7fffffff, kMaxGridYZ = 65535;
constexpr std::size_t kMaxStaticSharedBytes = 48 << 10, kMaxSharedBytes = 227 << 10;

}  // namespace gpucnn::simt::detail

// Many tensors in one launch: a table of them as a kernel's parameter, in which a block finds its part. For .cu files.
#pragma once

#include "common/index.h"
#include "common/pack.h"
#include "optim/optim.h"
#include "simt/simt.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace gpucnn {

constexpr int kTableThreads = 256;
constexpr int kTableElements = 4096;  // of a block
constexpr int kTableTensors = 64;     // of a launch; a power of two

struct TensorTable {
  OptimTensor tensors[kTableTensors];
  std::int32_t first_block[kTableTensors];  // of each tensor, rising; those after the last begin beyond the grid
};
static_assert(sizeof(TensorTable) <= 3584, "of the 4 KB that a kernel's parameters may take");

// body(width, tensor, at) for each of the calling thread's packs, which begin at element `at` of the block's tensor:
// `width` is a constant of kWidth, or of 1 where an array of the tensor is not aligned and at its end.
template <int kWidth, typename Body>
__device__ __forceinline__ void for_each_pack(const TensorTable& table, Body body) {
  const int block = static_cast<int>(blockIdx.x);
  int number = 0;  // of the last tensor that begins at this block or before
#pragma unroll
  for (int step = kTableTensors / 2; step > 0; step /= 2) {
    number += table.first_block[number + step] <= block ? step : 0;
  }
  const OptimTensor& tensor = table.tensors[number];
  const std::int64_t begin = std::int64_t{block - table.first_block[number]} * kTableElements;
  const std::int64_t end = min(begin + kTableElements, tensor.size);
  const auto address = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p); };
  const bool aligned = (address(tensor.parameter) | address(tensor.gradient) | address(tensor.state[0]) |
                        address(tensor.state[1]) | address(tensor.master)) %
                           16 ==
                       0;
  const std::int64_t packed = aligned ? begin + (end - begin) / kWidth * kWidth : begin;
  for (std::int64_t at = begin + threadIdx.x * kWidth; at < packed; at += kTableThreads * kWidth) {
    body(std::integral_constant<int, kWidth>(), tensor, at);
  }
  for (std::int64_t at = packed + threadIdx.x; at < end; at += kTableThreads) {
    body(std::integral_constant<int, 1>(), tensor, at);
  }
}

// launch(blocks, table, is_last) for kTableTensors of them at a time; with `always` at least once.
template <typename Launch>
simt::Status for_each_table(const std::vector<OptimTensor>& tensors, bool always, Launch launch) {
  std::size_t next = 0;
  do {
    TensorTable table{};
    std::int64_t blocks = 0;
    int count = 0;
    for (; next < tensors.size() && count < kTableTensors; ++next) {
      const OptimTensor& tensor = tensors[next];
      const std::int64_t more = blocks_of(kTableElements, tensor.size);
      if (more == 0) continue;
      if (blocks + more >= 0x7fffffff) break;
      table.tensors[count] = tensor;
      table.first_block[count++] = static_cast<std::int32_t>(blocks);
      blocks += more;
    }
    if (blocks == 0 && !always) return simt::kSuccess;
    if (blocks == 0) count = blocks = 1;  // of a tensor without elements
    std::fill(table.first_block + count, table.first_block + kTableTensors, 0x7fffffff);
    const simt::Status status = launch(static_cast<unsigned>(blocks), table, next == tensors.size());
    if (status != simt::kSuccess) return status;
  } while (next < tensors.size());
  return simt::kSuccess;
}

}  // namespace gpucnn

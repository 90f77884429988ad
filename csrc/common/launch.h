// The one way to launch a kernel. For .cu files.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

namespace gpucnn {

// Launches kernel(arguments...) on `stream` and says whether the launch was accepted. An error is taken off CUDA's
// record, so that the next library to look there does not find ours; what the kernel itself does wrong while it runs
// is reported by a later call, as always with CUDA.
template <typename... Parameters, typename... Arguments>
[[nodiscard]] cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
                                 cudaStream_t stream, Arguments&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  const cudaError_t code = cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
  if (code != cudaSuccess) cudaGetLastError();
  return code;
}

}  // namespace gpucnn

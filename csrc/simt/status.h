// A launch's stream and outcome: what menus of launchers and bindings say of the layer. Kernels include simt.h instead.
//
// nvcc compiles kernels and g++ the bindings of gpucnn._cuda, so __CUDACC__ alone does not tell what a header is read
// for: the build gives g++ GPUCNN_FOR_CUDA there. Without either, everything is for the CPU.
#pragma once

#if defined(__CUDACC__) || defined(GPUCNN_FOR_CUDA)

#include <cuda_runtime_api.h>

namespace gpucnn::simt {

using Stream = cudaStream_t;
using Status = cudaError_t;
inline constexpr Status kSuccess = cudaSuccess;

}  // namespace gpucnn::simt

#else

#include <cstddef>
#include <stdexcept>

namespace gpucnn::simt {

using Stream = void*;           // null: a launch runs to its end before it returns
enum class Status { success };  // what can go wrong is thrown as a Fault
inline constexpr Status kSuccess = Status::success;

// A launch that the hardware would refuse, or what a kernel did wrong: names kernel, block, threads and source lines.
// The launch's outputs are then undefined and the process goes on. Python sees it as the module's SimtError.
class Fault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Announces memory that kernels may touch until it is taken back: the race flavour reports accesses beyond it.
void register_buffer(const void* data, std::size_t bytes);
void unregister_buffer(const void* data);

}  // namespace gpucnn::simt

#endif

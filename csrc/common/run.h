// The one way from a binding to a launcher: the last checks, the launch without the GIL, and what went wrong in the
// user's terms. For bindings.cpp files; nothing of Python may be touched inside the launcher.
#pragma once

#include "common/array_view.h"
#include "simt/status.h"

#include <pybind11/pybind11.h>

#include <cstddef>
#include <string>
#include <utility>

#ifdef GPUCNN_FOR_CUDA

#include "common/check.h"

namespace gpucnn {
namespace detail {

// Throws ValueError unless the memory belongs to `device`: a kernel that follows a foreign pointer takes the whole
// process's CUDA down with it.
inline void require_on_device(const char* op, const Argument& array, int device) {
  if (array.bytes == 0) return;
  cudaPointerAttributes attributes{};
  const cudaError_t code = cudaPointerGetAttributes(&attributes, array.data);
  if (code == cudaSuccess && attributes.type == cudaMemoryTypeManaged) return;
  if (code == cudaSuccess && attributes.type == cudaMemoryTypeDevice && attributes.device == device) return;
  if (code != cudaSuccess) cudaGetLastError();  // an unknown pointer is the user's error, not CUDA's
  const bool elsewhere = code == cudaSuccess && attributes.type == cudaMemoryTypeDevice;
  throw py::value_error(std::string(op) + ": argument '" + array.name + "' of shape " + in_words(array.shape) +
                        (elsewhere ? " lies on cuda:" + std::to_string(attributes.device) : " is not device memory") +
                        "; the current device is cuda:" + std::to_string(device));
}

}  // namespace detail

// Calls `launcher`, which returns what CUDA says of its launches, for `op` on `arguments` (all of the call's arrays).
// Throws CudaError where there is no device or the launch fails, ValueError for an array that is not on the device.
template <typename Launcher>
void run(const char* op, const Arguments& arguments, Launcher&& launcher) {
  const int device = require_device(op);
  for (const Argument& array : arguments) detail::require_on_device(op, array, device);
  simt::Status status;
  {
    const py::gil_scoped_release without_gil;
    status = std::forward<Launcher>(launcher)();
  }
  if (status != simt::kSuccess) throw_cuda_error(status, op, in_words(arguments));
}

}  // namespace gpucnn

#else

namespace gpucnn {
namespace detail {

// The arrays of a call, announced to the checkers for as long as it runs.
class Announced {
 public:
  explicit Announced(const Arguments& arguments) : arguments_(arguments) {
    for (const Argument& array : arguments_) simt::register_buffer(array.data, static_cast<std::size_t>(array.bytes));
  }
  ~Announced() {
    for (const Argument& array : arguments_) simt::unregister_buffer(array.data);
  }
  Announced(const Announced&) = delete;
  Announced& operator=(const Announced&) = delete;

 private:
  const Arguments& arguments_;
};

}  // namespace detail

// Calls `launcher`, whose launches have ended when it returns, for `op` on `arguments` (all of the call's arrays).
// Throws Fault, which Python sees as SimtError, for what a launch or a kernel does wrong.
template <typename Launcher>
void run(const char* op, const Arguments& arguments, Launcher&& launcher) {
  try {
    const py::gil_scoped_release without_gil;
    const detail::Announced announced(arguments);
    static_cast<void>(std::forward<Launcher>(launcher)());  // success: anything else is thrown
  } catch (const simt::Fault& fault) {
    throw simt::Fault(std::string(op) + ": " + fault.what() + " (" + in_words(arguments) + ")");
  }
}

}  // namespace gpucnn

#endif

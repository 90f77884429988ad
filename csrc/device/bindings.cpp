// What the machine offers: versions, devices and their properties. Works, and says so, where there is no GPU.
#include "common/check.h"
#include "common/machine.h"

#include <pybind11/pybind11.h>

#include <cstddef>
#include <deque>
#include <mutex>
#include <optional>
#include <string>

namespace gpucnn {
namespace {

namespace py = pybind11;

int runtime_version() {
  int version = 0;
  check(cudaRuntimeGetVersion(&version), "runtime_version", "no arguments");
  return version;
}

int driver_version() {
  int version = 0;
  check(cudaDriverGetVersion(&version), "driver_version", "no arguments");
  return version;
}

py::tuple device_count() {
  const DeviceCount devices = count_devices();
  return py::make_tuple(devices.count, devices.message);
}

// Makes a device current for a scope: cudaMemGetInfo answers for the current one only.
class CurrentDevice {
 public:
  CurrentDevice(int device, const std::string& arguments) {
    check(cudaGetDevice(&previous_), "device_properties", arguments);
    check(cudaSetDevice(device), "device_properties", arguments);
  }
  ~CurrentDevice() { cudaSetDevice(previous_); }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int previous_ = 0;
};

py::dict device_properties(int device) {
  const DeviceCount devices = count_devices();
  if (devices.count == 0) throw CudaError("device_properties: no CUDA device: " + devices.message);
  if (device < 0 || device >= devices.count) {
    throw py::value_error("device_properties: device " + std::to_string(device) + " is not one of the " +
                          std::to_string(devices.count) + " that there are");
  }
  const std::string arguments = "device " + std::to_string(device);
  cudaDeviceProp properties{};
  std::size_t free_bytes = 0, total_bytes = 0;
  {
    const py::gil_scoped_release without_gil;  // the first use of a device takes a while
    check(cudaGetDeviceProperties(&properties, device), "device_properties", arguments);
    const CurrentDevice current(device, arguments);
    check(cudaMemGetInfo(&free_bytes, &total_bytes), "device_properties", arguments);
  }
  py::dict answer;
  answer["name"] = std::string(properties.name);
  answer["compute_capability"] = py::make_tuple(properties.major, properties.minor);
  answer["multiprocessors"] = properties.multiProcessorCount;
  answer["total_memory"] = total_bytes;
  answer["free_memory"] = free_bytes;
  return answer;
}

// The figures of one device, or an H100's for those that the driver does not give.
Machine described(int device) {
  int major = 0, minor = 0, multiprocessors = 0, kilohertz = 0, memory_kilohertz = 0, bits = 0, cache = 0;
  const auto ask = [device](int* value, cudaDeviceAttr attribute) {
    return cudaDeviceGetAttribute(value, attribute, device) == cudaSuccess && *value > 0;
  };
  const bool known = ask(&major, cudaDevAttrComputeCapabilityMajor) &&
                     ask(&multiprocessors, cudaDevAttrMultiProcessorCount) && ask(&kilohertz, cudaDevAttrClockRate);
  if (!known) return kH100;
  ask(&minor, cudaDevAttrComputeCapabilityMinor);
  const bool memory = ask(&memory_kilohertz, cudaDevAttrMemoryClockRate) && ask(&bits, cudaDevAttrGlobalMemoryBusWidth);
  if (!ask(&cache, cudaDevAttrL2CacheSize)) cache = static_cast<int>(kH100.cache);
  const double clock = 1e3 * kilohertz;
  const double bytes = memory ? 2e3 * memory_kilohertz * bits / 8 : kH100.dram * clock;  // two bits a cycle and line
  return machine_of(major, minor, multiprocessors, clock, cache, bytes);
}

}  // namespace

const Machine& machine() {
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess || device < 0) {
    cudaGetLastError();  // what is wrong, whoever launches says
    return kH100;
  }
  static std::mutex mutex;
  static std::deque<std::optional<Machine>> devices;  // whose elements stay where they are
  const std::lock_guard lock(mutex);
  while (devices.size() <= static_cast<std::size_t>(device)) devices.emplace_back();
  std::optional<Machine>& found = devices[static_cast<std::size_t>(device)];
  if (!found) found = described(device);
  return *found;
}

void register_machine(py::module_& m) {
  py::register_local_exception<CudaError>(m, "CudaError", PyExc_RuntimeError);
  m.def("runtime_version", &runtime_version, "The CUDA version that this extension was built with: 13000 is 13.0.");
  m.def("driver_version", &driver_version, "The newest CUDA version that the driver supports; 0 without a driver.");
  m.def("device_count", &device_count,
        "(count, message): how many devices can be used and, if none, why. Raises CudaError if CUDA fails otherwise.");
  m.def(
      "device_properties", &device_properties, py::arg("device"),
      "name, compute_capability (major, minor), multiprocessors, total_memory and free_memory (bytes) of a device.\n\n"
      "Raises ValueError for an index that does not exist, CudaError where there is no device at all.");
}

}  // namespace gpucnn

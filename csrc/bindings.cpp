// The module gpucnn._cuda: one line an op.
#include <pybind11/pybind11.h>

namespace gpucnn {

void register_device(pybind11::module_& m);
void register_template(pybind11::module_& m);

}  // namespace gpucnn

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "gpucnn's CUDA kernels. Arrays are objects with __cuda_array_interface__; gpucnn.ops calls these.";
  gpucnn::register_device(m);
  gpucnn::register_template(m);
}

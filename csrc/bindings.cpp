// The module gpucnn._cuda and, of the same kernels for the CPU, gpucnn._simt_plain and its like: one line an op.
//
// GPUCNN_MODULE, the module's name, is the build's to say.
#include <pybind11/pybind11.h>

namespace gpucnn {

void register_machine(pybind11::module_& m);  // device/bindings.cpp for CUDA, simt/bindings.cpp for the CPU
void register_activation(pybind11::module_& m);
void register_adaptive_pool2d(pybind11::module_& m);
void register_conv2d(pybind11::module_& m);
void register_conv_transpose2d(pybind11::module_& m);
void register_dropout(pybind11::module_& m);
void register_elementwise(pybind11::module_& m);
void register_gemm(pybind11::module_& m);
void register_linear(pybind11::module_& m);
void register_loss(pybind11::module_& m);
void register_mma(pybind11::module_& m);
void register_norm(pybind11::module_& m);
void register_optim(pybind11::module_& m);
void register_ordering(pybind11::module_& m);
void register_pool2d(pybind11::module_& m);
void register_reduction(pybind11::module_& m);
void register_regression_loss(pybind11::module_& m);
void register_row_norm(pybind11::module_& m);
void register_shape(pybind11::module_& m);
void register_softmax(pybind11::module_& m);
void register_template(pybind11::module_& m);
void register_unfold(pybind11::module_& m);
void register_unpool2d(pybind11::module_& m);
void register_upsample(pybind11::module_& m);

}  // namespace gpucnn

PYBIND11_MODULE(GPUCNN_MODULE, m) {
  m.doc() = "gpucnn's kernels. Arrays are objects with an array interface; gpucnn.ops calls these.";
  gpucnn::register_machine(m);
  gpucnn::register_activation(m);
  gpucnn::register_adaptive_pool2d(m);
  gpucnn::register_conv2d(m);
  gpucnn::register_conv_transpose2d(m);
  gpucnn::register_dropout(m);
  gpucnn::register_elementwise(m);
  gpucnn::register_gemm(m);
  gpucnn::register_linear(m);
  gpucnn::register_loss(m);
  gpucnn::register_mma(m);
  gpucnn::register_norm(m);
  gpucnn::register_optim(m);
  gpucnn::register_ordering(m);
  gpucnn::register_pool2d(m);
  gpucnn::register_reduction(m);
  gpucnn::register_regression_loss(m);
  gpucnn::register_row_norm(m);
  gpucnn::register_shape(m);
  gpucnn::register_softmax(m);
  gpucnn::register_template(m);
  gpucnn::register_unfold(m);
  gpucnn::register_unpool2d(m);
  gpucnn::register_upsample(m);
}

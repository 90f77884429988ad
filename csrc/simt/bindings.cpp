// What a module for the CPU offers besides the ops: its flavour, the order of threads, and what its checker found.
#include "simt/host.h"
#include "simt/kernels.h"
#include "simt/reports.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstddef>
#include <string>
#include <tuple>
#include <vector>

namespace gpucnn {

namespace py = pybind11;

namespace simt {

// In a flavour with a checker the linker takes the checker's.
__attribute__((weak)) std::vector<std::string> take_reports() {
  return {};
}

}  // namespace simt

void register_machine(py::module_& m) {
  // Local: the modules of several flavours may be in one process, and each has to raise its own.
  py::register_local_exception<simt::Fault>(m, "SimtError", PyExc_RuntimeError);
  m.attr("flavour") = m.attr("__name__").attr("rpartition")("_").cast<py::tuple>()[2];  // gpucnn._simt_race: race
  m.def("set_order", &simt::set_order, py::arg("order"),
        "In which order a block's threads run from now on: 'fwd', 'rev', 'rand:<seed>', or 'prio:<seed>' (one warp\n"
        "first); '' leaves it to GPUCNN_SIMT_ORDER again. Raises SimtError for any other text.");
  m.def("reports", &simt::take_reports,
        "What the checker found since the last call, one text a finding; always empty in flavours without one.");
  m.def(
      "kernels",
      [] {
        std::vector<std::tuple<std::string, std::string>> all;
        for (const simt::Kernel& kernel : simt::kernels()) all.emplace_back(kernel.file, kernel.name);
        return all;
      },
      "Every kernel of the module, each instantiation of a template by itself: (source file, name), such as\n"
      "('template.cu', 'scale_kernel<half, true>').");
  m.def(
      "launched",
      [] {
        std::vector<std::tuple<std::string, std::string, int, std::size_t>> all;
        for (const simt::Launched& way : simt::take_launched()) {
          all.emplace_back(way.kernel.file, way.kernel.name, way.threads, way.shared_bytes);
        }
        return all;
      },
      "How kernels were launched since the last call, without a fault: (source file, name, threads of a block, bytes\n"
      "of dynamic shared memory), each way once.");
}

}  // namespace gpucnn

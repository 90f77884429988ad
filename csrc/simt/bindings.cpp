// What a module for the CPU offers besides the ops: its flavour, the order of threads, and what its checkers found.
#include "simt/host.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

#define GPUCNN_STRING_OF(name) #name
#define GPUCNN_STRING(name) GPUCNN_STRING_OF(name)

namespace gpucnn {

namespace py = pybind11;

void register_machine(py::module_& m) {
  // Local: the modules of several flavours may be in one process, and each has to raise its own.
  py::register_local_exception<simt::Fault>(m, "SimtError", PyExc_RuntimeError);
  m.attr("flavour") = GPUCNN_STRING(GPUCNN_FLAVOUR);
  m.def("set_order", &simt::set_order, py::arg("order"),
        "In which order a block's threads run from now on, in place of GPUCNN_SIMT_ORDER: 'fwd', 'rev', 'rand:<seed>' "
        "or 'prio:<seed>' (one warp first).\n\nRaises SimtError for any other text.");
  m.def("reports", &simt::reports,
        "What the checkers found since the last call, one text a finding; always empty in flavours without one.");
}

}  // namespace gpucnn

// What a module for the CPU offers besides the ops: its flavour, the order of threads, and what its checker found.
#include "simt/host.h"
#include "simt/kernels.h"
#include "simt/profile.h"
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

namespace profile {

__attribute__((weak)) void start(int, bool) {
  throw Fault("simt: only the flavour 'profile' counts what kernels do");
}
__attribute__((weak)) std::vector<LaunchCounts> take() {
  return {};
}

}  // namespace profile
}  // namespace simt

namespace {

using simt::profile::LaunchCounts;

py::tuple triple(const dim3& shape) {
  return py::make_tuple(shape.x, shape.y, shape.z);
}

py::dict access_dict(const simt::profile::AccessCounts& c) {
  py::list worst;  // by lane: its address, None where it takes no part
  for (int lane = 0; lane < 32; ++lane) {
    const bool takes_part = c.worst_lanes >> lane & 1;
    worst.append(takes_part ? py::object(py::int_(c.worst_address[lane])) : py::object(py::none()));
  }
  using namespace py::literals;
  return py::dict("counter"_a = c.counter, "purpose"_a = c.purpose, "bytes"_a = c.bytes, "requests"_a = c.requests,
                  "lanes"_a = c.lanes, "sectors"_a = c.sectors, "ideal_sectors"_a = c.ideal_sectors,
                  "lines"_a = c.lines, "unique_bytes"_a = c.unique_bytes, "shared_requests"_a = c.shared_requests,
                  "shared_lanes"_a = c.shared_lanes, "wavefronts"_a = c.wavefronts,
                  "ideal_wavefronts"_a = c.ideal_wavefronts, "worst_is_shared"_a = c.is_worst_shared,
                  "worst_cost"_a = c.worst_cost, "worst_addresses"_a = worst);
}

py::dict launch_dict(const LaunchCounts& c) {
  py::list accesses, blocks, operations;
  for (const auto& access : c.accesses) accesses.append(access_dict(access));
  for (const auto& block : c.basic_blocks) blocks.append(py::make_tuple(block.counter, block.lanes, block.warps));
  for (const auto& o : c.operations) operations.append(py::make_tuple(o.name, o.file, o.line, o.warps));
  using namespace py::literals;
  return py::dict("file"_a = c.file, "kernel"_a = c.kernel, "grid"_a = triple(c.grid), "block"_a = triple(c.block),
                  "dynamic_shared_bytes"_a = c.shared_bytes, "static_shared_bytes"_a = c.static_shared_bytes,
                  "blocks"_a = c.blocks, "sampled_blocks"_a = c.sampled_blocks, "barriers"_a = c.barriers,
                  "sectors_read"_a = c.sectors_read, "sectors_written"_a = c.sectors_written,
                  "least_l2_sectors"_a = c.least_l2_sectors, "global_wavefronts"_a = c.global_wavefronts,
                  "steps"_a = c.steps, "longest_warp_steps"_a = c.longest_warp_steps,
                  "longest_block_steps"_a = c.longest_block_steps, "warps"_a = c.warps, "accesses"_a = accesses,
                  "basic_blocks"_a = blocks, "operations"_a = operations);
}

py::list take_profile() {
  py::list launches;
  for (const LaunchCounts& launch : simt::profile::take()) launches.append(launch_dict(launch));
  return launches;
}

}  // namespace

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
  m.def(
      "start_profile", &simt::profile::start, py::arg("sample") = 1, py::arg("only_sampled") = false,
      "Counts what launches do from now on, in every sample-th block of each; 0 ends it. With only_sampled the other\n"
      "blocks do not run, and what they would have written is undefined. Raises SimtError in every flavour but\n"
      "'profile'.");
  m.def("take_profile", &take_profile,
        "The counts of the launches since the last call, a dict each (csrc/simt/profile.h says what they are); always\n"
        "empty in other flavours.");
}

}  // namespace gpucnn

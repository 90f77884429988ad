// What is planned for a product of matrices, in Python: the tile, the parts, and how long the cost model of
// common/tiling.h expects it to take. Plain arithmetic; nothing is launched.
#include "common/machine.h"
#include "gemm/configurations.h"
#include "mma/configurations.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace gpucnn {
namespace {

namespace py = pybind11;

constexpr const char* kArithmetics = "'fp32', '16-bit', 'tf32' or 'split'";

// Calls use(tiling) with the table of an arithmetic.
template <typename Use>
auto with_tiling(const std::string& arithmetic, Use&& use) {
  if (arithmetic == "fp32") return use(gemm::kTiling);
  if (arithmetic == "16-bit") return use(mma::kTiling);
  if (arithmetic == "tf32") return use(mma::kTf32Tiling);
  if (arithmetic == "split") return use(mma::kSplitTiling);
  throw py::value_error("arithmetic must be " + std::string(kArithmetics) + ", got '" + arithmetic + "'");
}

// (multiprocessors, fp32, matrix, l2, cache, dram, clock), as in machine.h.
using Figures = std::tuple<int, double, double, double, double, double, double>;

Figures figures_of(const Machine& m) {
  return {m.multiprocessors, m.fp32, m.matrix, m.l2, m.cache, m.dram, m.clock};
}

Machine machine_from(const std::optional<Figures>& figures) {
  if (!figures) return machine();
  const auto& [multiprocessors, fp32, matrix, l2, cache, dram, clock] = *figures;
  const bool positive = multiprocessors > 0 && fp32 > 0 && matrix > 0 && l2 > 0 && cache > 0 && dram > 0 && clock > 0;
  if (!positive) throw py::value_error("the figures of a machine must all be positive");
  return {multiprocessors, fp32, matrix, l2, cache, dram, clock};
}

template <typename Table>
int numbered(const Table& tiling, const std::string& name) {
  if (name.empty()) return kAnyConfiguration;
  std::string names;
  for (int i = 0; i < tiling.kCount; ++i) {
    if (name == tiling.at(i).name) return i;
    names += (i ? ", " : "") + std::string(tiling.at(i).name);
  }
  throw py::value_error("there is no configuration '" + name + "', there are: " + names);
}

struct Planned {
  int configuration;
  std::int64_t parts;
};

// As the launchers do: all precisions of a weight gradient on tensor cores are cut alike (conv2d/tensor_core_wgrad.cu).
template <typename Table>
Planned planned(const Table& tiling, const Machine& m, std::int64_t rows, std::int64_t columns, std::int64_t depth,
                bool cut, int wanted) {
  if (!cut) return {tiling.choose(m, rows, columns, wanted), 1};
  if (tiling.unit.rate == &Machine::fp32) {
    const auto found = tiling.choose_cut(m, rows, columns, depth, wanted);
    return {found.configuration, found.parts};
  }
  const auto found = mma::kTiling.choose_cut(m, rows, columns, depth, wanted);
  const bool alike = tiling.kCount == mma::kTiling.kCount;
  return {alike ? found.configuration : tiling.choose(m, rows * found.parts, columns, wanted), found.parts};
}

py::dict product_plan(const std::string& arithmetic, std::int64_t rows, std::int64_t columns, std::int64_t depth,
                      bool cut, const std::string& configuration, const std::optional<Figures>& figures,
                      std::int64_t parts) {
  if (rows < 1 || columns < 1 || depth < 1) throw py::value_error("rows, columns and depth must be at least 1");
  const Machine m = machine_from(figures);
  return with_tiling(arithmetic, [&](const auto& tiling) {
    Planned found = planned(tiling, m, rows, columns, depth, cut, numbered(tiling, configuration));
    if (parts > 0) found.parts = parts;
    py::dict answer;
    answer["configuration"] = std::string(tiling.at(found.configuration).name);
    answer["parts"] = found.parts;
    answer["waves"] =
        tiling.waves(m, found.configuration, tiling.tiles(found.configuration, rows, columns) * found.parts);
    answer["seconds"] = tiling.cycles(m, found.configuration, rows, columns, depth, found.parts) / m.clock;
    return answer;
  });
}

}  // namespace

void register_mma(py::module_& m) {
  m.def(
      "machine", [] { return figures_of(machine()); },
      "What tiles are chosen for, the current device or, on the CPU, an H100: (multiprocessors, products of float32 "
      "and\n"
      "of 16-bit numbers by mma.sync a cycle and multiprocessor, bytes a cycle from the second-level cache, bytes\n"
      "that it holds, bytes a cycle from memory, cycles a second).");
  m.def(
      "machine_of",
      [](int major, int minor, int multiprocessors, double clock, double cache, double bytes) {
        return figures_of(machine_of(major, minor, multiprocessors, clock, cache, bytes));
      },
      py::arg("major"), py::arg("minor"), py::arg("multiprocessors"), py::arg("clock"), py::arg("cache"),
      py::arg("bytes"),
      "As machine(), of a described device: its compute capability, clock in hertz, bytes of the second-level cache,\n"
      "bytes a second of memory.");
  m.def(
      "product_configurations",
      [](const std::string& arithmetic) {
        return with_tiling(arithmetic, [](const auto& tiling) {
          std::vector<std::string> names;
          for (const Configuration& each : tiling.configurations) names.emplace_back(each.name);
          return names;
        });
      },
      py::arg("arithmetic"),
      ("The names of an arithmetic's configurations, rows by columns of a tile; arithmetic: " +
       std::string(kArithmetics) + ".")
          .c_str());
  m.def(
      "product_plan", &product_plan, py::arg("arithmetic"), py::arg("rows"), py::arg("columns"), py::arg("depth"),
      py::arg("cut") = false, py::arg("configuration") = "", py::arg("machine") = py::none(), py::arg("parts") = 0,
      "What is planned for rows x columns sums over depth, on machine(), or on one of other figures: a dict of\n"
      "configuration (its name), parts (of the depth; cut: whether it may be cut), waves (of blocks that the machine\n"
      "holds at once) and seconds (that the cost model expects multiplying and the second-level cache to take).\n"
      "Raises ValueError for sizes below 1 and unknown names.");
}

}  // namespace gpucnn

// Which kernels a module holds, and which of them have run: names from the module's own symbol table.
#pragma once

#include "simt/observer.h"

#include <cstddef>
#include <string>
#include <vector>

namespace gpucnn::simt {

// A kernel is a function whose name ends in _kernel.
struct Kernel {
  std::string file;  // "template.cu", of the source that it is defined in; empty unless it is in an unnamed namespace
  std::string name;  // "scale_kernel<half, true>": no namespaces, no parameters; so ptxas's report names it too
};

// One of the ways in which a kernel was launched.
struct Launched {
  Kernel kernel;
  int threads;               // of a block
  std::size_t shared_bytes;  // dynamic
};

// Every kernel of this module, each instantiation of a template by itself, sorted; nothing where the module was
// stripped of its symbols.
std::vector<Kernel> kernels();

// The kernel at this address; empty names where there is none.
Kernel kernel_at(const void* address);

// How kernels were launched, without a fault, since the last call: each way once, sorted.
std::vector<Launched> take_launched();

namespace detail {

void note_launched(const LaunchInfo& launch);  // while the runtime's lock is held

}  // namespace detail

}  // namespace gpucnn::simt

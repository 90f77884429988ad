// From addresses of compiled code to names that a reader of the source knows. Runs addr2line: for reports only.
#pragma once

#include <string>

namespace gpucnn::simt {

// The kernel at this address as "scale_kernel<true>": no namespaces, no parameters; "a kernel" where nothing is known.
std::string kernel_name(const void* kernel);

// "direct.cu:41" for the instruction before `return_address` (what __builtin_return_address(0) gives): the innermost
// line that is not in the layer's own headers. "an unknown line" without debug information or addr2line.
std::string source_line(const void* return_address);

}  // namespace gpucnn::simt

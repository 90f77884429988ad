// What a checker found while kernels ran, for whoever asks afterwards.
#pragma once

#include <string>
#include <vector>

namespace gpucnn::simt {

// One text a finding, in the order found, and forgets them: the next call begins anew. Defined by the checker; flavours
// without one always answer with nothing.
std::vector<std::string> take_reports();

}  // namespace gpucnn::simt

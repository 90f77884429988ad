// The GPU that the CPU stands for where a tile is chosen.
#include "common/machine.h"

namespace gpucnn {

const Machine& machine() {
  return kH100;
}

}  // namespace gpucnn

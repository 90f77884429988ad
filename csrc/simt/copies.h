// cp.async's bookkeeping, for launches. Internal to the runtime; what kernels call of it is in ptx_host.h.
#pragma once

namespace gpucnn::simt::detail {

void forget_copies();        // of the block before; those that nobody waited for never happen
void set_eager(bool eager);  // while no kernel runs

}  // namespace gpucnn::simt::detail

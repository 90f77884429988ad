// The shared memory of the block that runs. Internal to the runtime.
//
// Every array lies between redzones, and is filled with NaN when a block first comes to its declaration: what is read
// before it is written, or beside an array, shows in the results of every flavour; what is written beside one is found
// when the block ends. AddressSanitizer is told what is whose.
#pragma once

#include <cstddef>

namespace gpucnn::simt::detail {

void begin_arena();  // for the block that starts now: only its dynamic shared memory is there
void check_arena();  // that nothing was written beside its arrays. Throws Fault
void close_arena();  // after a launch, whichever way it ended

bool is_shared(const void* p);  // in the arena; whether in an array of it is not asked

}  // namespace gpucnn::simt::detail

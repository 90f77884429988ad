// The race flavour's checker: what it does. It hears of accesses through observed.h, of everything else as an Observer.
//
// Kernels are compiled with -fsanitize=thread but linked with these files in the place of libtsan, which knows neither
// blocks nor barriers and has to be preloaded. Found, each with both source lines, threads and blocks:
//
//   - two accesses to one byte of shared or global memory, at least one a write, and no barrier that orders them:
//   inside
//     a block, and between the blocks of a launch, which nothing orders. Atomics do not race with atomics. It does not
//     depend on the order in which threads happened to run;
//   - a read of shared memory that no thread of the block has written, or that a cp.async is still on its way to;
//   - an access to the block's shared memory outside the declared arrays, or to global memory outside all registered
//     buffers, if there are any. These also end the launch with a Fault, before anything is overwritten. The module's
//     own constants, the kernel's parameters and the threads' stacks are nobody's to register.
//
// Launches are ordered one after another. What happens on a thread's own stack is not looked at. __threadfence() orders
// nothing here: blocks that hand data to each other inside a launch are reported, with a fence or without.
//
// Memory: kShadowBytes at most for global memory (51 MiB of float32 or 12 MiB of bytes that one launch touches);
// a launch that touches more makes the checker forget what the launch has done in global memory so far, and a report
// says so.
#pragma once

#include <cstddef>

namespace gpucnn::simt::race {

constexpr std::size_t kShadowBytes = std::size_t{1} << 30;

}  // namespace gpucnn::simt::race

// What the compiler's instrumentation of kernels (-fsanitize=thread) tells the observer of a flavour.
// observed_entry.cpp calls; race.cpp or profile.cpp, whichever the module is linked with, listens.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gpucnn::simt {

enum class Kind : std::uint8_t { read, write, atomic };

// An access by whatever thread of a kernel runs now; does nothing outside of kernels. `site` is a return address.
void accessed(const void* p, std::size_t bytes, Kind kind, const void* site);

// A function that was not inlined has begun, or is about to return.
void function_entered();
void function_left();

}  // namespace gpucnn::simt

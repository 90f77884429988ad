// For the race flavour, included before everything else in a kernel's file (g++ -include): calls of memcpy, memmove and
// memset, which -fsanitize=thread does not instrument, go to the checker's own.
//
// An assembler name on the declaration does what `objcopy --redefine-sym` would do to the object, in the one command
// that makes it and without a tool that not every toolchain has under that name. It takes -fno-builtin-memcpy and so
// on: what the compiler knows to be memcpy it may also expand in place, where nothing sees it.
#pragma once

#include <stddef.h>

extern "C" {
void* memcpy(void* to, const void* from, size_t bytes) noexcept __asm__("__tsan_memcpy");
void* memmove(void* to, const void* from, size_t bytes) noexcept __asm__("__tsan_memmove");
void* memset(void* to, int value, size_t bytes) noexcept __asm__("__tsan_memset");
}

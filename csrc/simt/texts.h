// What a Fault says of threads, places and waiting. Internal to the runtime; read while the block stands still.
#pragma once

#include "simt/block.h"

#include <bitset>
#include <cstdint>
#include <string>

namespace gpucnn::simt::detail {

using Threads = std::bitset<kMaxThreads>;

std::string in_words(dim3 shape);               // "(2, 1, 1)"
std::string in_words(Site site);                // "direct.cu:17"
std::string mask_in_words(std::uint32_t mask);  // "0x0000ffff"
std::string thread_in_words(int thread);        // "thread 5"; "thread (5, 1, 0)" of a block of several dimensions
std::string threads_in_words(const Threads& threads);  // "threads 0-31, 64": linear indices, x fastest

// "threads 0-31 wait in __syncthreads() at a.cu:17; threads 32, 33 wait in ...; thread 34 returned".
std::string waiting_in_words();

// Throws a Fault of this text, headed by the kernel's name and the block. For the launching thread.
[[noreturn]] void throw_fault(const std::string& text);

template <typename Predicate>
Threads threads_that(Predicate predicate) {
  Threads threads;
  for (int i = 0; i < block.threads; ++i) threads[static_cast<std::size_t>(i)] = predicate(block.thread[i]);
  return threads;
}

}  // namespace gpucnn::simt::detail

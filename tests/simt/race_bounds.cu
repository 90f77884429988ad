// What the race checker's memory is bounded by: launches that touch more than it remembers, and many findings.
#include "cases.h"

namespace {

using cases::Array;

constexpr int kPage = 4096 / sizeof(int);

// One element in each of `pages` pages, then two threads that write one element; another launch has the checker anew.
__global__ void touch_pages(int* x, int pages) {
  const int t = threadIdx.x;
  for (int i = t; i < pages; i += blockDim.x) x[static_cast<std::size_t>(i) * kPage] = 1;
  __syncthreads();
  if (t == 0 || t == 40) x[1] = 2;  // @bound.write
}
void run_touch_pages(int pages, int launches) {
  Array<int> x(static_cast<std::size_t>(pages) * launches * kPage);
  for (int i = 0; i < launches; ++i) {
    cases::launch(touch_pages, 1, 64, 0, x.data() + static_cast<std::size_t>(i) * pages * kPage, pages);
  }
}
CASE(bound_kept) {
  run_touch_pages(10000, 3);
  return true;
}
CASE(bound_exceeded) {
  run_touch_pages(30000, 1);
  return true;
}

// Threads that follow one another over more pages than are remembered do not race with what is forgotten.
__global__ void sweep(int* x, int pages) {
  const int t = threadIdx.x;
  for (int round = 0; round < 2; ++round) {
    for (int i = t; i < pages; i += blockDim.x) x[static_cast<std::size_t>(i) * kPage] += 1;
    __syncwarp();
    for (int i = t ^ 1; i < pages; i += blockDim.x) x[static_cast<std::size_t>(i) * kPage] += 1;
    __syncthreads();
  }
}
CASE(bound_exceeded_in_order) {
  const int pages = 30000;
  Array<int> x(static_cast<std::size_t>(pages) * kPage);
  cases::launch(sweep, 1, 32, 0, x.data(), pages);
  for (int i = 0; i < pages; ++i) {
    if (x[static_cast<std::size_t>(i) * kPage] != 4) return false;
  }
  return true;
}

}  // namespace

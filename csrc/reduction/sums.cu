// Sums of the terms themselves, of exponentials, and of those that equal a number; and how long axes are cut. Layout,
// blocks, threads, limits and the bound are those of reduce.h.
#include "reduction/reduce.h"

namespace gpucnn {
namespace {

struct Sum : Adding {
  __device__ static float term(float x, float, float) { return x; }
};

// exp(x - centre), from a centre of 0 where it is not finite: exp(x - infinity) of an infinite x would be NaN.
struct SumOfExponentials : Adding {
  __device__ static float term(float x, float centre, float) { return expf(x - centre); }
  __device__ static float centre(float value) { return fabsf(value) < INFINITY ? value : 0.0f; }
};

// How many x equal the centre; NaN equals NaN.
struct CountOfEqual : Adding {
  __device__ static float term(float x, float centre, float) {
    return x == centre || (x != x && centre != centre) ? 1.0f : 0.0f;
  }
};

}  // namespace

std::int64_t reduction_splits(std::int64_t reduced, std::int64_t inner) {
  using namespace detail;
  if (inner == 1) {
    return reduced <= 2 * kRowSplit ? 1 : std::min(blocks_of(kRowSplit, reduced), kMostRowSplits);
  }
  return reduced <= 2 * kColumnSplit ? 1 : std::min(blocks_of(kColumnSplit, reduced), kMostColumnSplits);
}

simt::Status add_partials(const ReduceArguments& a, simt::Stream stream) {
  return detail::reduce_partials<Sum>(a, stream);
}

void add_sums(ReduceFunctions& functions) {
  functions.insert(functions.end(), {reduction<Sum>("sum"), reduction<SumOfExponentials>("sum_of_exponentials", true),
                                     reduction<CountOfEqual>("count_of_equal", true)});
}

}  // namespace gpucnn

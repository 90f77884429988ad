// Warp shuffles, votes and reductions for a host compiler. Part of host.h.
//
// A lane that calls one waits until every lane of its mask has called the same one at the same line; then it is
// computed once for all of them. A lane outside its own mask, masks that overlap, lanes in different operations and a
// shuffle from a lane that takes no part are Faults. Lanes beyond the end of a block do not exist and are not waited
// for.
#pragma once

#include <cstdint>
#include <type_traits>

namespace gpucnn::simt::detail {

// What the lanes of a warp do together: internal to the runtime, told apart here by their addresses.
struct WarpOperation;
extern const WarpOperation kSyncWarp, kShuffle, kShuffleXor, kShuffleUp, kShuffleDown, kBallot, kAny, kAll;
extern const WarpOperation kReduceAdd, kReduceAnd, kReduceOr, kReduceXor;
extern const WarpOperation kReduceMinSigned, kReduceMaxSigned, kReduceMinUnsigned, kReduceMaxUnsigned;

// All in the runtime, and by value: a kernel's instrumentation has nothing to see in them.
int lane();                                                              // [0, 32)
void check_width(const WarpOperation& operation, int width, Site site);  // a power of two in [1, 32]
void sync_warp(unsigned mask, Site site);
std::uint64_t exchange(const WarpOperation& operation, unsigned mask, std::uint64_t value, int source, Site site);
std::uint32_t vote(const WarpOperation& operation, unsigned mask, bool predicate, Site site);  // bit l: lane l's
std::uint32_t reduce(const WarpOperation& operation, unsigned mask, std::uint32_t value, Site site);

template <typename T>
__forceinline__ T shuffle(const WarpOperation& operation, unsigned mask, T value, int source, Site site) {
  static_assert((sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8) && std::is_trivially_copyable_v<T>,
                "a shuffle moves 2, 4 or 8 bytes");
  std::uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof value);
  bits = exchange(operation, mask, bits, source, site);
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace gpucnn::simt::detail

#define GPUCNN_SIMT_SITE gpucnn::simt::Site site = gpucnn::simt::Site::here()

inline void __syncwarp(unsigned mask = 0xffffffffu, GPUCNN_SIMT_SITE) {
  gpucnn::simt::detail::sync_warp(mask, site);
}

// As PTX's shfl has it: five bits of the distance count; a lane that would leave its group of `width` lanes reads
// itself, except that an xor may reach into an earlier group.
template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, GPUCNN_SIMT_SITE) {
  using namespace gpucnn::simt::detail;
  check_width(kShuffle, width, site);
  return shuffle(kShuffle, mask, value, (lane() & ~(width - 1)) | (source & (width - 1)), site);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, GPUCNN_SIMT_SITE) {
  using namespace gpucnn::simt::detail;
  check_width(kShuffleXor, width, site);
  const int source = lane() ^ (lane_mask & 31), last = lane() | (width - 1);
  return shuffle(kShuffleXor, mask, value, source > last ? lane() : source, site);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, GPUCNN_SIMT_SITE) {
  using namespace gpucnn::simt::detail;
  check_width(kShuffleUp, width, site);
  const int source = lane() - static_cast<int>(delta & 31), first = lane() & ~(width - 1);
  return shuffle(kShuffleUp, mask, value, source < first ? lane() : source, site);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, GPUCNN_SIMT_SITE) {
  using namespace gpucnn::simt::detail;
  check_width(kShuffleDown, width, site);
  const int source = lane() + static_cast<int>(delta & 31), last = lane() | (width - 1);
  return shuffle(kShuffleDown, mask, value, source > last ? lane() : source, site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, GPUCNN_SIMT_SITE) {
  return gpucnn::simt::detail::vote(gpucnn::simt::detail::kBallot, mask, predicate != 0, site);
}
inline int __any_sync(unsigned mask, int predicate, GPUCNN_SIMT_SITE) {
  return gpucnn::simt::detail::vote(gpucnn::simt::detail::kAny, mask, predicate != 0, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, GPUCNN_SIMT_SITE) {  // the lanes against it are none
  return gpucnn::simt::detail::vote(gpucnn::simt::detail::kAll, mask, predicate == 0, site) == 0;
}

#define GPUCNN_SIMT_REDUCE(T, function, operation)                                                                     \
  inline T function(unsigned mask, T value, GPUCNN_SIMT_SITE) {                                                        \
    return static_cast<T>(                                                                                             \
        gpucnn::simt::detail::reduce(gpucnn::simt::detail::operation, mask, static_cast<std::uint32_t>(value), site)); \
  }
GPUCNN_SIMT_REDUCE(int, __reduce_add_sync, kReduceAdd)
GPUCNN_SIMT_REDUCE(unsigned, __reduce_add_sync, kReduceAdd)
GPUCNN_SIMT_REDUCE(int, __reduce_min_sync, kReduceMinSigned)
GPUCNN_SIMT_REDUCE(unsigned, __reduce_min_sync, kReduceMinUnsigned)
GPUCNN_SIMT_REDUCE(int, __reduce_max_sync, kReduceMaxSigned)
GPUCNN_SIMT_REDUCE(unsigned, __reduce_max_sync, kReduceMaxUnsigned)
GPUCNN_SIMT_REDUCE(unsigned, __reduce_and_sync, kReduceAnd)
GPUCNN_SIMT_REDUCE(unsigned, __reduce_or_sync, kReduceOr)
GPUCNN_SIMT_REDUCE(unsigned, __reduce_xor_sync, kReduceXor)
#undef GPUCNN_SIMT_REDUCE
#undef GPUCNN_SIMT_SITE

// What lanes of a warp compute together: shuffles, votes, reductions.
#include "simt/block.h"
#include "simt/meeting.h"
#include "simt/texts.h"

#include <array>

namespace gpucnn::simt::detail {
namespace {

struct Shuffle {
  std::uint64_t value;
  int source;  // [0, 32)
};
struct Vote {
  bool predicate;
  std::uint32_t ballot;
};
struct Reduction {
  std::uint32_t value;
};

template <typename Brought>
Brought& of(void* const* brought, int lane) {
  return *static_cast<Brought*>(brought[lane]);
}

template <typename Visit>
void for_each_lane(std::uint32_t lanes, Visit visit) {
  for (; lanes != 0; lanes &= lanes - 1) visit(__builtin_ctz(lanes));
}

void combine_shuffle(void* const* brought, std::uint32_t lanes, Site site) {
  std::array<std::uint64_t, 32> values;
  for_each_lane(lanes, [&](int lane) { values[lane] = of<Shuffle>(brought, lane).value; });
  for_each_lane(lanes, [&](int lane) {
    const int source = of<Shuffle>(brought, lane).source;
    if ((lanes >> source & 1) == 0) {  // hardware gives it an undefined value
      stop_with([=] {
        return "wrong mask: lane " + std::to_string(lane) + " of the warp of " + thread_in_words(block.running) +
               " shuffles from lane " + std::to_string(source) + " at " + in_words(site) +
               ", which is not among the lanes " + mask_in_words(lanes) + " that take part";
      });
    }
    of<Shuffle>(brought, lane).value = values[source];
  });
}

void combine_vote(void* const* brought, std::uint32_t lanes, Site) {
  std::uint32_t ballot = 0;
  for_each_lane(lanes, [&](int lane) { ballot |= std::uint32_t{of<Vote>(brought, lane).predicate} << lane; });
  for_each_lane(lanes, [&](int lane) { of<Vote>(brought, lane).ballot = ballot; });
}

template <typename T, typename Join>
void reduce_as(void* const* brought, std::uint32_t lanes, Join join) {
  T result = static_cast<T>(of<Reduction>(brought, __builtin_ctz(lanes)).value);
  for_each_lane(lanes & (lanes - 1), [&](int lane) {
    result = static_cast<T>(join(result, static_cast<T>(of<Reduction>(brought, lane).value)));
  });
  for_each_lane(lanes, [&](int lane) { of<Reduction>(brought, lane).value = static_cast<std::uint32_t>(result); });
}

using Lanes = void* const*;

}  // namespace

const WarpOperation kSyncWarp{"__syncwarp()", nullptr, true};

const WarpOperation kShuffle{"__shfl_sync()", &combine_shuffle, false};
const WarpOperation kShuffleXor{"__shfl_xor_sync()", &combine_shuffle, false};
const WarpOperation kShuffleUp{"__shfl_up_sync()", &combine_shuffle, false};
const WarpOperation kShuffleDown{"__shfl_down_sync()", &combine_shuffle, false};

const WarpOperation kBallot{"__ballot_sync()", &combine_vote, false};
const WarpOperation kAny{"__any_sync()", &combine_vote, false};
const WarpOperation kAll{"__all_sync()", &combine_vote, false};

// As unsigned: a sum of signed numbers has the same bits, and wraps without being undefined.
const WarpOperation kReduceAdd{
    "__reduce_add_sync()",
    [](Lanes b, std::uint32_t l, Site) { reduce_as<std::uint32_t>(b, l, [](auto x, auto y) { return x + y; }); },
    false};
const WarpOperation kReduceAnd{
    "__reduce_and_sync()",
    [](Lanes b, std::uint32_t l, Site) { reduce_as<std::uint32_t>(b, l, [](auto x, auto y) { return x & y; }); },
    false};
const WarpOperation kReduceOr{
    "__reduce_or_sync()",
    [](Lanes b, std::uint32_t l, Site) { reduce_as<std::uint32_t>(b, l, [](auto x, auto y) { return x | y; }); },
    false};
const WarpOperation kReduceXor{
    "__reduce_xor_sync()",
    [](Lanes b, std::uint32_t l, Site) { reduce_as<std::uint32_t>(b, l, [](auto x, auto y) { return x ^ y; }); },
    false};
const WarpOperation kReduceMinSigned{
    "__reduce_min_sync()",
    [](Lanes b, std::uint32_t l, Site) { reduce_as<std::int32_t>(b, l, [](auto x, auto y) { return min(x, y); }); },
    false};
const WarpOperation kReduceMaxSigned{
    "__reduce_max_sync()",
    [](Lanes b, std::uint32_t l, Site) { reduce_as<std::int32_t>(b, l, [](auto x, auto y) { return max(x, y); }); },
    false};
const WarpOperation kReduceMinUnsigned{
    "__reduce_min_sync()",
    [](Lanes b, std::uint32_t l, Site) { reduce_as<std::uint32_t>(b, l, [](auto x, auto y) { return min(x, y); }); },
    false};
const WarpOperation kReduceMaxUnsigned{
    "__reduce_max_sync()",
    [](Lanes b, std::uint32_t l, Site) { reduce_as<std::uint32_t>(b, l, [](auto x, auto y) { return max(x, y); }); },
    false};

int lane() {
  return block.running & 31;
}

void check_width(const WarpOperation& operation, int width, Site site) {
  if (width >= 1 && width <= 32 && (width & (width - 1)) == 0) return;
  stop_with([&] {
    return thread_in_words(block.running) + " comes to " + operation.name + " at " + in_words(site) + " with width " +
           std::to_string(width) + ", which is no power of two in [1, 32]";
  });
}

void sync_warp(unsigned mask, Site site) {
  meet(kSyncWarp, nullptr, mask, site);
}

std::uint64_t exchange(const WarpOperation& operation, unsigned mask, std::uint64_t value, int source, Site site) {
  Shuffle brought{value, source};
  meet(operation, &brought, mask, site);
  return brought.value;
}

std::uint32_t vote(const WarpOperation& operation, unsigned mask, bool predicate, Site site) {
  Vote brought{predicate, 0};
  meet(operation, &brought, mask, site);
  return brought.ballot;
}

std::uint32_t reduce(const WarpOperation& operation, unsigned mask, std::uint32_t value, Site site) {
  Reduction brought{value};
  meet(operation, &brought, mask, site);
  return brought.value;
}

}  // namespace gpucnn::simt::detail

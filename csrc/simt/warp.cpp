// Lanes of a warp that come together: who is waited for, and what is a fault.
#include "simt/block.h"
#include "simt/meeting.h"
#include "simt/texts.h"

namespace gpucnn::simt::detail {
namespace {

std::string comes_to(int thread, const WarpOperation& operation, std::uint32_t mask, Site site) {
  return thread_in_words(thread) + " comes to " + operation.name + " at " + in_words(site) + " with mask " +
         mask_in_words(mask);
}

// The open meeting that these lanes belong to, or null where they come first.
Meeting* find_meeting(Warp& warp, const WarpOperation& operation, std::uint32_t lanes, std::uint32_t mask, Site site) {
  for (int i = 0; i < warp.meetings; ++i) {
    Meeting& open = warp.meeting[i];
    if ((open.lanes & lanes) == 0) continue;
    if (open.lanes == lanes && open.operation == &operation && is_same(open.site, site)) return &open;
    stop_with([&] {
      const char* what =
          open.lanes != lanes ? "masks that overlap and differ" : "lanes of a warp in different operations";
      return std::string(what) + ": " + comes_to(block.running, operation, mask, site) + " while " + waiting_in_words();
    });
  }
  return nullptr;
}

void check_lanes(const Warp& warp, const WarpOperation& operation, std::uint32_t lanes, std::uint32_t mask, Site site) {
  const int me = block.running;
  if ((mask >> me % 32 & 1) == 0) {
    stop_with([&] { return "wrong mask: " + comes_to(me, operation, mask, site) + ", which lacks its own lane"; });
  }
  if ((lanes & warp.returned) != 0) {
    stop_with([&] {
      return comes_to(me, operation, mask, site) + ", of which lanes " + mask_in_words(lanes & warp.returned) +
             " returned from the kernel before it";
    });
  }
}

}  // namespace

void meet(const WarpOperation& operation, void* brought, std::uint32_t mask, Site site) {
  const int me = block.running, lane = me % 32;
  Warp& warp = block.warp[me / 32];
  const std::uint32_t lanes = mask & warp.lanes;
  check_lanes(warp, operation, lanes, mask, site);
  Meeting* meeting = find_meeting(warp, operation, lanes, mask, site);
  if (!meeting) {
    meeting = &warp.meeting[warp.meetings++];
    *meeting = {&operation, site, lanes, 0};
  }
  meeting->arrived |= 1u << lane;
  warp.brought[lane] = brought;
  block.thread[me].state = Thread::kInWarp;
  if (meeting->arrived == lanes) {
    if (operation.combine) operation.combine(warp.brought.data(), lanes, site);
    *meeting = warp.meeting[--warp.meetings];
    if (observer) {
      if (operation.orders_memory) observer->warp_met(me / 32, lanes);
      observer->warp_operated(me / 32, lanes, operation.name, site);
    }
    for (int i = 0; i < 32; ++i) {
      const int other = block.ready.is_reversed() ? 31 - i : i;
      if (lanes >> other & 1) wake(me - lane + other);
    }
  }
  suspend();
}

}  // namespace gpucnn::simt::detail

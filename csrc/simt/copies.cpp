// cp.async: copies that a thread has issued and not waited for yet.
//
// Hardware may perform a copy at any moment between the two. As late as possible is the default, for it is what shows a
// wait that is missing or too weak: until then the destination is NaN. set_eager_copies() makes it as early as
// possible.
#include "simt/copies.h"

#include "simt/arena.h"
#include "simt/block.h"
#include "simt/ptx_host.h"
#include "simt/texts.h"

#include <array>
#include <cstring>
#include <vector>

namespace gpucnn::simt {
namespace detail {
namespace {

struct Copy {
  void* shared;
  const void* global;  // null: zeros
  std::size_t bytes;
  std::uint64_t group;
  const void* site;  // the program counter of its issue
};

// Of one thread. Memory for them is kept from block to block.
struct Copies {
  std::vector<Copy> issued;
  std::size_t finished = 0;     // of those
  std::uint64_t committed = 0;  // groups so far, which is the number of the one now being made
};

std::array<Copies, kMaxThreads> copies;
bool eager = false;

void perform(const Copy& copy) {
  if (copy.global) {
    std::memcpy(copy.shared, copy.global, copy.bytes);
  } else {
    std::memset(copy.shared, 0, copy.bytes);
  }
}

// Finishes the groups before number `end`.
void finish_groups_before(std::uint64_t end) {
  Copies& mine = copies[block.running];
  for (; mine.finished < mine.issued.size() && mine.issued[mine.finished].group < end; ++mine.finished) {
    const Copy& copy = mine.issued[mine.finished];
    if (!eager) perform(copy);
    if (observer) observer->copy_completed(block.running, copy.global, copy.shared, copy.bytes, copy.site);
  }
  if (mine.finished == mine.issued.size()) {
    mine.issued.clear();
    mine.finished = 0;
  }
}

}  // namespace

void forget_copies() {
  for (int i = 0; i < block.threads; ++i) {
    Copies& of = copies[i];
    of.issued.clear();
    of.finished = 0;
    of.committed = 0;
  }
}

void issue_copy(void* shared, const void* global, int bytes, Site site) {
  if (global && is_shared(global)) {
    stop_with([&] {
      return thread_in_words(block.running) + ": cp_async at " + in_words(site) +
             " reads shared memory, and copies from global";
    });
  }
  Copies& mine = copies[block.running];
  mine.issued.push_back({shared, global, static_cast<std::size_t>(bytes), mine.committed, __builtin_return_address(0)});
  const Copy& copy = mine.issued.back();
  if (observer) observer->copy_issued(block.running, copy.global, copy.shared, copy.bytes, copy.site);
  if (eager) perform(copy);
}

void commit_copies() {
  ++copies[block.running].committed;
}

void finish_copies(int pending_groups) {
  const std::uint64_t committed = copies[block.running].committed, pending = static_cast<std::uint64_t>(pending_groups);
  if (committed > pending) finish_groups_before(committed - pending);
}

void finish_all_copies() {
  finish_groups_before(copies[block.running].committed + 1);
}

void set_eager(bool value) {
  eager = value;
}

}  // namespace detail
}  // namespace gpucnn::simt

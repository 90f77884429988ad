#include "simt/arena.h"

#include "simt/block.h"
#include "simt/limits.h"
#include "simt/ptx_host.h"
#include "simt/sanitizer.h"
#include "simt/texts.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <sys/mman.h>

namespace gpucnn::simt::detail {
namespace {

constexpr std::size_t kRedzone = 256;  // a row of 64 floats: the commonest slip is by one row or less
constexpr std::size_t kAlignment = 1024;
constexpr int kMaxArrays = 64;
constexpr std::size_t kArenaBytes = 384 << 10;
static_assert(kArenaBytes > kMaxSharedBytes + kMaxArrays * (kRedzone + kAlignment));

struct Slot {
  const SharedArray* array;
  std::size_t begin, end;  // in the arena
};

unsigned char* arena = nullptr;
std::array<Slot, kMaxArrays> slots;
int used = 0;
std::size_t static_bytes = 0;
SharedArray dynamic{"dynamic shared memory", {"", 0}, 0, kAlignment};

// NaN as float, half and bfloat16 alike, and unlike the 0xff bytes of an array nobody has written.
constexpr unsigned char redzone_byte(std::size_t offset) {
  return offset % 2 ? 0x7f : 0xa5;
}

void fill_redzone(std::size_t begin, std::size_t end) {
  for (std::size_t i = begin; i < end; ++i) arena[i] = redzone_byte(i);
}

// [begin, end) is preceded by what is left since the last array and followed by a redzone.
void* add_slot(const SharedArray& array) {
  const std::size_t last = used ? slots[used - 1].end : 0;
  const std::size_t begin = (last + kRedzone + array.alignment - 1) / array.alignment * array.alignment;
  const std::size_t end = begin + array.bytes;
  slots[used++] = {&array, begin, end};
  fill_redzone(last, begin);
  fill_redzone(end, end + kRedzone);
  unpoison(arena + begin, array.bytes);  // AddressSanitizer looks into memset() too
  std::memset(arena + begin, 0xff, array.bytes);
  if (observer) observer->shared_array_begins(array, arena + begin);
  return arena + begin;
}

std::string name_of(const SharedArray& array) {
  return &array == &dynamic ? array.name : std::string("'") + array.name + "' (" + in_words(array.site) + ")";
}

// Throws where the redzone in front of slot i (or, for i == used, behind the last) is not as it was.
void check_redzone(int i) {
  const std::size_t begin = i ? slots[i - 1].end : 0, end = i < used ? slots[i].begin : begin + kRedzone;
  std::size_t first = begin, last = end - 1;
  while (first < end && arena[first] == redzone_byte(first)) ++first;
  if (first == end) return;
  while (arena[last] == redzone_byte(last)) --last;
  const bool is_behind = i > 0 && (i == used || first - begin <= end - 1 - last);  // nearer to the array before it
  throw_fault("shared memory was written " +
              (is_behind ? std::to_string(first - begin) + " bytes past the end of " + name_of(*slots[i - 1].array)
                         : std::to_string(end - first) + " bytes before the start of " + name_of(*slots[i].array)) +
              " by some thread of the block");
}

std::string too_much(const SharedArray& array, const char* rule) {
  return "with " + name_of(array) + " of " + std::to_string(array.bytes) + " bytes the block has " +
         std::to_string(static_bytes + array.bytes) + " bytes of static and " + std::to_string(dynamic.bytes) +
         " of dynamic shared memory: " + rule;
}

}  // namespace

void begin_arena() {
  if (!arena) {
    void* found = mmap(nullptr, kArenaBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (found == MAP_FAILED) throw Fault(std::string("simt: no memory for shared memory: ") + std::strerror(errno));
    arena = static_cast<unsigned char*>(found);  // aligned to a page: more than any array asks for
  }
  used = 0;
  static_bytes = 0;
  poison(arena, kArenaBytes);
  if (observer) observer->block_begins(block.launch->info, block.threads, arena, kArenaBytes);
  dynamic.bytes = block.launch->info.shared_bytes;
  if (dynamic.bytes > 0) add_slot(dynamic);
}

void check_arena() {
  for (int i = 0; i < used; ++i) check_redzone(i);
  if (used > 0) check_redzone(used);
}

void close_arena() {
  if (arena) unpoison(arena, kArenaBytes);
}

bool is_shared(const void* p) {
  const auto at = static_cast<const unsigned char*>(p);
  return arena && at >= arena && at < arena + kArenaBytes;
}

void* shared_array(const SharedArray& declared) {
  for (int i = 0; i < used; ++i) {
    if (slots[i].array == &declared) return arena + slots[i].begin;
  }
  if (static_bytes + declared.bytes > kMaxStaticSharedBytes) {
    stop_with([&] { return too_much(declared, "48 KiB may be static"); });
  }
  if (static_bytes + declared.bytes + dynamic.bytes > kMaxSharedBytes) {
    stop_with([&] { return too_much(declared, "227 KiB are all there is"); });
  }
  if (used == kMaxArrays || declared.alignment > kAlignment) {
    stop_with([&] { return name_of(declared) + " is the 65th shared array, or aligned to more than 1,024 bytes"; });
  }
  static_bytes += declared.bytes;
  return add_slot(declared);
}

void* dynamic_shared_memory() {
  if (dynamic.bytes == 0) {
    stop_with([] { return std::string("dynamic shared memory is used and the launch gives none (shared_bytes)"); });
  }
  return arena + slots[0].begin;
}

void check_shared(const char* what, const void* p, int bytes, Site site) {
  const auto at = static_cast<std::size_t>(static_cast<const unsigned char*>(p) - arena);
  for (int i = 0; i < used; ++i) {
    if (at >= slots[i].begin && at + static_cast<std::size_t>(bytes) <= slots[i].end) return;
  }
  stop_with([&] {
    return thread_in_words(block.running) + ": " + what + " at " + in_words(site) + " of " + std::to_string(bytes) +
           " bytes that are not inside an array of shared memory";
  });
}

}  // namespace gpucnn::simt::detail

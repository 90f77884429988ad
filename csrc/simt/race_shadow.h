// What the race checker remembers of memory: for every byte the last write and who has read it since.
//
// Memory is remembered in pages of 4,096 bytes. A page starts with one cell for each 4-byte word and is split into
// cells of 2 or 1 bytes by the first access that is not made of whole words: neighbouring bytes are never taken for one
// another, and float32 kernels, which have no such accesses, pay for words only.
#pragma once

#include "simt/observed.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <unordered_map>
#include <vector>

namespace gpucnn::simt::race {

// Moments in the life of the process; 0 is before all of them. Never reused, so cells need no clearing between
// launches: what they hold of an earlier one is recognised by its stamp.
using Stamp = std::uint64_t;

struct Access {
  Stamp stamp;         // the thread's own clock at that moment (race_clock.h)
  std::uint32_t site;  // program counter, as a distance from the start of the module
  std::uint16_t thread;
  Kind kind;
  bool in_flight;  // a cp.async that has been issued and not yet waited for
};
static_assert(sizeof(Access) == 16);

// Lanes of one warp whose clocks stood at the same stamp when they read, or when they did an atomic.
struct Group {
  std::uint64_t stamp : 56, warp : 8;
  std::uint32_t site;  // of the first of them
  std::uint32_t lanes;
};
static_assert(sizeof(Group) == 16);

// What of one kind does not exclude itself. A group whose successor is ordered after it gives way: what conflicts with
// it conflicts with the successor, being of the same kind. Two groups are enough to miss nothing: of two warps any
// writer conflicts with one unless a __syncthreads() has ordered it after both, and a warp whose lanes are at three
// stamps at once has gone through several __syncwarp()s in part.
using Groups = Group[2];

struct Cell {
  Access write;
  Groups reads, atomics;  // since the write
};
static_assert(sizeof(Cell) == 80);

constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kChunkCells = kPageBytes / 4;
constexpr std::size_t kChunkBytes = kChunkCells * sizeof(Cell);

struct Page {
  Cell* chunks[4];  // 1, 2 or 4 of them, each of kChunkCells cells
  unsigned shift;   // a cell is of 1 << shift bytes

  Cell& cell(std::size_t offset) const {
    const std::size_t i = offset >> shift;
    return chunks[i / kChunkCells][i % kChunkCells];
  }
};

class Shadow {
 public:
  explicit Shadow(std::size_t limit_bytes) : limit_(limit_bytes / kChunkBytes) {}

  // Forgets everything. Memory is kept for what comes.
  void clear();

  // Whether any page can still be made or split; otherwise clear() first.
  bool has_room() const { return used_ + 4 <= limit_; }

  // The page that holds `address`, with cells of at most 1 << shift bytes. Requires has_room().
  Page& page(std::uintptr_t address, unsigned shift) {
    const std::uintptr_t number = address / kPageBytes;
    Recent& recent = recent_[number % kRecent];
    if (recent.page == nullptr || recent.number != number) recent = {number, &find_or_make(number)};
    if (recent.page->shift > shift) split(*recent.page, shift);
    return *recent.page;
  }

 private:
  struct Recent {
    std::uintptr_t number;
    Page* page;
  };
  static constexpr std::size_t kRecent = 256;

  struct Free {
    void operator()(Cell* cells) const { std::free(cells); }
  };

  Page& find_or_make(std::uintptr_t number);
  void split(Page& page, unsigned shift);
  Cell* take_chunk();

  std::size_t limit_, used_ = 0;  // chunks
  std::vector<std::unique_ptr<Cell[], Free>> chunks_;
  std::unordered_map<std::uintptr_t, Page> pages_;
  Recent recent_[kRecent] = {};
};

}  // namespace gpucnn::simt::race

#include "simt/race_shadow.h"

#include <algorithm>
#include <new>

namespace gpucnn::simt::race {
namespace {

constexpr std::size_t chunk_count(unsigned shift) {
  return kPageBytes / kChunkCells >> shift;
}

}  // namespace

void Shadow::clear() {
  pages_.clear();
  std::fill(std::begin(recent_), std::end(recent_), Recent{});
  used_ = 0;
}

Page& Shadow::find_or_make(std::uintptr_t number) {
  const auto [found, is_new] = pages_.try_emplace(number, Page{{}, 2});
  if (is_new) found->second.chunks[0] = take_chunk();
  return found->second;
}

// A cell becomes two or four of a part of its bytes, each of which remembers the same.
void Shadow::split(Page& page, unsigned shift) {
  const Page whole = page;
  page.shift = shift;
  for (std::size_t i = chunk_count(whole.shift); i < chunk_count(shift); ++i) page.chunks[i] = take_chunk();
  // From the end, since what is read lies in the chunks that are written, at the same place or before it.
  for (std::size_t offset = kPageBytes; offset > 0;) {
    offset -= std::size_t{1} << shift;
    page.cell(offset) = whole.cell(offset);
  }
}

// Cells of an earlier use keep their old stamps and need no clearing. What is never touched stays without memory.
Cell* Shadow::take_chunk() {
  if (used_ == chunks_.size()) {
    void* const zeros = std::calloc(kChunkCells, sizeof(Cell));
    if (zeros == nullptr) throw std::bad_alloc();
    chunks_.emplace_back(static_cast<Cell*>(zeros));
  }
  return chunks_[used_++].get();
}

}  // namespace gpucnn::simt::race

#include "simt/observed_buffers.h"

#include <algorithm>
#include <link.h>

namespace gpucnn::simt {
namespace {

std::uintptr_t address_of(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p);
}

// The loaded image that this function is part of: kernels' tables of constants are in it.
Range own_module() {
  Range module;
  const auto visit = [](dl_phdr_info* info, std::size_t, void* result) {
    Range image{~std::uintptr_t{0}, 0};
    for (int i = 0; i < info->dlpi_phnum; ++i) {
      const auto& segment = info->dlpi_phdr[i];
      if (segment.p_type != PT_LOAD) continue;
      image.begin = std::min<std::uintptr_t>(image.begin, info->dlpi_addr + segment.p_vaddr);
      image.end = std::max<std::uintptr_t>(image.end, info->dlpi_addr + segment.p_vaddr + segment.p_memsz);
    }
    if (!image.holds(address_of(reinterpret_cast<const void*>(&own_module)), 1)) return 0;
    *static_cast<Range*>(result) = image;
    return 1;
  };
  dl_iterate_phdr(visit, &module);
  return module;
}

}  // namespace

Buffers::Buffers() : module_(own_module()) {}

void Buffers::add(const void* data, std::size_t bytes) {
  registered_.emplace(address_of(data), bytes);
}

void Buffers::remove(const void* data) {
  if (const auto found = registered_.find(address_of(data)); found != registered_.end()) registered_.erase(found);
}

void Buffers::begin_launch(const LaunchInfo& launch) {
  parameters_ = {address_of(launch.parameters), address_of(launch.parameters) + launch.parameter_bytes};
  ranges_.clear();
  recent_ = 0;
  for (const auto& [begin, bytes] : registered_) {
    if (!ranges_.empty() && begin < ranges_.back().end) {
      ranges_.back().end = std::max(ranges_.back().end, begin + bytes);
    } else {
      ranges_.push_back({begin, begin + bytes});
    }
  }
}

bool Buffers::allows_elsewhere(std::uintptr_t address, std::size_t bytes) {
  const auto after = std::upper_bound(ranges_.begin(), ranges_.end(), address,
                                      [](std::uintptr_t value, const Range& range) { return value < range.begin; });
  if (after != ranges_.begin() && std::prev(after)->holds(address, bytes)) {
    recent_ = static_cast<std::size_t>(std::prev(after) - ranges_.begin());
    return true;
  }
  return module_.holds(address, bytes);
}

Range Buffers::nearest(std::uintptr_t address) const {
  Range best;
  std::uintptr_t distance = ~std::uintptr_t{0};
  for (const Range& range : ranges_) {
    const std::uintptr_t away = address < range.begin ? range.begin - address
                                : address < range.end ? 0
                                                      : address - range.end;
    if (away < distance) {
      best = range;
      distance = away;
    }
  }
  return best;
}

}  // namespace gpucnn::simt

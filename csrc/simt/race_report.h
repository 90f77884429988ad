// What the race checker found, kept until somebody asks for it as text.
#pragma once

#include "simt/host_types.h"
#include "simt/race_shadow.h"

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

namespace gpucnn::simt::race {

enum class Problem { race, uninitialised, in_flight, beyond_shared, beyond_buffers };

// Where the bytes lie. For shared memory `array` is the declared array at or nearest before them, null if there is
// none.
struct Place {
  bool is_shared;
  const char* array;
  const void* buffer;     // the nearest registered one, null if there is none
  std::size_t extent;     // bytes of that array or buffer
  std::ptrdiff_t offset;  // from its start; without one, from the start of the block's shared memory, or an address
};

struct Party {
  Kind kind;
  std::size_t bytes;  // 0: not known
  const void* site;   // as __builtin_return_address(0) gives it
  uint3 block, thread;
};

struct Finding {
  Problem problem;
  Place place;
  Party now, earlier;  // earlier.site is null where one access alone is wrong
  const void* kernel;
  std::size_t count;
};

// At most kFindings different pairs of program counters; the rest are counted. take() may be called while a kernel
// runs.
class Findings {
 public:
  void add(const Finding& finding);
  void add_forgotten();

  // One text for each pair of source lines, oldest first; at most kTexts and one that says how many there were beyond.
  // Runs addr2line.
  std::vector<std::string> take();

 private:
  static constexpr std::size_t kFindings = 400, kTexts = 100;
  using Key = std::tuple<Problem, const void*, const void*>;

  std::mutex mutex_;
  std::vector<Finding> findings_;
  std::map<Key, std::size_t> index_;
  std::size_t beyond_ = 0, forgotten_ = 0;
};

// The finding in words, without its count.
std::string describe(const Finding& finding);

// The same for a text that has named kernel, block and thread already.
std::string describe_alone(const Finding& finding);

}  // namespace gpucnn::simt::race

// Copies of elements as they are. Layout, blocks, threads, limits and the bound are those of copy.h.
#include "shape/copy.h"

#include <cstdint>

namespace gpucnn {
namespace {

// `walk` in words of as many elements as 2^n bytes hold, the most that both arrays allow; returns the word's bytes.
int widen(Walk<2>& walk, int itemsize, const void* x, const void* y) {
  const int last = walk.axes - 1;
  if (walk.stride[0][last] != 1 || walk.stride[1][last] != 1) return itemsize;
  const auto addresses = reinterpret_cast<std::uintptr_t>(x) | reinterpret_cast<std::uintptr_t>(y);
  int word = 16;
  const auto fits = [&](int bytes) {
    const int elements = bytes / itemsize;
    bool whole = addresses % static_cast<std::uintptr_t>(bytes) == 0 && walk.length[last] % elements == 0;
    for (int axis = 0; axis < last; ++axis) {
      whole = whole && walk.stride[0][axis] % elements == 0 && walk.stride[1][axis] % elements == 0;
    }
    return whole;
  };
  while (word > itemsize && !fits(word)) word /= 2;
  const int elements = word / itemsize;
  walk.length[last] /= elements;
  for (int axis = 0; axis < last; ++axis) {
    for (int k = 0; k < 2; ++k) walk.stride[k][axis] /= elements;
  }
  return word;
}

template <typename Word>
simt::Status copy_words(const void* x, void* y, Walk<2>& walk, simt::Stream stream) {
  const Word* const from = static_cast<const Word*>(x);
  Word* const to = static_cast<Word*>(y);
  if constexpr (sizeof(Word) <= 8) {
    if (const int axis = detail::tiled_axis(walk); axis >= 0) {
      return detail::launch_tiled(from, to, walk, axis, stream);
    }
  }
  return detail::launch_walked(from, to, walk, stream);
}

}  // namespace

simt::Status copy(const void* x, void* y, int itemsize, const std::vector<std::int64_t>& shape, const Operand* operands,
                  simt::Stream stream) {
  Walk<2> walk = walk_of<2>(shape, operands);
  switch (widen(walk, itemsize, x, y)) {
    case 16:
      return copy_words<uint4>(x, y, walk, stream);
    case 8:
      return copy_words<uint2>(x, y, walk, stream);
    case 4:
      return copy_words<unsigned>(x, y, walk, stream);
    case 2:
      return copy_words<std::uint16_t>(x, y, walk, stream);
    default:
      return copy_words<std::uint8_t>(x, y, walk, stream);
  }
}

}  // namespace gpucnn

// y = condition ? a : b, element by element, of arrays that broadcast; the bits of a or b as they are.
//
// Layout   any, by the walk of common/walk.h.
// Block    256 threads; in each pass over the grid a block owns 256 consecutive packs of 16 bytes of y.
// Thread   one pack a pass, where rows of all arrays are whole packs that lie together or repeat one element, and as
// many
//          conditions; else one element.
// Limits   at most 8 axes once those that lie alike are merged, each but the first shorter than 2^31.
// Bound    memory: 13 bytes an element of 4. N32 C256 56x56 float32, 334 MB, takes 111 us at the 3.0 TB/s that an H100
//          copies at.
// Measured not run on hardware yet.
#include "common/grid.h"
#include "common/pack.h"
#include "common/walk.h"
#include "shape/shape.h"
#include "simt/simt.h"

#include <cstdint>

namespace gpucnn {
namespace {

constexpr int kThreads = 256;

// kCount elements that lie together, or one that is repeated.
template <int kCount, typename T>
__device__ __forceinline__ detail::Access<T, kCount> fetch(const T* p, bool repeats) {
  detail::Access<T, kCount> access;
  if (repeats) {
    const T value = *p;
#pragma unroll
    for (int i = 0; i < kCount; ++i) access.elements[i] = value;
  } else {
    access.word = simt::vload<decltype(access.word)>(p);
  }
  return access;
}

// Arrays of the walk: y, condition, a, b.
template <typename T>
__global__ void __launch_bounds__(kThreads) select_kernel(const std::uint8_t* condition, const T* a, const T* b, T* y,
                                                          const __grid_constant__ Walk<4> walk, bool in_packs) {
  constexpr int kCount = kPack<T>;
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  const std::int64_t first = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int last = walk.axes - 1;
  if (in_packs) {
    for (std::int64_t i = first; i < walk.units; i += step) {  // [0, units), packs
      const Offsets<4> at = offsets_of<kCount>(walk, i);
      const auto which = fetch<kCount>(condition + at.of[1], walk.stride[1][last] == 0);
      const auto yes = fetch<kCount>(a + at.of[2], walk.stride[2][last] == 0);
      const auto no = fetch<kCount>(b + at.of[3], walk.stride[3][last] == 0);
      detail::Access<T, kCount> result;
#pragma unroll
      for (int j = 0; j < kCount; ++j) result.elements[j] = which.elements[j] != 0 ? yes.elements[j] : no.elements[j];
      simt::vstore(y + at.of[0], result.word);
    }
  } else {
    for (std::int64_t i = first; i < walk.units; i += step) {  // [0, units), elements
      const Offsets<4> at = offsets_of<1>(walk, i);
      y[at.of[0]] = condition[at.of[1]] != 0 ? a[at.of[2]] : b[at.of[3]];
    }
  }
}

template <typename T>
simt::Status select_words(const std::uint8_t* condition, const void* a, const void* b, void* y, Walk<4>& walk,
                          simt::Stream stream) {
  const bool is_aligned[] = {are_aligned(y), are_aligned(condition), are_aligned(a), are_aligned(b)};
  const bool in_packs = walk.stride[0][walk.axes - 1] == 1 && walks_in_packs(walk, kPack<T>, is_aligned);
  set_step(walk, in_packs ? kPack<T> : 1);
  unsigned blocks = 0;
  if (const auto status = one_wave(walk.units, kThreads, &blocks); status != simt::kSuccess) return status;
  return simt::launch(select_kernel<T>, dim3(blocks), dim3(kThreads), 0, stream, condition, static_cast<const T*>(a),
                      static_cast<const T*>(b), static_cast<T*>(y), walk, in_packs);
}

}  // namespace

simt::Status select(const std::uint8_t* condition, const void* a, const void* b, void* y, int itemsize,
                    const std::vector<std::int64_t>& shape, const Operand* operands, simt::Stream stream) {
  Walk<4> walk = walk_of<4>(shape, operands);
  switch (itemsize) {
    case 8:
      return select_words<std::uint64_t>(condition, a, b, y, walk, stream);
    case 4:
      return select_words<std::uint32_t>(condition, a, b, y, walk, stream);
    case 2:
      return select_words<std::uint16_t>(condition, a, b, y, walk, stream);
    default:
      return select_words<std::uint8_t>(condition, a, b, y, walk, stream);
  }
}

}  // namespace gpucnn

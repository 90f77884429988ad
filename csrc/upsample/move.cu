// y[n,p,q,c] = x[n,h,w,c] of the nearest pixel (h,w); bed of nails, y[n,down*h,right*w,c] = x[n,h,w,c] and 0 elsewhere,
// and its transposed map. Elements are moved and none is changed: they are words of 2, 4 or 16 bytes.
//
// Layout   the smaller image (N,H,W,C), the larger (N,P,Q,C).
// Block    256 consecutive words of the output, whatever pixels they belong to.
// Thread   one word: 16 bytes of neighbouring channels where they fill a pixel and both addresses are aligned, else one
//          element.
// Limits   axes of at most 2^29 pixels (nearest), elements of 2 or 4 bytes.
// Bound    memory: each element of the output written and each pixel that is read read once; from L1 and L2 where it
//          goes to several outputs. 28x28 to 56x56 at N32 C256: float32 26 + 103 MB, 43 us at 3.0 TB/s; 16 bits 22 us.
// Measured not run on hardware yet.
#include "common/index.h"
#include "common/pixels.h"
#include "simt/simt.h"
#include "upsample/axis.h"
#include "upsample/upsample.h"

#include <cstdint>

namespace gpucnn {
namespace {

// A pixel of the source, or none.
struct Source {
  bool there;
  int row, column;
};

// Which pixel of the source goes to each pixel of the target.
struct ToNearest {
  NearestAxis vertical, horizontal;
  __device__ __forceinline__ Source operator()(int row, int column) const {
    return {true, vertical.source(row), horizontal.source(column)};
  }
};
struct ToNails {
  Divisor down, right;
  __device__ __forceinline__ Source operator()(int row, int column) const {
    const Quotient h = down.divide(row), w = right.divide(column);
    return {h.rest == 0 && w.rest == 0, static_cast<int>(h.whole), static_cast<int>(w.whole)};
  }
};
struct FromNails {
  int down, right;
  __device__ __forceinline__ Source operator()(int row, int column) const { return {true, row * down, column * right}; }
};

template <typename Word, typename Which>
__global__ void __launch_bounds__(kPixelThreads)
    move_kernel(const PackedImages target, const Images source, const Which which, const Word* __restrict__ x,
                Word* __restrict__ y) {
  const std::int64_t index = pack_index();
  if (index >= target.count) return;
  const PackPlace to = place_of<1>(target, index);
  const Source from = which(to.pixel.row, to.pixel.column);
  Word word{};
  if (from.there) {
    word = simt::vload<Word>(x + source.offset({to.pixel.image, from.row, from.column}) + to.channel);
  }
  simt::vstore(y + index, word);
}

// The sizes of one side of a move, in elements of `bytes`.
struct Size {
  std::int64_t rows, columns;
};

// Moves words that are as wide as a pixel and the addresses allow.
template <typename Which>
simt::Status move(std::int64_t N, std::int64_t C, const Size& from, const Size& to, const Which& which, int bytes,
                  const void* x, void* y, simt::Stream stream) {
  if (N * C * to.rows * to.columns == 0) return simt::kSuccess;
  const auto words = [&](auto word) {
    using Word = decltype(word);
    const std::int64_t channels = C * bytes / static_cast<std::int64_t>(sizeof(Word));
    const PackedImages target = packed_images(N, to.rows, to.columns, channels, 1);
    return launch_packs(move_kernel<Word, Which>, target.count, stream, target,
                        images_of(from.rows, from.columns, channels), which, static_cast<const Word*>(x),
                        static_cast<Word*>(y));
  };
  if (C * bytes % 16 == 0 && are_aligned(static_cast<const char*>(x), static_cast<const char*>(y))) {
    return words(uint4{});
  }
  return bytes == 4 ? words(unsigned{}) : words(static_cast<unsigned short>(0));
}

}  // namespace

simt::Status interpolate_nearest_fprop(const InterpolateProblem& p, int bytes, const void* x, void* y,
                                       simt::Stream stream) {
  const bool exact = p.how == Interpolation::nearest_exact;
  const ToNearest which{nearest_axis(p.H, p.P, p.scale.vertical, exact),
                        nearest_axis(p.W, p.Q, p.scale.horizontal, exact)};
  return move(p.N, p.C, {p.H, p.W}, {p.P, p.Q}, which, bytes, x, y, stream);
}

simt::Status bed_of_nails_fprop(const NailsProblem& p, int bytes, const void* x, void* y, simt::Stream stream) {
  const ToNails which{divisor_of(p.down), divisor_of(p.right)};
  return move(p.N, p.C, {p.H, p.W}, {p.H * p.down, p.W * p.right}, which, bytes, x, y, stream);
}

simt::Status bed_of_nails_dgrad(const NailsProblem& p, int bytes, const void* dy, void* dx, simt::Stream stream) {
  const FromNails which{static_cast<int>(p.down), static_cast<int>(p.right)};
  return move(p.N, p.C, {p.H * p.down, p.W * p.right}, {p.H, p.W}, which, bytes, dy, dx, stream);
}

}  // namespace gpucnn

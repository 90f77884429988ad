// Copies between float, half and bfloat16: y[i] = x[i], rounded to the nearest, ties to even.
//
// Layout   any, as in copy.h, whose kernels do what does not lie alike, N,C,H,W to N,H,W,C among it.
// Block    256 threads; in each pass over the grid a block owns 256 consecutive packs of 8 elements.
// Thread   where arrays lie alike, 8 elements a pass: one or two accesses of 16 bytes on either side. The last n % 8,
// and
//          all where an address is no multiple of 16, go one by one.
// Limits   fewer than 2^61 elements.
// Bound    memory: 6 bytes an element between float32 and 16 bits; N32 C256 56x56, 154 MB, takes 51 us at the 3.0 TB/s
//          that an H100 copies at.
// Measured not run on hardware yet.
#include "common/pack.h"
#include "shape/copy.h"

#include <algorithm>

namespace gpucnn {
namespace {

constexpr int kThreads = 256;

// A pack: 16 bytes of the wider type, so that a warp's request is one run of bytes on either side.
template <typename In, typename Out>
constexpr int kTogether = std::min(kPack<In>, kPack<Out>);

template <typename In, typename Out>
__global__ void __launch_bounds__(kThreads)
    convert_kernel(const In* __restrict__ x, Out* __restrict__ y, std::int64_t n, std::int64_t packs) {
  constexpr int kElements = kTogether<In, Out>;
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  const std::int64_t first = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  for (std::int64_t i = first; i < packs; i += step) {  // [0, packs)
    store(y + i * kElements, load<kElements>(x + i * kElements));
  }
  for (std::int64_t i = packs * kElements + first; i < n; i += step) {  // [packs * kElements, n)
    y[i] = simt::from_float<Out>(simt::to_float(x[i]));
  }
}

}  // namespace

template <typename In, typename Out>
simt::Status convert(const In* x, Out* y, const std::vector<std::int64_t>& shape, const Operand* operands,
                     simt::Stream stream) {
  Walk<2> walk = walk_of<2>(shape, operands);
  const std::int64_t n = walk.length[0];
  if (walk.axes == 1 && (n == 1 || (walk.stride[0][0] == 1 && walk.stride[1][0] == 1))) {
    constexpr int kElements = kTogether<In, Out>;
    const std::int64_t packs = are_aligned(x, y) ? n / kElements : 0;
    unsigned blocks = 0;
    const std::int64_t items = packs > 0 ? blocks_of(kElements, n) : n;
    if (const auto status = one_wave(items, kThreads, &blocks); status != simt::kSuccess) return status;
    return simt::launch(convert_kernel<In, Out>, dim3(blocks), dim3(kThreads), 0, stream, x, y, n, packs);
  }
  if (const int axis = detail::tiled_axis(walk); axis >= 0) return detail::launch_tiled(x, y, walk, axis, stream);
  return detail::launch_walked(x, y, walk, stream);
}

template simt::Status convert(const float*, simt::half*, const std::vector<std::int64_t>&, const Operand*,
                              simt::Stream);
template simt::Status convert(const float*, simt::bfloat16*, const std::vector<std::int64_t>&, const Operand*,
                              simt::Stream);
template simt::Status convert(const simt::half*, float*, const std::vector<std::int64_t>&, const Operand*,
                              simt::Stream);
template simt::Status convert(const simt::half*, simt::bfloat16*, const std::vector<std::int64_t>&, const Operand*,
                              simt::Stream);
template simt::Status convert(const simt::bfloat16*, float*, const std::vector<std::int64_t>&, const Operand*,
                              simt::Stream);
template simt::Status convert(const simt::bfloat16*, simt::half*, const std::vector<std::int64_t>&, const Operand*,
                              simt::Stream);

}  // namespace gpucnn

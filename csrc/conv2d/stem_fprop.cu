// y[n,p,q,k] = relu(bias[k] + sum over r, s, c of x[n, p*stride-padding+r*dilation, q*stride-padding+s, c] *
// w[k,r,s,c]) for images of 1 to 4 channels: the first layer of a network.
//
// Layout   x (N,H,W,C), w (K,R,S,C), y (N,P,Q,K). A block works in shared memory, in float32: on the filters, as
//          (R*S*C, filters), and on the lines of x under a tile of windows, as they lie in the array (stem.h).
// Block    up to 64 filters; the filters stay, and tiles of at most 512 windows come one after another.
// Warp     `lanes` threads that own a window's filters side by side, of as many windows as that leaves: with 8 lanes it
//          reads 128 contiguous bytes of filters, and writes 4 x 128 of y.
// Thread   8 filters (2 quads, `lanes` quads apart) at kOwn windows, `slots` apart: 64 sums in registers. 2 loads of 16
//          bytes and 8 of 4 from shared memory feed 64 multiplications.
// Limits   what require_stem() says. x is read 16 bytes at a time where W*C is whole packs and x is aligned, y written
// so
//          (8 bytes at a time of 16 bits) where K is a multiple of 4 and y is aligned.
// Bound    FFMA, with few weights memory: ResNet's at N32 (C3 224x224 K64 7x7 stride 2) has 7.6 GFLOP (0.13 ms at 60
//          TFLOP/s) and 122 MB; VGG's (K64 3x3) 5.5 GFLOP (92 us) and 430 MB (0.14 ms at 3.0 TB/s); LeNet's at N256 (C1
//          28x28 K6 5x5 pad 2) 5.6 MB (1.9 us).
// Measured not run on hardware yet.
#include "common/epilogue.h"
#include "conv2d/conv2d.h"
#include "conv2d/stem.h"

namespace gpucnn {
namespace {

constexpr int kOwn = 8;     // windows of a thread
constexpr int kSlots = 64;  // threads of the same filters at most: of 512 windows
constexpr int kBlocksPerMultiprocessor = 2;
constexpr int kWaves = 2;
constexpr int kFilterFloats = 64 * 256;  // of a block's filters at most, 64 KiB

struct Plan {
  Stem stem;
  int slots, threads, filter_pitch, lines_at, shared_bytes;
};

// With as many filters a block as fit.
Plan plan_of(const Conv2dProblem& p) {
  require_stem(p);
  const std::int64_t eights = blocks_of(8, p.K);
  for (int lanes = even_piece(eights, kStemLanes); lanes > 0; lanes /= 2) {
    Plan plan{stem_of(p, lanes), std::min(kStemThreads / lanes, kSlots), 0, 0, 0, 0};
    plan.threads = round_up(lanes * plan.slots, 32);
    plan.filter_pitch = 8 * lanes + 4;  // 4 * odd: 8 weights of 4 filters, which 32 lanes store, in 32 banks
    plan.lines_at = plan.stem.weights * plan.filter_pitch;
    if (plan.lines_at > kFilterFloats && lanes > 1) continue;
    const double compute = plan.threads * kOwn * 8.0 * plan.stem.weights / 128;
    if (!set_tile(plan.stem, p, plan.slots * kOwn, compute, [&](int lines, int) { return plan.lines_at + lines; })) {
      continue;
    }
    plan.shared_bytes = static_cast<int>(sizeof(float)) * (plan.lines_at + plan.stem.lines.floats());
    return plan;
  }
  throw std::invalid_argument("conv2d: filters and the lines under a window do not fit a block's shared memory");
}

template <typename T, bool kPacks>
__global__ void __launch_bounds__(kStemThreads, kBlocksPerMultiprocessor)
    stem_fprop_kernel(const Plan plan, const T* __restrict__ x, const T* __restrict__ w, const Epilogue<T> epilogue,
                      T* __restrict__ y, bool wide_y) {
  const Stem& stem = plan.stem;
  SIMT_DYNAMIC_SHARED(float, filters);
  float* const lines = filters + plan.lines_at;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % stem.lanes, slot = thread / stem.lanes;  // beyond plan.slots: works, and stores nothing
  const int positions = stem.images_of_tile * stem.rows * stem.columns;
  const Quotient first = stem.chunks.divide(blockIdx.x);
  const int first_filter = first.rest * stem.filters_of_block();

  // 8 weights of 4 filters a warp: whole sectors of w, and all banks.
  for (int i = thread / 32; i * 4 < stem.filters_of_block(); i += static_cast<int>(blockDim.x) / 32) {
    const int filter = i * 4 + thread % 32 / 8, k = first_filter + filter;
    for (int j = thread % 8; j < stem.weights; j += 8) {
      const bool exists = k < stem.filters;
      const T* const from = w + (exists ? std::int64_t{k} * stem.weights + j : 0);
      filters[j * plan.filter_pitch + filter] = exists ? simt::to_float(*from) : 0.0f;
    }
  }

  for (std::int64_t index = first.whole; index < stem.tiles; index += gridDim.x / stem.chunks.value) {
    const StemTile tile = stem_tile<T, kPacks>(stem, index);
    __syncthreads();  // the lines before these have been used
    stage_lines<T, kPacks>(stem, tile, x, lines);
    simt::cp_async_wait_all();
    int cells[kOwn];  // where the window's first cell lies
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int position = slot + i * plan.slots, used = position < positions ? position : 0;
      const int line = used / stem.columns, image = line / stem.rows;
      cells[i] = (image * stem.lines.rows + line % stem.rows * stem.vertical.stride) * stem.lines.pitch +
                 used % stem.columns * stem.horizontal.stride * stem.channels + tile.lead;
    }
    Floats<4> sums[kOwn][2] = {};
    __syncthreads();
    const float* weights = filters + lane * 4;
    for (int r = 0; r < stem.vertical.kernel; ++r) {
      const float* const from = lines + r * stem.vertical.dilation * stem.lines.pitch;
#pragma unroll 2
      for (int j = 0; j < stem.run; ++j, weights += plan.filter_pitch) {
        const Floats<4> left = load<4>(weights), right = load<4>(weights + stem.lanes * 4);
#pragma unroll
        for (int i = 0; i < kOwn; ++i) {
          const float cell = from[cells[i] + j];
#pragma unroll
          for (int k = 0; k < 4; ++k) {
            sums[i][0][k] += cell * left[k];
            sums[i][1][k] += cell * right[k];
          }
        }
      }
    }

#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int position = slot + i * plan.slots, line = position / stem.columns;
      const std::int64_t image = tile.image + line / stem.rows;
      const int row = tile.row + line % stem.rows, column = tile.column + position % stem.columns;
      if (slot >= plan.slots || position >= positions || image >= stem.images || row >= stem.vertical.outputs ||
          column >= stem.horizontal.outputs) {
        continue;
      }
      T* const window = y + ((image * stem.vertical.outputs + row) * stem.horizontal.outputs + column) * stem.filters;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int k = first_filter + (half * stem.lanes + lane) * 4;
        if (wide_y) {
          if (k >= stem.filters) continue;
          Floats<4> values;
#pragma unroll
          for (int j = 0; j < 4; ++j) values[j] = epilogue(sums[i][half][j], k + j);
          store(window + k, values);
        } else {
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            if (k + j < stem.filters) window[k + j] = simt::from_float<T>(epilogue(sums[i][half][j], k + j));
          }
        }
      }
    }
  }
}

}  // namespace

template <typename T>
simt::Status conv2d_stem_fprop(const Conv2dProblem& p, const T* x, const T* w, const T* bias, T* y, bool relu,
                               simt::Stream stream) {
  Plan plan = plan_of(p);
  if (plan.stem.tiles == 0) return simt::kSuccess;
  const bool packs = may_stage_packs(plan.stem, x);
  set_unit(plan.stem, packs ? kPack<T> : 1);
  int multiprocessors = 0;
  if (const simt::Status status = simt::multiprocessors(&multiprocessors); status != simt::kSuccess) return status;
  const std::int64_t chunks = plan.stem.chunks.value;
  const std::int64_t wanted = blocks_of(chunks, std::int64_t{multiprocessors} * kBlocksPerMultiprocessor * kWaves);
  const std::int64_t blocks = std::min(plan.stem.tiles, wanted) * chunks;
  const auto kernel = packs ? stem_fprop_kernel<T, true> : stem_fprop_kernel<T, false>;
  return simt::launch(kernel, dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(plan.threads)),
                      static_cast<std::size_t>(plan.shared_bytes), stream, plan, x, w, Epilogue<T>{bias, relu}, y,
                      are_aligned(y) && p.K % 4 == 0);
}

template simt::Status conv2d_stem_fprop(const Conv2dProblem&, const float*, const float*, const float*, float*, bool,
                                        simt::Stream);
template simt::Status conv2d_stem_fprop(const Conv2dProblem&, const simt::half*, const simt::half*, const simt::half*,
                                        simt::half*, bool, simt::Stream);
template simt::Status conv2d_stem_fprop(const Conv2dProblem&, const simt::bfloat16*, const simt::bfloat16*,
                                        const simt::bfloat16*, simt::bfloat16*, bool, simt::Stream);

}  // namespace gpucnn

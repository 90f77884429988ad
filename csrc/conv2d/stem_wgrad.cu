// dw[k,r,s,c] = sum over n, p, q of dy[n,p,q,k] * x[n, p*stride-padding+r*dilation, q*stride-padding+s, c] for images
// of 1 to 4 channels: the first layer of a network.
//
// The N*P*Q positions are cut into tiles, and these into splits of equally many. Each split's sums go to a part of
// `partial` of their own; a second kernel adds the parts in order (sum_parts.cu). No atomics: the same bits in every
// run.
//
// Layout   x (N,H,W,C), dy (N,P,Q,K), dw (K,R,S,C), partial (splits,K,R,S,C). A block works in shared memory, in
//          float32: on the lines of x under a tile of positions (stem.h), on dy at these (staged.h), and on a table of
//          where both lie for each position that there is.
// Block    one split of up to 64 filters and, of as many weights as that leaves, units of 8 filters and 8 weights.
// Warp     with 8 lanes of filters, these at 4 neighbouring weights of one position: 128 contiguous bytes of dy.
// Thread   one unit (2 quads of filters, 8 weights as far apart as a block has units of weights) at every `slots`-th
//          position of a tile: 64 sums in registers, fed by 2 loads of 16 bytes and 8 of 4 from shared memory. The
//          slots' sums are then added in order, and leave by way of shared memory, (filters,weights) as in dw: a block
//          writes one run of it.
// Limits   float32, as tensor_core_*.cu is faster in 16 bits; what require_stem() says; packs as in stem_fprop.cu, of
//          dy where K is whole packs. partial takes at most 16 MiB.
// Bound    FFMA: as forward. ResNet's at N32 (C3 224x224 K64 7x7 stride 2), 7.6 GFLOP, takes 0.13 ms at 60 TFLOP/s.
// Measured not run on hardware yet.
#include "common/sum_parts.h"
#include "conv2d/conv2d.h"
#include "conv2d/slots.h"
#include "conv2d/stem.h"

namespace gpucnn {
namespace {

constexpr int kOwn = 8;                // weights of a thread
constexpr int kPositions = 128;        // of a tile at most
constexpr std::int64_t kBlocks = 528;  // wanted in a grid: two waves of two blocks for an H100's 132 multiprocessors
constexpr std::int64_t kMostPartialFloats = 16 << 18;  // 16 MiB

struct Plan {
  Stem stem;
  Source dy;
  Staged gradients;
  int shared_weights;  // units of weights in a block, and so weights of a thread from one another
  int slots, threads;
  Divisor shares;  // blocks of the same filters
  std::int64_t splits, tiles_of_split;
  int gradients_at, table_at, sums_at, sums_pitch, shared_bytes;

  __host__ __device__ constexpr int units() const { return shared_weights * stem.lanes; }
  __host__ __device__ constexpr int weights_of_block() const { return kOwn * shared_weights; }
};

// Floats of a filter's sums in shared memory, which units store: the fewest, of 32 choices, for which they share banks
// least. Unit n of a warp has weight n / lanes of filter 4 * (n % lanes).
int sums_pitch_of(int weights, int lanes) {
  int best = weights, fewest = 33;
  for (int pitch = weights; pitch < weights + 32 && fewest > 1; ++pitch) {
    int most = 0, of_bank[32] = {};
    for (int n = 0; n < 32; ++n) {
      most = std::max(most, ++of_bank[(4 * (n % lanes) * pitch + n / lanes) % 32]);
    }
    if (most < fewest) best = pitch, fewest = most;
  }
  return best;
}

Plan plan_of(const Conv2dProblem& p) {
  require_stem(p);
  Plan plan{};
  const int lanes = even_piece(blocks_of(8, p.K), kStemLanes);
  plan.stem = stem_of(p, lanes);
  plan.dy = {p.N, plan.stem.vertical.outputs, plan.stem.horizontal.outputs, 1, plan.stem.filters, p.K};
  const std::int64_t units_of_weights = blocks_of(kOwn, plan.stem.weights);
  plan.shared_weights = even_piece(units_of_weights, kStemThreads / lanes);
  plan.shares = divisor_of(blocks_of(plan.shared_weights, units_of_weights));
  plan.slots = kStemThreads / plan.units();
  plan.threads = round_up(plan.units() * plan.slots, 32);
  const int strip = plan.stem.filters_of_block();
  plan.sums_at = plan.slots > 1 ? plan.units() * plan.slots * 16 : 0;  // behind what add_slots() needs
  plan.sums_pitch = sums_pitch_of(std::min(plan.stem.weights, plan.weights_of_block()), lanes);
  const int sums = plan.sums_at + strip * plan.sums_pitch;
  const double compute = kPositions * (64.0 * plan.units() / 128 + strip / 8.0);
  const auto floats = [&](int lines, int positions) { return std::max(sums, lines + positions * (strip + 2)); };
  // A warp has several weights at several positions. With many filters these are few, and lines follow one another as
  // filter rows do in a filter; with few they are many, and lines are as far apart in the banks as can be.
  const auto apart = [&](int) { return lanes > 1 ? plan.stem.run : 16; };
  if (!set_tile(plan.stem, p, kPositions, compute, floats, apart)) {
    throw std::invalid_argument("conv2d: the lines under a window do not fit a block's shared memory");
  }
  const Stem& stem = plan.stem;
  plan.gradients = staged_of(stem.images_of_tile, stem.rows, stem.columns, 1, strip, strip);
  plan.gradients_at = stem.lines.floats();
  plan.table_at = plan.gradients_at + plan.gradients.floats();
  plan.shared_bytes = static_cast<int>(sizeof(float)) * floats(stem.lines.floats(), plan.gradients.pixels());
  const std::int64_t each = std::int64_t{plan.shares.value} * stem.chunks.value;
  plan.splits = std::max<std::int64_t>(
      1, std::min({blocks_of(each, kBlocks), stem.tiles, kMostPartialFloats / (p.K * p.weights())}));
  plan.tiles_of_split = blocks_of(plan.splits, stem.tiles);
  return plan;
}

template <typename T, bool kPacks>
__global__ void __launch_bounds__(kStemThreads, 2)
    stem_wgrad_kernel(const Plan plan, const T* __restrict__ x, const T* __restrict__ dy, const Parts<T> parts) {
  const Stem& stem = plan.stem;
  SIMT_DYNAMIC_SHARED(float, lines);
  float* const gradients = lines + plan.gradients_at;
  int2* const table = reinterpret_cast<int2*>(lines + plan.table_at);
  float* const block_sums = lines + plan.sums_at;

  const Quotient share = plan.shares.divide(blockIdx.x), chunk = stem.chunks.divide(share.whole);
  const std::int64_t split = chunk.whole;
  const int thread = static_cast<int>(threadIdx.x);
  const int slot = thread / plan.units(), unit = thread % plan.units();
  const int lane = unit % stem.lanes, unit_of_weights = unit / stem.lanes;
  const int first_weight = share.rest * plan.weights_of_block();
  const int weights = min(plan.weights_of_block(), stem.weights - first_weight);  // of the block
  int cell_at[kOwn];  // of the weights, from where a position's first cell lies
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const int weight =
        first_weight + min(unit_of_weights + i * plan.shared_weights, weights - 1);  // beyond: for nobody
    cell_at[i] = weight / stem.run * stem.vertical.dilation * stem.lines.pitch + weight % stem.run;
  }

  Floats<4> sums[kOwn / 2][4] = {};  // [two weights][weight and quad of filters]
  const std::int64_t begin = split * plan.tiles_of_split, end = min(begin + plan.tiles_of_split, stem.tiles);
  for (std::int64_t index = begin; index < end; ++index) {
    const StemTile tile = stem_tile<T, kPacks>(stem, index);
    const int images = static_cast<int>(min(std::int64_t{stem.images_of_tile}, stem.images - tile.image));
    const int rows = min(stem.rows, stem.vertical.outputs - tile.row);
    const int columns = min(stem.columns, stem.horizontal.outputs - tile.column);
    const int positions = images * rows * columns;  // that there are
    for (int i = thread; i < positions; i += static_cast<int>(blockDim.x)) {
      const int line = i / columns, column = i % columns, image = line / rows, row = line % rows;
      const int cell = (image * stem.lines.rows + row * stem.vertical.stride) * stem.lines.pitch +
                       column * stem.horizontal.stride * stem.channels + tile.lead;
      table[i] = make_int2(cell, ((image * stem.rows + row) * stem.columns + column) * plan.gradients.pitch);
    }
    stage_lines<T, kPacks>(stem, tile, x, lines);
    stage<T, kPacks>(plan.gradients, plan.dy,
                     {tile.image, tile.row, tile.column, 0, chunk.rest * stem.filters_of_block()}, dy, gradients);
    simt::cp_async_wait_all();
    __syncthreads();
    for (int i = slot; i < positions; i += plan.slots) {
      const int2 at = simt::vload<int2>(table + i);
      const float* const gradient = gradients + at.y + lane * 4;
      const Floats<4> left = load<4>(gradient), right = load<4>(gradient + stem.lanes * 4);
      const float* const cells = lines + at.x;
#pragma unroll
      for (int j = 0; j < kOwn; ++j) {
        const float cell = cells[cell_at[j]];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          sums[j / 2][j % 2 * 2][k] += left[k] * cell;
          sums[j / 2][j % 2 * 2 + 1][k] += right[k] * cell;
        }
      }
    }
    __syncthreads();
  }

#pragma unroll
  for (int pair = 0; pair < kOwn / 2; ++pair) {
    if (plan.slots > 1) {
      if (pair > 0) __syncthreads();
      add_slots(sums[pair], lines, slot, plan.slots, unit, plan.units());
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int weight = unit_of_weights + (pair * 2 + i / 2) * plan.shared_weights;  // of the block
      const int filter = (i % 2 * stem.lanes + lane) * 4;
      if (slot > 0 || weight >= weights) continue;
#pragma unroll
      for (int k = 0; k < 4; ++k) block_sums[(filter + k) * plan.sums_pitch + weight] = sums[pair][i][k];
    }
  }
  __syncthreads();
  const int first_filter = chunk.rest * stem.filters_of_block();
  const int count = min(stem.filters_of_block(), stem.filters - first_filter) * weights;
  for (int i = thread; i < count; i += static_cast<int>(blockDim.x)) {
    const int filter = i / weights, weight = i % weights;
    parts.store(split, std::int64_t{first_filter + filter} * stem.weights + first_weight + weight,
                block_sums[filter * plan.sums_pitch + weight]);
  }
}

}  // namespace

std::int64_t conv2d_stem_wgrad_splits(const Conv2dProblem& p) {
  return plan_of(p).splits;
}

template <typename T>
simt::Status conv2d_stem_wgrad(const Conv2dProblem& p, const T* x, const T* dy, T* dw, float* partial,
                               simt::Stream stream) {
  Plan plan = plan_of(p);
  const bool packs = may_stage_packs(plan.stem, x) && are_aligned(dy) && may_stage_packs<T>(plan.dy, plan.gradients);
  set_unit(plan.stem, packs ? kQuad : 1);
  set_unit(plan.gradients, packs ? kQuad : 1);
  const std::int64_t weights = p.K * p.weights();
  const std::int64_t blocks = plan.splits * plan.shares.value * plan.stem.chunks.value;
  const Parts<T> parts{plan.splits > 1 ? partial : nullptr, dw, weights};
  const auto kernel = packs ? stem_wgrad_kernel<T, true> : stem_wgrad_kernel<T, false>;
  const simt::Status status =
      simt::launch(kernel, dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(plan.threads)),
                   static_cast<std::size_t>(plan.shared_bytes), stream, plan, x, dy, parts);
  if (status != simt::kSuccess || plan.splits == 1) return status;
  return sum_parts(partial, dw, plan.splits, weights, stream);
}

template simt::Status conv2d_stem_wgrad(const Conv2dProblem&, const float*, const float*, float*, float*, simt::Stream);

}  // namespace gpucnn

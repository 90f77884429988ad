// y[n,p,q,k] = relu(bias[k] + sum over r, s, c of x[n, p*stride-padding+r*dilation, q*stride-padding+s, c] *
// w[k,r,s,c]) for images of 1 to 4 channels: the first layer of a network.
//
// Layout   x (N,H,W,C), w (K,R,S,C), y (N,P,Q,K). A block works in shared memory, in float32: on the filters, as
//          (R*S*C, filters), and on the lines of x under a tile of windows, as they lie in the array (stem.h).
// Block    up to 64 filters; the filters stay, and tiles of at most 512 windows come one after another.
// Warp     `lanes` threads that own a window's filters side by side, of as many windows as that leaves: with 8 lanes it
//          reads 128 contiguous bytes of filters, and writes 4 x 128 of y. Where that would not be whole sectors of y,
//          as of 6 filters, the block's results go through shared memory, window after window.
// Thread   8 filters (2 quads, `lanes` quads apart) at kOwn windows, `slots` apart: 64 sums in registers. 2 loads of 16
//          bytes and 8 of 4 from shared memory feed 64 multiplications.
// Limits   float32, as tensor_core_*.cu is faster in 16 bits; what require_stem() says. x is read 16 bytes at a time
//          where W*C is whole packs and x is aligned, y written so where K is a multiple of 4, 4 * lanes filters are
//          whole sectors, and y and bias are aligned.
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
  int slots, threads, lines_at, shared_bytes;
  int filters_together, raw_pitch;  // that fit where the lines lie, as they are in memory; and floats of one there
  SmallDivisor by_weights;          // of a filter, or as many whole warps as have them
  SmallDivisor by_rows, by_columns;
  SmallDivisor by_filters;  // of a block's; results lie in shared memory as (slots, filters)
};

// Floats of a filter where it lies as in memory, of `filters` side by side: the fewest for which as many of them as
// there are banks, or few filters' neighbouring weights, are in different ones. Often these are the weights alone.
constexpr int raw_pitch_of(int weights, int filters) {
  if (filters == 8) return weights + (12 - weights % 8) % 8;  // 4 * odd: 4 weights of 8 filters
  if (filters == 16) return weights + (6 - weights % 4) % 4;  // 2 * odd: 2 weights of 16
  return weights | 1;
}

// With as many filters a block as fit.
Plan plan_of(const Conv2dProblem& p) {
  require_stem(p);
  const std::int64_t eights = blocks_of(8, p.K);
  for (int lanes = even_piece(eights, kStemLanes); lanes > 0; lanes /= 2) {
    Plan plan{};
    plan.stem = stem_of(p, lanes);
    plan.slots = std::min(kStemThreads / lanes, kSlots);
    plan.threads = round_up(lanes * plan.slots, 32);
    plan.lines_at = plan.stem.weights * plan.stem.filters_of_block();
    if (plan.lines_at > kFilterFloats && lanes > 1) continue;
    const double compute = plan.threads * kOwn * 8.0 * plan.stem.weights / 128;
    const int results = std::min(plan.stem.filters_of_block(), plan.stem.filters);  // of a window and block
    plan.raw_pitch = raw_pitch_of(plan.stem.weights, plan.stem.filters_of_block());
    const int least = std::max(plan.slots * results, plan.raw_pitch);
    const auto floats = [&](int lines, int) { return plan.lines_at + std::max(lines, least); };
    // Windows side by side, also of two rows of them, find their cells in banks as far apart.
    const int step = plan.stem.horizontal.stride * plan.stem.channels;
    if (!set_tile(plan.stem, p, plan.slots * kOwn, compute, floats, [&](int columns) { return columns * step; })) {
      continue;
    }
    const int weights = plan.stem.weights;
    plan.by_weights = small_divisor_of(plan.raw_pitch == weights ? weights : round_up(weights, 32));
    plan.by_filters = small_divisor_of(results);
    plan.by_rows = small_divisor_of(plan.stem.rows), plan.by_columns = small_divisor_of(plan.stem.columns);
    const int floats_of_lines = std::max(plan.stem.lines.floats(), least);
    plan.filters_together = std::min(plan.stem.filters_of_block(), floats_of_lines / plan.raw_pitch);
    plan.shared_bytes = static_cast<int>(sizeof(float)) * (plan.lines_at + floats_of_lines);
    return plan;
  }
  throw std::invalid_argument("conv2d: filters and the lines under a window do not fit a block's shared memory");
}

// Fills `filters` with a block's, as (weights, filters); `raw` is memory of as many floats as plan_of() says. All
// threads of a block call it, and may use the one and the other then.
template <typename T>
__device__ __forceinline__ void fill_filters(const Plan& plan, int first_filter, const T* __restrict__ w,
                                             float* filters, float* raw) {
  const int weights = plan.stem.weights, count = plan.stem.filters_of_block(), pitch = plan.raw_pitch;
  const int of_filter = static_cast<int>(plan.by_weights.value);
  for (int begin = 0; begin < count; begin += plan.filters_together) {
    const int some = min(plan.filters_together, count - begin), first = first_filter + begin;
    for (int i = static_cast<int>(threadIdx.x); i < some * of_filter; i += static_cast<int>(blockDim.x)) {
      const int filter = plan.by_weights.divide(i), weight = plan.by_weights.rest(i, filter);
      if (weight >= weights) continue;
      const bool exists = first + filter < plan.stem.filters;
      const T* const from = w + (exists ? std::int64_t{first + filter} * weights + weight : 0);
      raw[filter * pitch + weight] = exists ? simt::to_float(*from) : 0.0f;
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < some * weights; i += static_cast<int>(blockDim.x)) {
      const int weight = i / some, filter = i % some;
      filters[weight * count + begin + filter] = raw[filter * pitch + weight];
    }
    __syncthreads();
  }
}

// 8 floats to `to`, where lanes side by side have neighbours: 16 bytes at a time, in the other order if `turned`.
__device__ __forceinline__ void store_halves(float* to, const Floats<8>& values, bool turned) {
  const auto part = [&](int i) { return make_float4(values[i], values[i + 1], values[i + 2], values[i + 3]); };
  const float4 low = part(0), high = part(4);
  const auto chosen = [turned](const float4& a, const float4& b) {
    return make_float4(turned ? a.x : b.x, turned ? a.y : b.y, turned ? a.z : b.z, turned ? a.w : b.w);
  };
  const unsigned first = simt::anew(turned ? 4 : 0);
  simt::vstore(to + first, chosen(high, low));
  simt::vstore(to + simt::anew(4 - first), chosen(low, high));
}

// A thread's results of one window to where the block's lie, as (slots, filters): so that neighbours write to different
// banks where a block has 8 filters or fewer.
__device__ __forceinline__ void put_results(float* results, const Floats<8>& values, int lane, int lanes, int filters) {
  if (lanes == 1 && filters == 8) {
    store_halves(results, values, threadIdx.x / 4 % 2 != 0);
  } else if (lanes == 1 && filters % 2 == 0) {
#pragma unroll
    for (int k = 0; k < 8; k += 2) {
      if (k < filters) store(results + k, Floats<2>{{values[k], values[k + 1]}});
    }
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int k = (i / 4 * lanes + lane) * 4 + i % 4;
      if (k < filters) results[k] = values[i];
    }
  }
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
  fill_filters(plan, first_filter, w, filters, lines);

  for (std::int64_t index = first.whole; index < stem.tiles; index += gridDim.x / stem.chunks.value) {
    const StemTile tile = stem_tile<T, kPacks>(stem, index);
    __syncthreads();  // the lines before these have been used
    stage_lines<T, kPacks>(stem, tile, x, lines);
    simt::cp_async_wait_all();
    int cells[kOwn];  // where the window's first cell lies
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int used = min(slot + i * plan.slots, positions - 1);  // beyond: as a neighbour, for nobody
      const int line = plan.by_columns.divide(used), image = plan.by_rows.divide(line);
      const int row = plan.by_rows.rest(line, image), column = plan.by_columns.rest(used, line);
      cells[i] = (image * stem.lines.rows + row * stem.vertical.stride) * stem.lines.pitch +
                 column * stem.horizontal.stride * stem.channels + tile.lead;
    }
    Floats<4> sums[kOwn][2] = {};
    __syncthreads();
    const float* weights = filters + lane * 4;
    for (int r = 0; r < stem.vertical.kernel; ++r) {
      const float* const from = lines + r * stem.vertical.dilation * stem.lines.pitch;
#pragma unroll 2
      for (int j = 0; j < stem.run; ++j, weights += stem.filters_of_block()) {
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

    // Where the filters of a window begin in y, or -1 for a position that is none.
    const auto window_at = [&](int position) {
      const int line = plan.by_columns.divide(position), of_tile = plan.by_rows.divide(line);
      const std::int64_t image = tile.image + of_tile;
      const int row = tile.row + plan.by_rows.rest(line, of_tile);
      const int column = tile.column + plan.by_columns.rest(position, line);
      if (position >= positions || image >= stem.images || row >= stem.vertical.outputs ||
          column >= stem.horizontal.outputs) {
        return std::int64_t{-1};
      }
      return ((image * stem.vertical.outputs + row) * stem.horizontal.outputs + column) * stem.filters;
    };
    Floats<4> offsets[2] = {};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int k = first_filter + (half * stem.lanes + lane) * 4;
      if (epilogue.bias == nullptr) continue;
      if (wide_y && k < stem.filters) offsets[half] = load<4>(epilogue.bias + k);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (!wide_y && k + j < stem.filters) offsets[half][j] = epilogue.offset(k + j);
      }
    }
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      Floats<8> values;
#pragma unroll
      for (int j = 0; j < 8; ++j) values[j] = epilogue.clip(sums[i][j / 4][j % 4] + offsets[j / 4][j % 4]);
      if (wide_y) {
        const std::int64_t window = slot < plan.slots ? window_at(slot + i * plan.slots) : -1;
        if (window < 0) continue;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int k = first_filter + (half * stem.lanes + lane) * 4;
          const Floats<4> quad{{values[half * 4], values[half * 4 + 1], values[half * 4 + 2], values[half * 4 + 3]}};
          if (k < stem.filters) store(y + (window + k), quad);
        }
      } else {
        const int count = static_cast<int>(plan.by_filters.value);
        __syncthreads();  // the lines, or the results before these, have been used
        if (slot < plan.slots) put_results(lines + slot * count, values, lane, stem.lanes, count);
        __syncthreads();
        for (int n = thread; n < plan.slots * count; n += static_cast<int>(blockDim.x)) {
          const int of = plan.by_filters.divide(n), k = first_filter + plan.by_filters.rest(n, of);
          const std::int64_t window = window_at(of + i * plan.slots);
          if (window >= 0 && k < stem.filters) y[window + k] = simt::from_float<T>(lines[n]);
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
  set_unit(plan.stem, packs ? kQuad : 1);
  int multiprocessors = 0;
  if (const simt::Status status = simt::multiprocessors(&multiprocessors); status != simt::kSuccess) return status;
  const std::int64_t chunks = plan.stem.chunks.value;
  const std::int64_t wanted = blocks_of(chunks, std::int64_t{multiprocessors} * kBlocksPerMultiprocessor * kWaves);
  const std::int64_t blocks = std::min(plan.stem.tiles, wanted) * chunks;
  const auto kernel = packs ? stem_fprop_kernel<T, true> : stem_fprop_kernel<T, false>;
  return simt::launch(kernel, dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(plan.threads)),
                      static_cast<std::size_t>(plan.shared_bytes), stream, plan, x, w, Epilogue<T>{bias, relu}, y,
                      are_aligned(y, bias) && p.K % 4 == 0 && plan.stem.lanes * 4 * sizeof(T) % 32 == 0);
}

template simt::Status conv2d_stem_fprop(const Conv2dProblem&, const float*, const float*, const float*, float*, bool,
                                        simt::Stream);

}  // namespace gpucnn

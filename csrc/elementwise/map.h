// y = f(a, b, ...) element by element: the one kernel of all functions, arithmetic and activations alike. For .cu files
// that list functions; menus and bindings include elementwise.h.
//
// Arithmetic is float32, whatever arrays are stored as; a result is rounded once. All arrays have one type.
//
// Layout   flat: arrays that lie alike, in any order, or hold one element. Walked: arrays that broadcast or have gaps,
//          by the walk of common/walk.h, which knows y's place too.
// Block    256 threads; in each pass over the grid a block owns 256 consecutive packs of 16 bytes of y.
// Thread   one pack a pass, neighbours own neighbouring packs: a warp moves 512 contiguous bytes a load and store.
// Where
//          memory is not aligned to 16 bytes, or rows of a walk are no multiple of a pack, one element a pass.
// Limits   flat: fewer than 2^61 elements. Walked: at most 8 axes once those that lie alike are merged, each but the
//          first shorter than 2^31.
// Bound    memory: each array once. a + b over N32 C256 56x56 float32, 308 MB, takes 103 us at the 3.0 TB/s that an
//          H100 copies at, and half of that in 16 bits; ReLU 69 us. Functions with an exponential take some 20
//          instructions an element, 40 us of that on 132 multiprocessors: still below the memory's time.
// Measured not run on hardware yet.
#pragma once

#include "common/grid.h"
#include "common/pack.h"
#include "common/walk.h"
#include "elementwise/elementwise.h"
#include "simt/simt.h"

#include <cstdint>
#include <type_traits>

namespace gpucnn {
namespace detail {

inline constexpr int kMapThreads = 256;

template <typename F, typename... Floats>
inline constexpr bool takes = std::is_invocable_v<F, Floats...>;

// How many numbers a function takes.
template <typename F>
inline constexpr int kInputsOf = takes<F, float>                        ? 1
                                 : takes<F, float, float>               ? 2
                                 : takes<F, float, float, float>        ? 3
                                 : takes<F, float, float, float, float> ? 4
                                                                        : 0;

// How many parameters it holds: it is a struct of floats, or empty.
template <typename F>
inline constexpr int kParametersOf = std::is_empty_v<F> ? 0 : static_cast<int>(sizeof(F) / sizeof(float));

template <typename F>
F function_of(const float* p) {
  constexpr int kCount = kParametersOf<F>;
  static_assert(kCount <= kMostParameters);
  if constexpr (kCount == 0) {
    return F{};
  } else if constexpr (kCount == 1) {
    return F{p[0]};
  } else if constexpr (kCount == 2) {
    return F{p[0], p[1]};
  } else if constexpr (kCount == 3) {
    return F{p[0], p[1], p[2]};
  } else {
    return F{p[0], p[1], p[2], p[3]};
  }
}

template <typename T, int kInputs>
struct Inputs {
  const T* at[kInputs];
};

// f of element `i` of each of the packs.
template <typename F, int kInputs, int kCount>
__device__ __forceinline__ float apply(const F& f, const Floats<kCount> (&in)[kInputs], int i) {
  if constexpr (kInputs == 1) {
    return f(in[0][i]);
  } else if constexpr (kInputs == 2) {
    return f(in[0][i], in[1][i]);
  } else if constexpr (kInputs == 3) {
    return f(in[0][i], in[1][i], in[2][i]);
  } else {
    return f(in[0][i], in[1][i], in[2][i], in[3][i]);
  }
}

// kCount elements from p on, or the one there, kCount times.
template <int kCount, typename T>
__device__ __forceinline__ Floats<kCount> load_or_repeat(const T* p, bool repeats) {
  if (!repeats) return load<kCount>(p);
  const float value = simt::to_float(*p);
  Floats<kCount> result;
#pragma unroll
  for (int i = 0; i < kCount; ++i) result[i] = value;
  return result;
}

namespace {  // each file has kernels of its own, by which they are told apart

// Bit i of `single`: input i has one element.   packs: those to be moved whole, 0 where memory is not aligned.
template <typename F, typename T, int kInputs>
__global__ void __launch_bounds__(kMapThreads)
    flat_map_kernel(const F f, const Inputs<T, kInputs> in, T* y, std::int64_t n, std::int64_t packs, unsigned single) {
  const std::int64_t step = std::int64_t{gridDim.x} * kMapThreads;                  // threads in the grid
  const std::int64_t first = std::int64_t{blockIdx.x} * kMapThreads + threadIdx.x;  // [0, step)
  for (std::int64_t i = first; i < packs; i += step) {                              // [0, packs)
    Floats<kPack<T>> values[kInputs];
#pragma unroll
    for (int k = 0; k < kInputs; ++k) {
      const bool repeats = single >> k & 1;
      values[k] = load_or_repeat<kPack<T>>(in.at[k] + (repeats ? 0 : i * kPack<T>), repeats);
    }
    Floats<kPack<T>> result;
#pragma unroll
    for (int j = 0; j < kPack<T>; ++j) result[j] = apply(f, values, j);
    store(y + i * kPack<T>, result);
  }
  for (std::int64_t i = packs * kPack<T> + first; i < n; i += step) {  // [packs * kPack, n)
    Floats<1> values[kInputs];
#pragma unroll
    for (int k = 0; k < kInputs; ++k) values[k][0] = simt::to_float(in.at[k][single >> k & 1 ? 0 : i]);
    y[i] = simt::from_float<T>(apply(f, values, 0));
  }
}

// Arrays of the walk: y, then the inputs.   in_packs: its steps are packs.
template <typename F, typename T, int kInputs>
__global__ void __launch_bounds__(kMapThreads)
    walked_map_kernel(const F f, const Inputs<T, kInputs> in, T* y, const __grid_constant__ Walk<kInputs + 1> walk,
                      bool in_packs) {
  const std::int64_t step = std::int64_t{gridDim.x} * kMapThreads;
  const std::int64_t first = std::int64_t{blockIdx.x} * kMapThreads + threadIdx.x;
  if (in_packs) {
    for (std::int64_t i = first; i < walk.units; i += step) {  // [0, units), packs
      const Offsets<kInputs + 1> at = offsets_of<kPack<T>>(walk, i);
      Floats<kPack<T>> values[kInputs];
#pragma unroll
      for (int k = 0; k < kInputs; ++k) {
        values[k] = load_or_repeat<kPack<T>>(in.at[k] + at.of[k + 1], walk.stride[k + 1][walk.axes - 1] == 0);
      }
      Floats<kPack<T>> result;
#pragma unroll
      for (int j = 0; j < kPack<T>; ++j) result[j] = apply(f, values, j);
      store(y + at.of[0], result);
    }
  } else {
    for (std::int64_t i = first; i < walk.units; i += step) {  // [0, units), elements
      const Offsets<kInputs + 1> at = offsets_of<1>(walk, i);
      Floats<1> values[kInputs];
#pragma unroll
      for (int k = 0; k < kInputs; ++k) values[k][0] = simt::to_float(in.at[k][at.of[k + 1]]);
      y[at.of[0]] = simt::from_float<T>(apply(f, values, 0));
    }
  }
}

}  // namespace

template <typename F, typename T, int kInputs>
simt::Status launch_flat(const F& f, const Inputs<T, kInputs>& in, T* y, std::int64_t n, unsigned single,
                         simt::Stream stream) {
  bool aligned = are_aligned(y);
  for (int k = 0; k < kInputs; ++k) aligned = aligned && (single >> k & 1 || are_aligned(in.at[k]));
  const std::int64_t packs = aligned ? n / kPack<T> : 0;
  unsigned blocks = 0;
  const std::int64_t items = aligned ? blocks_of(kPack<T>, n) : n;
  if (const auto status = one_wave(items, kMapThreads, &blocks); status != simt::kSuccess) return status;
  return simt::launch(flat_map_kernel<F, T, kInputs>, dim3(blocks), dim3(kMapThreads), 0, stream, f, in, y, n, packs,
                      single);
}

template <typename F, typename T, int kInputs>
simt::Status launch_walked(const F& f, const Inputs<T, kInputs>& in, T* y, Walk<kInputs + 1>& walk,
                           simt::Stream stream) {
  bool is_aligned[kInputs + 1] = {are_aligned(y)};
  for (int k = 0; k < kInputs; ++k) is_aligned[k + 1] = are_aligned(in.at[k]);
  const bool in_packs = walks_in_packs(walk, kPack<T>, is_aligned);
  set_step(walk, in_packs ? kPack<T> : 1);
  unsigned blocks = 0;
  if (const auto status = one_wave(walk.units, kMapThreads, &blocks); status != simt::kSuccess) return status;
  return simt::launch(walked_map_kernel<F, T, kInputs>, dim3(blocks), dim3(kMapThreads), 0, stream, f, in, y, walk,
                      in_packs);
}

// Whether array k of the walk goes on from element to element, or stays; as 1 and 0, -1 for neither.
template <int kArrays>
std::int64_t flat_stride(const Walk<kArrays>& walk, int k) {
  if (walk.axes > 1) return -1;
  return walk.length[0] == 1 ? 1 : walk.stride[k][0];
}

template <typename F, typename T, bool kWalks>
simt::Status map(const MapArguments& arguments, simt::Stream stream) {
  constexpr int kInputs = kInputsOf<F>;
  static_assert(kInputs > 0, "a function of one to four floats");
  const F f = function_of<F>(arguments.parameters);
  T* const y = static_cast<T*>(arguments.y);
  Inputs<T, kInputs> in;
  for (int k = 0; k < kInputs; ++k) in.at[k] = static_cast<const T*>(arguments.inputs[k]);

  Walk<kInputs + 1> walk = walk_of<kInputs + 1>(*arguments.shape, arguments.operands);
  bool flat = flat_stride(walk, 0) == 1;
  unsigned single = 0;
  for (int k = 0; k < kInputs; ++k) {
    const std::int64_t stride = flat_stride(walk, k + 1);
    flat = flat && (stride == 0 || stride == 1);
    if (stride == 0) single |= 1u << k;
  }
  if (flat) return launch_flat<F, T, kInputs>(f, in, y, walk.length[0], single, stream);
  if constexpr (kWalks) {
    return launch_walked<F, T, kInputs>(f, in, y, walk, stream);
  } else {
    throw std::invalid_argument("this function takes arrays that lie alike; make them contiguous");
  }
}

template <typename F, bool kWalks>
constexpr MapFunction entry(const char* name) {
  return {name,
          kInputsOf<F>,
          kParametersOf<F>,
          &map<F, float, kWalks>,
          &map<F, simt::half, kWalks>,
          &map<F, simt::bfloat16, kWalks>};
}

}  // namespace detail

// A line of a table of functions: F by its name, for arrays that lie alike or have one element.
template <typename F>
constexpr MapFunction flat(const char* name) {
  return detail::entry<F, false>(name);
}

// And for arrays that broadcast or have gaps.
template <typename F>
constexpr MapFunction walked(const char* name) {
  return detail::entry<F, true>(name);
}

}  // namespace gpucnn

// One kernel an instruction of the SIMT layer: what goes in is given, what comes out is compared with what a GPU gives
// (tools/make_simt_golden.py). Compiled by g++ for the models and by nvcc for the instructions themselves.
//
// A kernel is one warp. Every lane brings some 32-bit words and takes some away: lane l's are in[l][0 .. kIn), out[l][0
// .. kOut). Floats and pairs of 16-bit numbers travel as their bits.
#include "simt/ptx.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace {

namespace simt = gpucnn::simt;
using Word = std::uint32_t;

constexpr int kLanes = 32;
constexpr unsigned kAll = 0xffffffffu;

template <typename To, typename From>
__device__ __forceinline__ To same_bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "another view of the same bits");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

struct Instruction {
  const char* name;
  void (*kernel)(const Word* in, Word* out);
  int in_words, out_words;  // of a lane
};

std::vector<Instruction>& instructions() {
  static std::vector<Instruction> all;
  return all;
}

struct Listed {
  explicit Listed(const Instruction& instruction) { instructions().push_back(instruction); }
};

// The body sees: all (every lane's input, in global memory), lane, in and out (the lane's own).
#define INSTRUCTION(name, kIn, kOut, ...)                            \
  __global__ void name##_kernel(const Word* all, Word* result) {     \
    const int lane = static_cast<int>(threadIdx.x);                  \
    [[maybe_unused]] Word in[kIn];                                   \
    Word out[kOut];                                                  \
    for (int i = 0; i < kIn; ++i) in[i] = all[lane * kIn + i];       \
    __VA_ARGS__                                                      \
    for (int i = 0; i < kOut; ++i) result[lane * kOut + i] = out[i]; \
  }                                                                  \
  const Listed name##_listed({#name, &name##_kernel, kIn, kOut});

// ---- cp.async: another lane's place in shared memory; every third lane copies nothing and leaves zeros
// ----------------

template <int kWords>
__device__ __forceinline__ void copy(const Word* all, int lane, Word (&out)[kWords]) {
  SIMT_SHARED(Word, tile, [kWords * kLanes]);
  for (int i = 0; i < kWords; ++i) tile[kWords * lane + i] = 0xabababab;
  __syncthreads();
  simt::cp_async<4 * kWords>(tile + kWords * (lane ^ 5), all + kWords * lane, lane % 3 != 0);
  simt::cp_async_commit();
  simt::cp_async_wait_group<0>();
  __syncthreads();
  for (int i = 0; i < kWords; ++i) out[i] = tile[kWords * lane + i];
}
INSTRUCTION(cp_async_4, 1, 1, { copy(all, lane, out); })
INSTRUCTION(cp_async_8, 2, 2, { copy(all, lane, out); })
INSTRUCTION(cp_async_16, 4, 4, { copy(all, lane, out); })

// ---- ldmatrix: lane l brings row l % 8 of matrix l / 8
// ------------------------------------------------------------------

#define LDMATRIX(name, kMatrices)                           \
  INSTRUCTION(name, 4, kMatrices, {                         \
    SIMT_SHARED(Word, rows, [4 * kLanes]);                  \
    for (int i = 0; i < 4; ++i) rows[4 * lane + i] = in[i]; \
    __syncthreads();                                        \
    simt::name(out, rows + 4 * (lane % (8 * kMatrices)));   \
  })
LDMATRIX(ldmatrix_x1, 1)
LDMATRIX(ldmatrix_x2, 2)
LDMATRIX(ldmatrix_x4, 4)
LDMATRIX(ldmatrix_x1_trans, 1)
LDMATRIX(ldmatrix_x2_trans, 2)
LDMATRIX(ldmatrix_x4_trans, 4)

// ---- mma: d, a, b
// ---------------------------------------------------------------------------------------------------------

#define MMA(name)                                               \
  INSTRUCTION(name, 10, 4, {                                    \
    float d[4];                                                 \
    for (int i = 0; i < 4; ++i) d[i] = same_bits<float>(in[i]); \
    const Word a[4] = {in[4], in[5], in[6], in[7]};             \
    const Word b[2] = {in[8], in[9]};                           \
    simt::name(d, a, b);                                        \
    for (int i = 0; i < 4; ++i) out[i] = same_bits<Word>(d[i]); \
  })
MMA(mma_m16n8k16_bf16)
MMA(mma_m16n8k16_fp16)
MMA(mma_m16n8k8_tf32)

// ---- shuffles: a value, and where from
// -------------------------------------------------------------------------------------

#define SHUFFLE(name, function, width) \
  INSTRUCTION(name, 2, 1, { out[0] = function(kAll, in[0], static_cast<int>(in[1]), width); })
SHUFFLE(shfl, __shfl_sync, 32)
SHUFFLE(shfl_of_8, __shfl_sync, 8)
SHUFFLE(shfl_xor, __shfl_xor_sync, 32)
SHUFFLE(shfl_xor_of_8, __shfl_xor_sync, 8)
SHUFFLE(shfl_up, __shfl_up_sync, 32)
SHUFFLE(shfl_up_of_8, __shfl_up_sync, 8)
SHUFFLE(shfl_down, __shfl_down_sync, 32)
SHUFFLE(shfl_down_of_8, __shfl_down_sync, 8)

// ---- votes and reductions of a warp
// ----------------------------------------------------------------------------------------

INSTRUCTION(ballot, 1, 1, { out[0] = __ballot_sync(kAll, in[0] % 2 != 0); })
INSTRUCTION(any, 1, 1, { out[0] = __any_sync(kAll, in[0] % 2 != 0) != 0; })
INSTRUCTION(all_of, 1, 1, { out[0] = __all_sync(kAll, in[0] % 2 != 0) != 0; })
INSTRUCTION(reduce_add, 1, 1, { out[0] = __reduce_add_sync(kAll, in[0]); })
INSTRUCTION(reduce_min, 1, 1, { out[0] = __reduce_min_sync(kAll, in[0]); })
INSTRUCTION(reduce_max, 1, 1, { out[0] = __reduce_max_sync(kAll, in[0]); })
INSTRUCTION(reduce_min_int, 1, 1, { out[0] = static_cast<Word>(__reduce_min_sync(kAll, static_cast<int>(in[0]))); })
INSTRUCTION(reduce_max_int, 1, 1, { out[0] = static_cast<Word>(__reduce_max_sync(kAll, static_cast<int>(in[0]))); })
INSTRUCTION(reduce_and, 1, 1, { out[0] = __reduce_and_sync(kAll, in[0]); })
INSTRUCTION(reduce_or, 1, 1, { out[0] = __reduce_or_sync(kAll, in[0]); })
INSTRUCTION(reduce_xor, 1, 1, { out[0] = __reduce_xor_sync(kAll, in[0]); })

// ---- atomics: a start, an operand, for CAS a second one; what was there and what is there then
// --------------------------

#define ATOMIC(name, T, call)                               \
  INSTRUCTION(name, 3, 2, {                                 \
    SIMT_SHARED(T, slots, [kLanes]);                        \
    slots[lane] = static_cast<T>(in[0]);                    \
    __syncthreads();                                        \
    T* const slot = slots + lane;                           \
    const T value = static_cast<T>(in[1]);                  \
    [[maybe_unused]] const T other = static_cast<T>(in[2]); \
    out[0] = static_cast<Word>(call);                       \
    __syncthreads();                                        \
    out[1] = static_cast<Word>(slots[lane]);                \
  })
ATOMIC(atomic_add, unsigned, atomicAdd(slot, value))
ATOMIC(atomic_sub, unsigned, atomicSub(slot, value))
ATOMIC(atomic_min, unsigned, atomicMin(slot, value))
ATOMIC(atomic_max, unsigned, atomicMax(slot, value))
ATOMIC(atomic_min_int, int, atomicMin(slot, value))
ATOMIC(atomic_max_int, int, atomicMax(slot, value))
ATOMIC(atomic_and, unsigned, atomicAnd(slot, value))
ATOMIC(atomic_or, unsigned, atomicOr(slot, value))
ATOMIC(atomic_exchange, unsigned, atomicExch(slot, value))
ATOMIC(atomic_compare, unsigned, atomicCAS(slot, value, other))

// ---- 16-bit floats, and the smaller and larger of two floats
// ----------------------------------------------------------------

template <typename T>
__device__ __forceinline__ Word rounded(Word bits) {
  return same_bits<std::uint16_t>(simt::from_float<T>(same_bits<float>(bits)));
}
template <typename T>
__device__ __forceinline__ Word widened(Word bits) {
  return same_bits<Word>(simt::to_float(same_bits<T>(static_cast<std::uint16_t>(bits))));
}
INSTRUCTION(half_from_float, 1, 1, { out[0] = rounded<simt::half>(in[0]); })
INSTRUCTION(bfloat16_from_float, 1, 1, { out[0] = rounded<simt::bfloat16>(in[0]); })
INSTRUCTION(half_to_float, 1, 1, { out[0] = widened<simt::half>(in[0]); })
INSTRUCTION(bfloat16_to_float, 1, 1, { out[0] = widened<simt::bfloat16>(in[0]); })
INSTRUCTION(pack_bfloat16, 2, 1, { out[0] = simt::pack_bfloat16(same_bits<float>(in[0]), same_bits<float>(in[1])); })
// A NaN may stay any NaN.
INSTRUCTION(to_tf32, 1, 1, {
  const float given = same_bits<float>(in[0]);
  const float found = same_bits<float>(simt::to_tf32(given));
  out[0] = given == given || found == found ? same_bits<Word>(found) : 0x7fffffffu;
})
INSTRUCTION(float_min, 2, 1, { out[0] = same_bits<Word>(min(same_bits<float>(in[0]), same_bits<float>(in[1]))); })
INSTRUCTION(float_max, 2, 1, { out[0] = same_bits<Word>(max(same_bits<float>(in[0]), same_bits<float>(in[1]))); })

// ---- the way in
// ---------------------------------------------------------------------------------------------------------------

std::string text;  // of the last answer

#if defined(__CUDACC__)

std::string run(const Instruction& instruction, const Word* in, Word* out) {
  const std::size_t in_bytes = sizeof(Word) * kLanes * instruction.in_words;
  const std::size_t out_bytes = sizeof(Word) * kLanes * instruction.out_words;
  Word *device_in = nullptr, *device_out = nullptr;
  cudaError_t code = cudaMalloc(&device_in, in_bytes);
  if (code == cudaSuccess) code = cudaMalloc(&device_out, out_bytes);
  if (code == cudaSuccess) code = cudaMemcpy(device_in, in, in_bytes, cudaMemcpyHostToDevice);
  if (code == cudaSuccess) {
    code = simt::launch(instruction.kernel, dim3(1), dim3(kLanes), 0, nullptr, static_cast<const Word*>(device_in),
                        device_out);
  }
  if (code == cudaSuccess) code = cudaMemcpy(out, device_out, out_bytes, cudaMemcpyDeviceToHost);
  cudaFree(device_in);
  cudaFree(device_out);
  return code == cudaSuccess ? "" : cudaGetErrorString(code);
}

std::string describe_machine() {
  cudaDeviceProp properties;
  const cudaError_t code = cudaGetDeviceProperties(&properties, 0);
  if (code != cudaSuccess) return std::string("no device: ") + cudaGetErrorString(code);
  return std::string(properties.name) + ", compute capability " + std::to_string(properties.major) + "." +
         std::to_string(properties.minor);
}

#else

std::string run(const Instruction& instruction, const Word* in, Word* out) {
  try {
    const bool ran = simt::launch(instruction.kernel, 1, kLanes, 0, nullptr, in, out) == simt::kSuccess;
    return ran ? "" : "was not launched";
  } catch (const simt::Fault& fault) {
    return fault.what();
  }
}

std::string describe_machine() {
  return "model";
}

#endif

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// "name in_words out_words", one line an instruction.
EXPORT const char* list_instructions() {
  text.clear();
  for (const Instruction& one : instructions()) {
    text += std::string(one.name) + " " + std::to_string(one.in_words) + " " + std::to_string(one.out_words) + "\n";
  }
  return text.c_str();
}

// Runs one on in[32][in_words] and fills out[32][out_words]; what went wrong, or nothing.
EXPORT const char* run_instruction(const char* name, const Word* in, Word* out) {
  text = "there is no such instruction";
  for (const Instruction& one : instructions()) {
    if (one.name == std::string(name)) text = run(one, in, out);
  }
  return text.c_str();
}

// "model", or the GPU's name.
EXPORT const char* name_machine() {
  text = describe_machine();
  return text.c_str();
}

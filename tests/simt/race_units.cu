// One small question each to the race checker: is this a race? Names begin with the answer: race_ or ordered_.
#include "cases.h"

#include <cstring>

namespace {

using cases::Array;
namespace simt = gpucnn::simt;

constexpr unsigned kAll = 0xffffffffu;

struct Memory {
  float* floats;         // 1024
  int* ints;             // 64
  unsigned char* bytes;  // 4096
};

// What every kernel here begins with: shared memory that is written, by the thread that then owns it.
template <typename Body>
__device__ __forceinline__ void with_shared(Body body) {
  SIMT_SHARED(float, s, [1024]);
  SIMT_SHARED(simt::bfloat16, h, [1024]);
  SIMT_SHARED(unsigned char, b, [1024]);
  const int t = threadIdx.x, n = blockDim.x;
  s[t] = 0.0f;
  h[t] = simt::from_float<simt::bfloat16>(0.0f);
  b[t] = 0;
  __syncthreads();
  body(s, h, b, t, n);
}

#define UNIT(name, blocks, ...)                                                                           \
  __global__ void name##_kernel(Memory m) {                                                               \
    with_shared([&](float* s, simt::bfloat16* h, unsigned char* b, int t, int n) {                        \
      static_cast<void>(m), static_cast<void>(s), static_cast<void>(h), static_cast<void>(b);             \
      static_cast<void>(t), static_cast<void>(n);                                                         \
      __VA_ARGS__                                                                                         \
    });                                                                                                   \
  }                                                                                                       \
  CASE(name) {                                                                                            \
    for (const int threads : {64, 96, 1024}) {                                                            \
      Array<float> floats(1024);                                                                          \
      Array<int> ints(64);                                                                                \
      Array<unsigned char> bytes(4096);                                                                   \
      cases::launch(name##_kernel, blocks, threads, 0, Memory{floats.data(), ints.data(), bytes.data()}); \
    }                                                                                                     \
    return true;                                                                                          \
  }

// Inside a block.
UNIT(race_read_far_from_the_write, 1, {
  if (t == 0) s[0] = 1;
  if (t == n - 1) m.floats[t] = s[0];
})
UNIT(race_write_far_from_the_read, 1, {
  if (t == 0) m.floats[0] = s[n - 1];
  if (t == n - 1) s[n - 1] = 2;
})
UNIT(ordered_by_a_barrier, 1, {
  if (t == 0) s[0] = 1;
  __syncthreads();
  if (t == n - 1) m.floats[t] = s[0];
})
UNIT(ordered_by_barriers_in_a_loop, 1, {
  for (int i = 0; i < 4; ++i) {
    s[(t + i) % n] += 1;
    __syncthreads();
  }
  m.floats[t] = s[t];
})
UNIT(ordered_by_syncwarp, 1, {
  if (t % 32 == 0) s[t] = 1;
  __syncwarp();
  if (t % 32 == 5) m.floats[t] = s[t - 5];
})
UNIT(race_shuffle_orders_nothing, 1, {
  if (t % 32 == 0) s[t] = 1;
  m.floats[t] = static_cast<float>(__shfl_sync(kAll, t, 0));
  if (t % 32 == 5) m.floats[t] = s[t - 5];
})
UNIT(race_vote_orders_nothing, 1, {
  if (t % 32 == 0) s[t] = 1;
  m.ints[t / 32] = __any_sync(kAll, t == 3);
  if (t % 32 == 5) m.floats[t] = s[t - 5];
})
UNIT(race_syncwarp_is_of_one_warp, 1, {
  if (t == 0) s[0] = 1;
  __syncwarp();
  if (t == 32) m.floats[t] = s[0];
})
UNIT(race_with_a_lane_outside_the_mask, 1, {
  if (t == 0) s[0] = 1;
  if (t < 16) __syncwarp(0x0000ffffu);
  if (t == 20) m.floats[t] = s[0];
})
UNIT(race_with_a_reader_outside_the_mask, 1, {  // whichever lanes read first and last
  m.floats[t] = s[0];
  if (t < 31) __syncwarp(0x7fffffffu);
  if (t == 0) s[0] = 1;
})
UNIT(race_with_a_reader_at_another_line, 1, {
  float sum = s[0];
  if (t == 17) sum += s[1];
  sum += s[0];
  if (t % 2 == 1) sum += s[1];
  m.floats[t] = sum;
  if (t != 17 && t < 32) __syncwarp(0xfffdffffu);
  if (t == 4) s[1] = sum;
})
UNIT(race_with_one_of_readers_at_many_lines, 1, {
  float sum = 0;
  if (t < 8) sum += s[1];
  if (t >= 8 && t < 16) sum -= s[1];
  if (t == 17) sum = 2 * s[1];
  if (t == 18) sum = 3 * s[1];
  if (t == 19) sum = 4 * s[1];
  m.floats[t] = sum;
  if (t != 17 && t < 32) __syncwarp(0xfffdffffu);
  if (t == 4) s[1] = sum;
})
UNIT(ordered_after_all_readers_of_a_mask, 1, {
  if (t < 16) m.floats[t] = s[0];
  if (t < 16) __syncwarp(0x0000ffffu);
  if (t == 3) s[0] = 1;
})
UNIT(ordered_after_readers_that_met_twice, 1, {
  if (t < 8) {
    __syncwarp(0x000000ffu);
    m.floats[t] = s[0];
    __syncwarp(0x000000ffu);
  }
  if (t == 3) s[0] = 1;
})
UNIT(race_with_readers_at_two_stamps, 1, {  // 8 lanes meet among themselves, before they read and after
  if (t < 8) __syncwarp(0x000000ffu);
  if (t < 32) m.floats[t] = s[0];
  if (t < 8) __syncwarp(0x000000ffu);
  if (t == 3) s[0] = 1;
})
UNIT(race_after_many_barriers, 1, {
  for (int i = 0; i < 20; ++i) {
    s[t] += 1;
    __syncthreads();
  }
  if (t == 1) s[2] = 3;
  if (t == 2) m.floats[2] = s[2];
})
UNIT(race_in_global_memory, 1, {
  if (t == 7) m.ints[3] = 1;
  if (t == 40) m.ints[4] = m.ints[3];
})
UNIT(ordered_in_global_memory, 1, {
  if (t == 7) m.ints[3] = 1;
  __syncthreads();
  if (t == 40) m.ints[4] = m.ints[3];
})
UNIT(ordered_after_two_readers, 1, {
  m.floats[t] = s[0];
  __syncthreads();
  if (t == n - 1) s[0] = 1;
})
UNIT(race_with_one_reader_of_many, 1, {  // all read; those of the first warp are ordered before the write
  m.floats[t] = s[0];
  __syncwarp();
  if (t == 0) s[0] = 1;
})
UNIT(race_write_and_write, 1, {
  if (t == 3 || t == 60) s[5] = 1;
})

// Bytes that are neighbours.
UNIT(ordered_neighbouring_halves, 1, {
  h[t] = simt::from_float<simt::bfloat16>(static_cast<float>(t));
  __syncthreads();
  m.floats[t] = simt::to_float(h[(t + 1) % n]);
})
UNIT(ordered_neighbouring_bytes, 4, {
  b[t] = 1;
  m.bytes[blockIdx.x * n + t] = 1;
})
UNIT(ordered_words_then_bytes, 1, {  // a page that is split while words are remembered in it
  if (t < 64) reinterpret_cast<int*>(m.bytes)[t] = 1;
  __syncthreads();
  m.bytes[t] = 2;
  __syncthreads();
  if (t < 64) reinterpret_cast<int*>(m.bytes)[t] += 1;
})
UNIT(race_words_then_bytes, 1, {
  if (t < 32) reinterpret_cast<int*>(m.bytes)[t] = 1;
  if (t == 63) m.bytes[1] = m.bytes[127];
})
UNIT(race_byte_in_a_word, 1, {
  if (t == 2) reinterpret_cast<unsigned char*>(s)[9] = 1;
  if (t == 50) s[2] = 1;
})
UNIT(race_byte_before_the_word, 1, {
  if (t == 50) reinterpret_cast<unsigned char*>(s)[9] = 1;
  if (t == 2) s[2] = 1;
})
UNIT(ordered_bytes_of_one_word, 1, {
  if (t < 4) reinterpret_cast<unsigned char*>(s)[t] = 1;
  if (t == 40) reinterpret_cast<unsigned char*>(s)[4] = 1;
})
UNIT(race_unaligned_across_words, 1, {
  float unaligned = 1;
  if (t == 2) std::memcpy(reinterpret_cast<unsigned char*>(s) + 6, &unaligned, 4);
  if (t == 50) m.floats[0] = s[2];
})

// Atomics.
UNIT(ordered_atomics, 4, { atomicAdd(&m.ints[0], 1); })
UNIT(ordered_atomics_of_every_kind, 4, {
  atomicMax(&m.ints[1], t);
  atomicMin(&m.ints[1], t);
  atomicCAS(&m.ints[1], 3, 4);
  atomicExch(&m.ints[1], t);
  atomicOr(&m.ints[1], t);
  atomicAnd(&m.ints[1], t);
})
UNIT(race_plain_read_among_atomics, 1, {
  atomicAdd(&m.ints[0], 1);
  if (t == 7) m.ints[1] = m.ints[0];
})
UNIT(race_plain_write_among_atomics, 1, {
  if (t == n - 1) m.ints[0] = 0;
  atomicAdd(&m.ints[0], 1);
})
UNIT(ordered_atomics_then_read, 1, {
  atomicAdd(&m.ints[0], 1);
  __syncthreads();
  m.floats[t] = static_cast<float>(m.ints[0]);
})

UNIT(race_read_of_what_another_changed_and_read, 1, {
  if (t == 0) {
    atomicAdd(&m.ints[0], 1);
    m.floats[0] = static_cast<float>(m.ints[0]);
  }
  const int other = __shfl_sync(kAll, t, 0);  // in this order, whatever the order
  if (t == 5) m.floats[5] = static_cast<float>(m.ints[0] + other);
})
UNIT(race_change_of_what_another_read_and_changed, 1, {
  if (t == 0) {
    m.floats[0] = static_cast<float>(m.ints[0]);
    atomicAdd(&m.ints[0], 1);
  }
  const int other = __shfl_sync(kAll, t, 0);
  if (t == 5) atomicAdd(&m.ints[0], other);
})
UNIT(race_block_reads_what_another_changed_and_read, 2, {
  if (blockIdx.x == 0) {
    if (t == 0) atomicAdd(&m.ints[0], 1);
    __syncthreads();
    m.floats[t] = static_cast<float>(m.ints[0]);
  } else if (t == 1) {
    m.ints[1] = m.ints[0];
  }
})
UNIT(race_block_changes_what_another_read_and_changed, 2, {
  if (blockIdx.x == 0) {
    m.floats[t] = static_cast<float>(m.ints[0]);
    __syncthreads();
    atomicAdd(&m.ints[0], 1);
  } else {
    atomicAdd(&m.ints[0], 1);
  }
})
UNIT(race_change_of_what_another_wrote_and_changed, 1, {
  if (t == 0) {
    m.ints[0] = 1;
    atomicAdd(&m.ints[0], 1);
  }
  const int other = __shfl_sync(kAll, t, 0);
  if (t == 5) atomicAdd(&m.ints[0], other);
})
UNIT(ordered_changes_and_reads_in_turn, 1, {
  for (int i = 0; i < 3; ++i) {
    atomicAdd(&m.ints[0], 1);
    __syncthreads();
    m.floats[t] = static_cast<float>(m.ints[0]);
    __syncthreads();
  }
})

// Between blocks: even the same thread of another block is another thread.
UNIT(race_blocks_write_and_read, 4, {
  if (blockIdx.x == 0 && t == 3) m.ints[8] = 1;
  if (blockIdx.x == 1 && t == 3) m.ints[9] = m.ints[8];
})
UNIT(race_blocks_write_one_word, 4, {
  __syncthreads();
  if (t == 0) m.ints[8 + blockIdx.x % 2] = 1;
  __syncthreads();
})
UNIT(race_reader_of_another_block, 4, {  // the last reader is the writer itself
  if (t == 3) m.ints[10 + blockIdx.x] = m.ints[8];
  __syncthreads();
  if (blockIdx.x == 2 && t == 3) m.ints[8] = 1;
})
UNIT(race_atomic_and_plain_of_blocks, 4, {
  if (blockIdx.x != 2 && t == 0) atomicAdd(&m.ints[8], 1);
  if (blockIdx.x == 2 && t == 0) m.ints[8] = 1;
})
UNIT(ordered_blocks_read_one_word, 4, {
  const int seen = m.ints[8];
  if (t == 0) m.floats[blockIdx.x] = static_cast<float>(seen);
})

}  // namespace

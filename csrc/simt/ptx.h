// PTX instructions as named functions: under nvcc the instruction itself (ptx_cuda.h), on the host a model of what the
// PTX manual says it does (ptx_host.h). The models are not calibrated against hardware yet.
//
//   cp_async<16>(shared, global, valid = true)
//     copies 4, 8 or 16 bytes later, past the registers; both addresses are multiples of that. Not valid: writes zeros,
//     and global is not followed
//   cp_async_commit()            those issued since the last commit become a group
//   cp_async_wait_group<N>()     waits until all but the last N groups are done (this thread's own)
//   cp_async_wait_all()          waits for everything, committed or not
//
//   store_global(p, word)        one store of uint2 or uint4 to global memory, aligned to its size, that the compiler
//                                does not take to pieces
//   anew(number)                 the number, of which the compiler does not know that it has it already: what is made
//                                of it is computed here, not kept in registers over a loop before. No instruction
//
// The next ones are called by all 32 lanes at once.
//
//   ldmatrix_x1/x2/x4(r, row)
//     1, 2 or 4 matrices of 8 rows of 8 16-bit elements from shared memory: row j of matrix i is where lane (8 i + j)'s
//     `row` points, a multiple of 16. r[i] of lane l: row l / 4, columns 2 (l % 4) in the low half and 2 (l % 4) + 1 in
//     the high one
//   ldmatrix_x1/x2/x4_trans(r, row)
//     the same of the transposed matrices
//   mma_m16n8k16_bf16/fp16(d, a, b), mma_m16n8k8_tf32(d, a, b)
//     d += a * b with a 16 x 16 (tf32: 16 x 8), b 16 x 8 (8 x 8) and d 16 x 8 in float32, spread over the lanes; with
//     g = lane / 4 and t = lane % 4:
//       d[0], d[1]   row g, columns 2t and 2t + 1; d[2], d[3] the same of row g + 8
//       16-bit       a[0] row g, columns 2t and 2t + 1; a[1] row g + 8; a[2], a[3] the same, 8 columns on
//                    b[0] column g, rows 2t and 2t + 1; b[1] the same, 8 rows on
//       tf32         a[0] row g, column t; a[1] row g + 8; a[2], a[3] the same, 4 columns on
//                    b[0] column g, row t; b[1] row t + 4
//                    float32 bits, of which the low 13 are ignored
//
//   pack_bfloat16(low, high)
//     two numbers, each rounded to the nearest bfloat16, even where two are as near, in the halves of a word
//   to_tf32(value)
//     the bits of the nearest number of 11 bits, away from zero where two are as near; the low 13 are 0. An infinity or
//     a NaN stays one, but for a NaN of which those bits are all that there is
#pragma once

#include "simt/simt.h"

#if defined(__CUDACC__)
#include "simt/ptx_cuda.h"
#else
#include "simt/ptx_host.h"
#endif

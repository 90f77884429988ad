// Correct kernels that copy asynchronously and multiply matrices by tensor-core instructions. Results are checked too.
#include "cases.h"

namespace {

using cases::Array;
namespace simt = gpucnn::simt;

// y[i] = the sum of x's tiles at i, each reversed: kStages tiles in flight, of which the oldest is waited for.
template <int kStages>
__global__ void sum_of_tiles(const int* x, int* y, int tiles) {
  SIMT_SHARED(int, tile, [kStages][256]);
  const int t = threadIdx.x;
  const auto load = [&](int i) {
    simt::cp_async<16>(&tile[i % kStages][4 * t], x + 256 * i + 4 * t, i < tiles);
    simt::cp_async_commit();
  };
  for (int i = 0; i < kStages - 1; ++i) load(i);
  int sum[4] = {};
  for (int i = 0; i < tiles; ++i) {
    simt::cp_async_wait_group<kStages - 2>();
    __syncthreads();        // everybody's copies of tile i are there, and nobody reads tile i - 1 any more
    load(i + kStages - 1);  // into the place of tile i - 1
    for (int j = 0; j < 4; ++j) sum[j] += tile[i % kStages][255 - 4 * t - j];
  }
  simt::cp_async_wait_all();
  simt::vstore(y + 4 * t, make_int4(sum[0], sum[1], sum[2], sum[3]));
}
template <int kStages>
bool run_sum_of_tiles() {
  const int tiles = 7;
  Array<int> x(256 * tiles), y(256);
  for (int i = 0; i < 256 * tiles; ++i) x[i] = i * i % 1000;
  cases::launch(sum_of_tiles<kStages>, 1, 64, 0, x.data(), y.data(), tiles);
  for (int i = 0; i < 256; ++i) {
    int sum = 0;
    for (int k = 0; k < tiles; ++k) sum += x[256 * k + 255 - i];
    if (y[i] != sum) return false;
  }
  return true;
}
CASE(correct_double_buffered_tiles) {
  return run_sum_of_tiles<2>();
}
CASE(correct_pipeline_of_three_stages) {
  return run_sum_of_tiles<3>();
}
CASE(correct_pipeline_of_four_stages) {
  return run_sum_of_tiles<4>();
}

// d[M][N] = a[M][K] * b[N][K], bfloat16 in and float32 out: a block owns 64 x 64, its 4 warps 32 x 32 each, in steps of
// 32 of K through two buffers. Rows of shared memory are swizzled in chunks of 16 bytes.
constexpr int kTile = 64, kStep = 32;

__device__ __forceinline__ int swizzled(int row, int chunk) {
  return row * kStep + ((chunk ^ (row / 2 % 4)) * 8);
}

__global__ void gemm(const simt::bfloat16* a, const simt::bfloat16* b, float* d, int m, int n, int k) {
  SIMT_DYNAMIC_SHARED(simt::bfloat16, buffer);  // [2][a or b][kTile][kStep]
  const int t = threadIdx.x, lane = t % 32, warp = t / 32;
  const int wm = warp / 2 * 32, wn = warp % 2 * 32, m0 = blockIdx.y * kTile, n0 = blockIdx.x * kTile;
  const auto tile = [&](int stage, int which) { return buffer + ((stage * 2 + which) * kTile) * kStep; };
  const auto load = [&](int step) {
    for (int i = t; i < kTile * 4; i += 128) {
      const int row = i / 4, chunk = i % 4, column = step * kStep + chunk * 8;
      const bool in_a = m0 + row < m && column < k, in_b = n0 + row < n && column < k;
      simt::cp_async<16>(tile(step % 2, 0) + swizzled(row, chunk), in_a ? a + (m0 + row) * k + column : a, in_a);
      simt::cp_async<16>(tile(step % 2, 1) + swizzled(row, chunk), in_b ? b + (n0 + row) * k + column : b, in_b);
    }
    simt::cp_async_commit();
  };
  float sum[2][4][4] = {};
  const int steps = (k + kStep - 1) / kStep;
  load(0);
  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps) {
      load(step + 1);
      simt::cp_async_wait_group<1>();
    } else {
      simt::cp_async_wait_group<0>();
    }
    __syncthreads();
    const simt::bfloat16 *from_a = tile(step % 2, 0), *from_b = tile(step % 2, 1);
    for (int kk = 0; kk < kStep / 16; ++kk) {
      std::uint32_t af[2][4], bf[2][4];
      for (int i = 0; i < 2; ++i) {
        simt::ldmatrix_x4(af[i], from_a + swizzled(wm + i * 16 + lane % 16, kk * 2 + lane / 16));
      }
      for (int j = 0; j < 2; ++j) {
        simt::ldmatrix_x4(bf[j], from_b + swizzled(wn + j * 16 + lane % 8 + lane / 16 * 8, kk * 2 + lane / 8 % 2));
      }
      for (int i = 0; i < 2; ++i) {
        for (int j = 0; j < 4; ++j) {
          const std::uint32_t pair[2] = {bf[j / 2][j % 2 * 2], bf[j / 2][j % 2 * 2 + 1]};
          simt::mma_m16n8k16_bf16(sum[i][j], af[i], pair);
        }
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 4; ++j) {
      for (int e = 0; e < 4; ++e) {
        const int row = m0 + wm + i * 16 + lane / 4 + e / 2 * 8, column = n0 + wn + j * 8 + lane % 4 * 2 + e % 2;
        if (row < m && column < n) d[row * n + column] = sum[i][j][e];
      }
    }
  }
}
CASE(correct_gemm_bfloat16) {
  const int m = 77, n = 50, k = 72;
  Array<simt::bfloat16> a(m * k), b(n * k);
  Array<float> d(m * n);
  for (int i = 0; i < m * k; ++i) a[i] = simt::from_float<simt::bfloat16>(static_cast<float>(i % 7 - 3));
  for (int i = 0; i < n * k; ++i) b[i] = simt::from_float<simt::bfloat16>(static_cast<float>(i % 11 - 5));
  cases::launch(gemm, dim3(1, 2), 128, 4 * kTile * kStep * sizeof(simt::bfloat16), a.data(), b.data(), d.data(), m, n,
                k);
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      float sum = 0;
      for (int c = 0; c < k; ++c) sum += simt::to_float(a[i * k + c]) * simt::to_float(b[j * k + c]);
      if (d[i * n + j] != sum) return false;
    }
  }
  return true;
}

// One warp a tile of 16 x 8, in tf32, operands straight from global memory.
__global__ void gemm_tf32(const float* a, const float* b, float* d, int m, int n, int k) {
  const int lane = threadIdx.x, g = lane / 4, t = lane % 4, m0 = blockIdx.y * 16, n0 = blockIdx.x * 8;
  const auto element = [&](const float* x, int row, int rows, int column) {
    return __float_as_uint(simt::load_if(row < rows && column < k, x + row * k + column, 0.0f));
  };
  float sum[4] = {};
  for (int c = 0; c < k; c += 8) {
    const std::uint32_t af[4] = {element(a, m0 + g, m, c + t), element(a, m0 + g + 8, m, c + t),
                                 element(a, m0 + g, m, c + t + 4), element(a, m0 + g + 8, m, c + t + 4)};
    const std::uint32_t bf[2] = {element(b, n0 + g, n, c + t), element(b, n0 + g, n, c + t + 4)};
    simt::mma_m16n8k8_tf32(sum, af, bf);
  }
  for (int e = 0; e < 4; ++e) {
    const int row = m0 + g + e / 2 * 8, column = n0 + t * 2 + e % 2;
    if (row < m && column < n) d[row * n + column] = sum[e];
  }
}
CASE(correct_gemm_tf32) {
  const int m = 20, n = 13, k = 21;
  Array<float> a(m * k), b(n * k), d(m * n);
  for (int i = 0; i < m * k; ++i) a[i] = static_cast<float>(i % 7 - 3);
  for (int i = 0; i < n * k; ++i) b[i] = static_cast<float>(i % 11 - 5);
  cases::launch(gemm_tf32, dim3(2, 2), 32, 0, a.data(), b.data(), d.data(), m, n, k);
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      float sum = 0;
      for (int c = 0; c < k; ++c) sum += a[i * k + c] * b[j * k + c];
      if (d[i * n + j] != sum) return false;
    }
  }
  return true;
}

}  // namespace

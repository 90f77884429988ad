// What tensor-core instructions compute: ldmatrix and mma.sync, from the fragments that the 32 lanes bring.
//
// An mma here adds as the hardware was found to (M. Fasi, N. Higham, M. Mikaitis and S. Pranesh, "Numerical behavior of
// NVIDIA tensor cores", 2021): 8 products of 16-bit elements, or 4 of TF32, and the sum so far at a time. All of them
// are exact; they are lined up with the largest of them, whatever lies kBits below its leading bit is cut off, and so
// is what does not fit into float32 in the end: nothing is rounded. How many products are added at once, and how many
// bits are kept, differs between GPUs, so that their sums may differ from these in their last bits wherever these are
// not exact themselves; denormals are kept on both sides.
#include "simt/host.h"
#include "simt/meeting.h"
#include "simt/ptx_host.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace gpucnn::simt::detail {
namespace {

constexpr std::uint32_t kAllLanes = 0xffffffffu;

struct MatrixRow {
  uint4 row;                // brought: the 8 elements at this lane's address
  std::uint32_t result[4];  // taken away
};
struct Fragments {
  float d[4];
  std::uint32_t a[4], b[2];
};

// Element `column`, [0, 8), of the row of 8 that a lane brought.
std::uint32_t element(const MatrixRow& of, int column) {
  const std::uint32_t words[4] = {of.row.x, of.row.y, of.row.z, of.row.w};
  return words[column / 2] >> 16 * (column % 2) & 0xffffu;
}

template <int kMatrices, bool kTransposed>
void combine_rows(void* const* brought, std::uint32_t, Site) {
  for (int matrix = 0; matrix < kMatrices; ++matrix) {
    const auto at = [&](int row, int column) {
      return element(*static_cast<const MatrixRow*>(brought[8 * matrix + row]), column);
    };
    for (int lane = 0; lane < 32; ++lane) {
      const int row = lane / 4, column = 2 * (lane % 4);
      static_cast<MatrixRow*>(brought[lane])->result[matrix] =
          kTransposed ? at(column, row) | at(column + 1, row) << 16 : at(row, column) | at(row, column + 1) << 16;
    }
  }
}

double bits_as_double(std::uint64_t bits) {
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
std::uint64_t double_as_bits(double value) {
  std::uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

float bfloat16_bits(std::uint32_t bits) {
  return __uint_as_float(bits << 16);
}
float half_bits(std::uint32_t bits) {
  return to_float(half{static_cast<std::uint16_t>(bits)});
}
float tf32_bits(std::uint32_t bits) {
  return __uint_as_float(bits & 0xffffe000u);
}

constexpr int kBits = 24;  // that an addend keeps below its sum's leading bit

// 2^exponent; exponent in [-1022, 1023].
double power_of_two(int exponent) {
  return bits_as_double(static_cast<std::uint64_t>(1023 + exponent) << 52);
}

// The float32 next to `value` on the side of 0.
float cut_off(double value) {
  const float nearest = static_cast<float>(value);
  if (std::fabs(static_cast<double>(nearest)) <= std::fabs(value)) return nearest;
  return __uint_as_float(__float_as_uint(nearest) - 1);
}

// sum + product[0] + product[1] + ... as the unit adds them. Zeros and denormals of double do not come up: a product
// of two factors of float32's range is normal in double, or 0.
template <int kCount>
float add_up(float sum, const double (&product)[kCount]) {
  std::uint64_t largest = double_as_bits(std::fabs(static_cast<double>(sum)));
  for (const double each : product) largest = std::max(largest, double_as_bits(std::fabs(each)));
  const int exponent = static_cast<int>(largest >> 52) - 1023;
  if (exponent == 1024) {  // an infinity or a NaN, which float arithmetic knows what to do with
    double total = sum;
    for (const double each : product) total += each;
    return static_cast<float>(total);
  }
  if (largest == 0) {
    for (const double each : product) sum += static_cast<float>(each);  // of zeros, with their signs
    return sum;
  }
  const double scale = power_of_two(kBits - exponent);
  auto total = static_cast<std::int64_t>(static_cast<double>(sum) * scale);
  for (const double each : product) total += static_cast<std::int64_t>(each * scale);
  return cut_off(static_cast<double>(total) * power_of_two(exponent - kBits));
}

// a is 16 x kK, b kK x 8. A register holds kPacked neighbouring elements along k; kAtOnce products are added at once.
template <int kK, int kPacked, int kAtOnce, typename Decode>
void multiply_fragments(void* const* brought, Decode decode) {
  constexpr int kStep = 4 * kPacked;                             // elements along k that a row of lanes holds at once
  constexpr std::uint32_t kMask = kPacked == 2 ? 0xffffu : ~0u;  // of one element in a register
  std::array<std::array<double, kK>, 16> a;
  std::array<std::array<double, kK>, 8> b;  // by columns
  std::array<std::array<float, 8>, 16> d;
  for (int lane = 0; lane < 32; ++lane) {
    const Fragments& of = *static_cast<const Fragments*>(brought[lane]);
    const int group = lane / 4, within = lane % 4;
    for (int e = 0; e < kPacked; ++e) {
      const int shift = 16 * e, k = kPacked * within + e;
      for (int r = 0; r < 4; ++r) a[group + 8 * (r % 2)][k + kStep * (r / 2)] = decode(of.a[r] >> shift & kMask);
      for (int r = 0; r < 2; ++r) b[group][k + kStep * r] = decode(of.b[r] >> shift & kMask);
    }
    for (int r = 0; r < 4; ++r) d[group + 8 * (r / 2)][2 * within + r % 2] = of.d[r];
  }
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 8; ++j) {
      for (int k = 0; k < kK; k += kAtOnce) {
        double product[kAtOnce];
        for (int n = 0; n < kAtOnce; ++n) product[n] = a[i][k + n] * b[j][k + n];
        d[i][j] = add_up(d[i][j], product);
      }
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    Fragments& of = *static_cast<Fragments*>(brought[lane]);
    for (int r = 0; r < 4; ++r) of.d[r] = d[lane / 4 + 8 * (r / 2)][2 * (lane % 4) + r % 2];
  }
}

}  // namespace

const WarpOperation kLoadMatrix1{"ldmatrix_x1", &combine_rows<1, false>, false};
const WarpOperation kLoadMatrix2{"ldmatrix_x2", &combine_rows<2, false>, false};
const WarpOperation kLoadMatrix4{"ldmatrix_x4", &combine_rows<4, false>, false};
const WarpOperation kLoadMatrix1Transposed{"ldmatrix_x1_trans", &combine_rows<1, true>, false};
const WarpOperation kLoadMatrix2Transposed{"ldmatrix_x2_trans", &combine_rows<2, true>, false};
const WarpOperation kLoadMatrix4Transposed{"ldmatrix_x4_trans", &combine_rows<4, true>, false};

const WarpOperation kMmaBfloat16{
    "mma_m16n8k16_bf16",
    [](void* const* brought, std::uint32_t, Site) { multiply_fragments<16, 2, 8>(brought, bfloat16_bits); }, false};
const WarpOperation kMmaHalf{
    "mma_m16n8k16_fp16",
    [](void* const* brought, std::uint32_t, Site) { multiply_fragments<16, 2, 8>(brought, half_bits); }, false};
const WarpOperation kMmaTf32{
    "mma_m16n8k8_tf32",
    [](void* const* brought, std::uint32_t, Site) { multiply_fragments<8, 1, 4>(brought, tf32_bits); }, false};

bool takes_row(const WarpOperation& operation, int matrices, const void* row, Site site) {
  if (lane() >= 8 * matrices) return false;
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) misaligned(operation.name, row, 16, site);
  check_shared(operation.name, row, 16, site);
  return true;
}

uint4 load_matrices(const WarpOperation& operation, uint4 row, Site site) {
  MatrixRow brought{row, {}};
  meet(operation, &brought, kAllLanes, site);
  return {brought.result[0], brought.result[1], brought.result[2], brought.result[3]};
}

float4 multiply(const WarpOperation& operation, float4 d, uint4 a, uint2 b, Site site) {
  Fragments brought{{d.x, d.y, d.z, d.w}, {a.x, a.y, a.z, a.w}, {b.x, b.y}};
  meet(operation, &brought, kAllLanes, site);
  return {brought.d[0], brought.d[1], brought.d[2], brought.d[3]};
}

}  // namespace gpucnn::simt::detail

// How an operand's strip lies in shared memory, and how a warp reads matrix fragments from it. For .cu files.
//
// A strip is kLines lines of an operand (rows, or columns, of the product) by kStrip<T> of its depth, in units of 16
// bytes. Two ways, as it is in global memory:
//
//   DepthStrip  units lie along the depth: line by line, 4 units each
//   LineStrip   units lie along the lines: depth by depth, kLines elements each
//
// In both a unit's place is its own number with some bits turned (XOR) by those of its line or depth, such that the 8
// units that one pass of shared memory serves lie in different banks, for the copies that write a strip and for the
// loads that read it: 0 conflicts.
//
// A warp multiplies lines in groups of 8, one for each index that a matrix instruction gives to a lane: index g =
// lane / 4 of a fragment's rows. Which line is group h's index i is free, as the sums can be stored wherever they
// belong, and is line(h, i): such that the columns of the sums that a thread gets, indices 2t and 2t + 1 (t = lane % 4)
// of neighbouring groups, are kRun neighbours, whose first is line(kRun / 2 * r, 2t): a pack of 16 bytes to be stored
// at once, but for LineStrip's 16-bit elements, which ldmatrix turns in units of 8.
#pragma once

#include "common/pack.h"
#include "mma/arithmetic.h"
#include "mma/configurations.h"
#include "simt/ptx.h"
#include "simt/simt.h"

#include <cstdint>
#include <type_traits>

namespace gpucnn::mma {

template <typename T>
inline constexpr int kStrip = kStripBytes / static_cast<int>(sizeof(T));

// Four words of two neighbouring groups of 8 lines, 2h and 2h + 1, and of a matrix instruction's depth, low and high
// half: as the rows of an instruction want them, or as columns of two.
enum class Side { left, right };

template <typename T, int kLines_>
struct DepthStrip {
  static constexpr int kLines = kLines_, kUnits = kLines * 4, kRun = kPack<T>;
  static_assert(kLines % 32 == 0);

  static __host__ __device__ constexpr int line(int group, int index) {
    constexpr int kGroups = kRun / 2;  // that share 4 * kRun lines
    return group / kGroups * 4 * kRun + index / 2 * kRun + group % kGroups * 2 + index % 2;
  }
  static __host__ __device__ constexpr int unit(int line, int unit_of_depth) {
    return line * 4 + (unit_of_depth ^ line / kRun % 4);
  }
  // Of a run's element x: the group, counted from the run's first, and which of a thread's two indices.
  static __host__ __device__ constexpr int group_of(int x) { return x / 2; }
  static __host__ __device__ constexpr int index_of(int x) { return x % 2; }

  // Reads of one lane: those of the lines from `first` on, a multiple of 32.
  template <Side kSide>
  class Reader {
   public:
    __device__ __forceinline__ explicit Reader(int first) {
      const int lane = static_cast<int>(threadIdx.x) % 32, matrix = lane / 8;
      const int group = kSide == Side::left ? matrix % 2 : matrix / 2;
      const int half = kSide == Side::left ? matrix / 2 : matrix % 2;
      unit_ = unit(first + line(group, lane % 8), half);
    }
    __device__ __forceinline__ void read(std::uint32_t (&words)[4], const uint4* strip, int pair, int step) const {
      simt::ldmatrix_x4(words, strip + ((unit_ ^ 2 * step) + 4 * line(2 * pair, 0)));
    }

   private:
    int unit_;
  };
};

template <typename T, int kLines_, typename = void>
struct LineStrip;

template <typename T, int kLines_>
struct LineStrip<T, kLines_, std::enable_if_t<sizeof(T) == 2>> {
  static constexpr int kLines = kLines_, kUnitsOfDepth = kLines / 8, kUnits = kUnitsOfDepth * kStrip<T>, kRun = 2;
  static_assert(kLines % 64 == 0);

  static __host__ __device__ constexpr int line(int group, int index) { return 8 * group + index; }
  static __host__ __device__ constexpr int unit(int depth, int unit_of_lines) {
    return depth * kUnitsOfDepth + (unit_of_lines ^ depth % 8);
  }
  static __host__ __device__ constexpr int group_of(int) { return 0; }
  static __host__ __device__ constexpr int index_of(int x) { return x; }

  template <Side kSide>
  class Reader {
   public:
    __device__ __forceinline__ explicit Reader(int first) {
      const int lane = static_cast<int>(threadIdx.x) % 32, matrix = lane / 8;
      const int group = kSide == Side::left ? matrix % 2 : matrix / 2;
      const int half = kSide == Side::left ? matrix / 2 : matrix % 2;
      unit_ = unit(8 * half + lane % 8, first / 8 + group);
    }
    __device__ __forceinline__ void read(std::uint32_t (&words)[4], const uint4* strip, int pair, int step) const {
      simt::ldmatrix_x4_trans(words, strip + ((unit_ ^ 2 * pair) + 16 * kUnitsOfDepth * step));
    }

   private:
    int unit_;
  };
};

template <typename T, int kLines_>
struct LineStrip<T, kLines_, std::enable_if_t<sizeof(T) == 4>> {
  static constexpr int kLines = kLines_, kUnitsOfDepth = kLines / 4, kUnits = kUnitsOfDepth * kStrip<T>, kRun = 4;
  static_assert(kLines % 32 == 0);

  static __host__ __device__ constexpr int line(int group, int index) { return group / 2 * 16 + 2 * index + group % 2; }
  static __host__ __device__ constexpr int unit(int depth, int unit_of_lines) {
    return depth * kUnitsOfDepth + (unit_of_lines ^ depth % 4 * 2);
  }
  static __host__ __device__ constexpr int group_of(int x) { return x % 2; }
  static __host__ __device__ constexpr int index_of(int x) { return x / 2; }

  // ldmatrix turns elements of 16 bits alone: a lane loads 2 neighbouring lines at the depths that it multiplies.
  template <Side kSide>
  class Reader {
   public:
    __device__ __forceinline__ explicit Reader(int first) {
      const int lane = static_cast<int>(threadIdx.x) % 32, group = lane / 4;
      word_ = 4 * unit(lane % 4, first / 4 + group / 2) + group % 2 * 2;
    }
    __device__ __forceinline__ void read(std::uint32_t (&words)[4], const uint4* strip, int pair, int step) const {
      const auto* const at = reinterpret_cast<const std::uint32_t*>(strip) + (word_ ^ pair % 2 * 16) + pair / 2 * 32;
      const uint2 low = simt::vload<uint2>(at + 8 * step * kLines);
      const uint2 high = simt::vload<uint2>(at + (8 * step + 4) * kLines);
      words[0] = low.x, words[3] = high.y;
      words[kSide == Side::left ? 1 : 2] = low.y;
      words[kSide == Side::left ? 2 : 1] = high.x;
    }

   private:
    int word_;
  };
};

}  // namespace gpucnn::mma

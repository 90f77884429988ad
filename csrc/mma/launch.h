// From a configuration's number to the kernel that is compiled for it. For .cu files.
#pragma once

#include "gemm/launch.h"
#include "mma/arithmetic.h"
#include "mma/configurations.h"

#include <type_traits>

namespace gpucnn::mma {

// Calls launch(Arithmetic{}) for the one that multiplies T in that precision.
template <typename T, typename Launch>
[[nodiscard]] simt::Status with_arithmetic(Precision precision, Launch&& launch) {
  if constexpr (std::is_same_v<T, float>) {
    return precision == Precision::high ? launch(Tf32{}) : launch(Split{});
  } else {
    return launch(Of<T>{});
  }
}

// The table of an arithmetic's configurations.
template <typename Arithmetic>
constexpr const auto& tiling_of() {
  if constexpr (std::is_same_v<Arithmetic, Split>) {
    return kSplitTiling;
  } else {
    return kTiling;
  }
}

// What is not wide has one shape.
template <typename Arithmetic>
using NarrowShape = std::conditional_t<std::is_same_v<Arithmetic, Split>, SplitSmall, Roomy>;

// Calls launch(Shape{}, std::bool_constant<wide>{}) for one of them, or for Narrow.
template <typename Arithmetic, typename Narrow = NarrowShape<Arithmetic>, typename Launch>
[[nodiscard]] simt::Status with_shape(int configuration, bool wide, Launch&& launch) {
  if (!wide) return launch(Narrow{}, std::false_type{});
  if constexpr (std::is_same_v<Arithmetic, Split>) {
    return configuration == 0 ? launch(SplitMedium{}, std::true_type{}) : launch(SplitSmall{}, std::true_type{});
  } else {
    switch (configuration) {
      case 0:
        return launch(Tall{}, std::true_type{});
      case 1:
        return launch(Large{}, std::true_type{});
      case 2:
        return launch(Medium{}, std::true_type{});
      default:
        return launch(Small{}, std::true_type{});
    }
  }
}

}  // namespace gpucnn::mma

// Functions of single elements: the menu, tables of functions by name.
//
// All arrays of a call have one type, float, half or bfloat16, and broadcast to the shape of the result. Launchers
// return what the launch said. Nothing is launched for a shape without elements: who calls sees to that.
#pragma once

#include "common/operand.h"
#include "simt/status.h"

#include <cstdint>
#include <string>
#include <vector>

namespace gpucnn {

inline constexpr int kMostInputs = 4;
inline constexpr int kMostParameters = 4;

// One call. `operands` says how y and then each input lie; all pointers are to the first element.
struct MapArguments {
  void* y;
  const void* inputs[kMostInputs];
  float parameters[kMostParameters];
  const std::vector<std::int64_t>* shape;
  const Operand* operands;
};

// Throws std::invalid_argument, which Python sees as ValueError, for arrays that lie as the function can't take them.
using MapLauncher = simt::Status (*)(const MapArguments&, simt::Stream);

// A function: y = f(inputs...), with so many parameters.
struct MapFunction {
  const char* name;
  int inputs;
  int parameters;
  MapLauncher float32, float16, bfloat16;
};

using MapFunctions = std::vector<MapFunction>;

// csrc/elementwise: add, subtract, multiply, divide, maximum, minimum ... of arrays that broadcast; negative, exp, ...
void add_arithmetic(MapFunctions& functions);
void add_gradients(MapFunctions& functions);  // of maximum, clamp, and of reductions

// csrc/activation: <name> and <name>_grad of each. A gradient takes dy, then what the forward pass saved.
void add_smooth(MapFunctions& functions);
void add_smooth_gradients(MapFunctions& functions);
void add_rectifiers(MapFunctions& functions);

}  // namespace gpucnn

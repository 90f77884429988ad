// Arithmetic: y = a + b and its like, and functions of one number. Layout, blocks, threads, limits and the bound are
// those of map.h.
#include "elementwise/map.h"
#include "elementwise/number.h"

namespace gpucnn {
namespace {

struct Add {
  __device__ float operator()(float a, float b) const { return a + b; }
};
struct Subtract {
  __device__ float operator()(float a, float b) const { return a - b; }
};
struct Multiply {
  __device__ float operator()(float a, float b) const { return a * b; }
};
struct Divide {
  __device__ float operator()(float a, float b) const { return a / b; }
};
struct Maximum {
  __device__ float operator()(float a, float b) const { return larger(a, b); }
};
struct Minimum {
  __device__ float operator()(float a, float b) const { return smaller(a, b); }
};

struct Negative {
  __device__ float operator()(float x) const { return -x; }
};
struct Absolute {
  __device__ float operator()(float x) const { return fabsf(x); }
};
// 0 for NaN, as in PyTorch.
struct Sign {
  __device__ float operator()(float x) const { return static_cast<float>((x > 0.0f) - (x < 0.0f)); }
};
struct Exp {
  __device__ float operator()(float x) const { return expf(x); }
};
struct Log {
  __device__ float operator()(float x) const { return logf(x); }
};
struct SquareRoot {
  __device__ float operator()(float x) const { return sqrtf(x); }
};
struct Square {
  __device__ float operator()(float x) const { return x * x; }
};
struct Reciprocal {
  __device__ float operator()(float x) const { return 1.0f / x; }
};
struct Power {
  float exponent;
  __device__ float operator()(float x) const { return powf(x, exponent); }
};
struct DividedBy {
  float divisor;
  __device__ float operator()(float x) const { return x / divisor; }
};
struct Clamp {
  float least, greatest;
  __device__ float operator()(float x) const { return clip(x, least, greatest); }
};

}  // namespace

void add_arithmetic(MapFunctions& functions) {
  functions.insert(
      functions.end(),
      {walked<Add>("add"), walked<Subtract>("subtract"), walked<Multiply>("multiply"), walked<Divide>("divide"),
       walked<Maximum>("maximum"), walked<Minimum>("minimum"), flat<Negative>("negative"), flat<Absolute>("absolute"),
       flat<Sign>("sign"), flat<Exp>("exp"), flat<Log>("log"), flat<SquareRoot>("square_root"), flat<Square>("square"),
       flat<Reciprocal>("reciprocal"), flat<Power>("power"), flat<DividedBy>("divided_by"), flat<Clamp>("clamp")});
}

}  // namespace gpucnn

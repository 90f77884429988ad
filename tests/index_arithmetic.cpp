// csrc/common/problem.h, index.h and walk.h by themselves, beyond 2^31 too, where no test has the memory to go.
// Compiled and run by test_index_arithmetic.py, with -fsanitize=undefined: an overflow ends the program.
//
// Prints every output size of a grid of arguments, for Python to compare; then what is wrong, and returns 1 if
// anything.
#include "common/index.h"
#include "common/problem.h"
#include "common/walk.h"

#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using namespace gpucnn;
using Wide = __int128;

constexpr std::int64_t k31 = std::int64_t{1} << 31;

static_assert(output_size(7, 3, 2, 2, 1) == 4 && output_size(8, 3, 2, 2, 1) == 4 &&
              output_size(8, 3, 2, 2, 1, true) == 5);
static_assert(output_size(2, 5, 3, 0, 1) == 0 && output_size(2, 5, 3, 0, 1, true) == 0, "rounded down below 0 too");
static_assert(output_size(2, 6, 3, 0, 1) == -1 && output_size(2, 6, 3, 0, 1, true) == 0);
static_assert(blocks_of(4, 8) == 2 && blocks_of(4, 9) == 3 && blocks_of(256, 0) == 0);
static_assert(blocks_of(256, kMostElements) < k31, "a thread for each element of the largest array fits a grid");

int wrong = 0;

void require(bool right, const std::string& what) {
  if (right) return;
  if (++wrong <= 20) std::fprintf(stderr, "wrong: %s\n", what.c_str());
}

std::uint64_t random_bits() {  // splitmix64
  static std::uint64_t state = 0x9e3779b97f4a7c15;
  std::uint64_t z = state += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// Of a random length, up to `bits`.
std::int64_t random_number(int bits) {
  return static_cast<std::int64_t>(random_bits() >> (64 - bits)) >> random_bits() % static_cast<unsigned>(bits);
}

void check_division(std::int64_t number, std::int64_t by) {
  const Quotient found = divisor_of(by).divide(number);
  require(found.whole == number / by && found.rest == number % by, std::to_string(number) + " / " + std::to_string(by));
}

void check_divisions() {
  constexpr std::int64_t kNumbers[] = {0, 1, k31, 1LL << 32, 1LL << 38, 1LL << 53, (1LL << 62) - 4};
  constexpr std::int64_t kDivisors[] = {1, 2, 3, 5, 6, 7, 10, 255, 641, 46341, 65535, 65536, 65537, k31 - 3, k31 - 1};
  for (const std::int64_t by : kDivisors) {
    for (const std::int64_t number : kNumbers) {
      for (std::int64_t near = number < 3 ? -number : -3; near <= 3; ++near) check_division(number + near, by);
      const std::int64_t multiple = number / by * by;
      check_division(multiple, by);
      if (multiple > 0) check_division(multiple - 1, by);
    }
  }
  for (int i = 0; i < 2'000'000; ++i) check_division(random_number(62), 1 + random_number(31) % (k31 - 1));
}

// Every element has one place, and every place its element.
void check_images(std::int64_t rows, std::int64_t columns, std::int64_t channels, std::int64_t pixel) {
  const Images images = images_of(rows, columns, channels);
  const Pixel at = images.pixel(pixel);
  const std::string where = std::to_string(pixel) + " of " + std::to_string(rows) + " x " + std::to_string(columns);
  require(at.row >= 0 && at.row < rows && at.column >= 0 && at.column < columns, "pixel " + where);
  require((Wide{at.image} * rows + at.row) * columns + at.column == pixel, "pixel " + where);
  require(images.offset(at) == pixel * channels, "offset of pixel " + where);
}

void check_places() {
  check_images(46341, 46341, 1, Wide{46341} * 46341 - 1);  // the first square beyond 2^31
  check_images(1, k31 - 1, 64, k31 - 2);
  check_images(k31 - 1, 1, 64, k31 - 2);
  check_images(1, 1, k31 - 1, 100);
  for (int i = 0; i < 500'000; ++i) {
    const std::int64_t rows = 1 + random_number(20), columns = 1 + random_number(20), channels = 1 + random_number(14);
    check_images(rows, columns, channels, random_number(46));
  }
  // A tap in the padding, counted from the corner as the kernels count, leads where the cell itself is.
  const Images x = images_of(40'000, 50'000, 3);
  const std::int64_t corner = x.offset({2, -7, -9}), step = x.offset({0, 39'007, 49'009});
  require(corner + step == ((Wide{2} * 40'000 + 39'000) * 50'000 + 49'000) * 3, "corner and step");
  require(corner + step > 2 * k31, "a place beyond 2^32");
  require(x.offset({0, -7, -9}) == -(Wide{7} * 50'000 + 9) * 3, "a corner before the array");
}

// window_at() is the inverse of first_cell(), for every cell and tap.
void check_axis(const Axis& axis) {
  for (int cell = 0; cell < axis.size; ++cell) {
    for (int tap = 0; tap < axis.kernel; ++tap) {
      int expected = -1;
      for (int output = 0; output < axis.outputs; ++output) {
        if (axis.first_cell(output) + tap * axis.dilation == cell) expected = output;
      }
      require(axis.window_at(cell, tap) == expected, "window over cell " + std::to_string(cell));
    }
  }
}

void check_axes() {
  for (int size = 1; size < 8; ++size) {
    for (int kernel = 1; kernel < 5; ++kernel) {
      for (int stride = 1; stride < 5; ++stride) {
        for (int padding = 0; padding < 4; ++padding) {
          for (int dilation = 1; dilation < 4; ++dilation) {
            const std::int64_t outputs = output_size(size, kernel, stride, 2 * padding, dilation);
            std::printf("%d %d %d %d %d %lld %lld\n", size, kernel, stride, 2 * padding, dilation,
                        static_cast<long long>(outputs),
                        static_cast<long long>(output_size(size, kernel, stride, 2 * padding, dilation, true)));
            for (std::int64_t some = 1; some <= outputs; ++some) {  // P may be smaller than what would fit
              check_axis(axis_of(size, kernel, some, stride, padding, dilation));
            }
          }
        }
      }
    }
  }
}

// The outermost cells and taps of the largest axes that check() lets through.
void check_large_axes() {
  constexpr std::int64_t kStrides[] = {1, 2, 3, 65'537, 1 << 30}, kKernels[] = {1, 2, 7, 32'768};
  for (const std::int64_t stride : kStrides) {
    for (const std::int64_t kernel : kKernels) {
      const std::int64_t dilation = kernel == 1 ? 1 : 30'000, padding = 12'345;
      const std::int64_t most = kMostCells - 2 * padding - (kernel - 1) * dilation;
      const std::int64_t outputs = (most - 1) / stride + 1;
      Conv2dProblem p{};
      p.N = p.W = p.C = p.S = p.Q = p.K = p.groups = 1;
      p.stride = {stride, 1}, p.padding = {padding, 0}, p.dilation = {dilation, 1};
      p.H = most, p.R = kernel, p.P = outputs;
      const std::string where = "stride " + std::to_string(stride) + ", kernel " + std::to_string(kernel);
      if (outputs > output_size(p.H, p.R, stride, 2 * padding, dilation)) {
        p.P = output_size(p.H, p.R, stride, 2 * padding, dilation);
      }
      check("conv2d", p);
      const Axis axis = vertical_axis(p);
      const int last = axis.outputs - 1, tap = axis.kernel - 1;
      for (const int output : {0, last / 2, last}) {
        for (const int mine : {0, tap / 2, tap}) {
          const int cell = axis.first_cell(output) + mine * axis.dilation;
          require(cell == Wide{output} * stride - padding + Wide{mine} * dilation, "cell at " + where);
          if (axis.contains(cell)) require(axis.window_at(cell, mine) == output, "window at " + where);
        }
      }
      axis.window_at(axis.size - 1, 0);  // the largest distance, and the smallest: for the sanitizer
      axis.window_at(0, tap);
      ++p.H;  // one cell more does not fit an int any more
      bool refused = false;
      try {
        check("conv2d", p);
      } catch (const std::invalid_argument&) {
        refused = true;
      }
      require(refused, "too long an axis at " + where);
    }
  }
}

// Places in arrays that broadcast and are permuted, of 2^31 elements and more, in steps of 1 and of 4.
void check_walks() {
  struct Case {
    std::vector<std::int64_t> shape, y, x;  // strides of whole arrays; 0 where x is repeated
    int axes;                               // that are left
  };
  constexpr std::int64_t k30 = std::int64_t{1} << 30;
  const Case cases[] = {
      {{3, k30, 8}, {k30 * 8, 8, 1}, {k30 * 8, 8, 1}, 1},
      {{3, k30, 8}, {k30 * 8, 8, 1}, {0, 8, 1}, 3},  // not merged: an int would not hold it
      {{3, k30, 8}, {k30 * 8, 8, 1}, {k30 * 8, 0, 1}, 3},
      {{7, 1000, 3, 1'000'000}, {3'000'000'000, 3'000'000, 1'000'000, 1}, {3'000'000'000, 3, 1, 3000}, 3},
      {{1, 5 * k31, 4}, {1, 4, 1}, {1, 8, 1}, 2},
      {{1, 1, 1}, {1, 1, 1}, {0, 0, 0}, 1},
  };
  for (const Case& c : cases) {
    const Operand operands[] = {{c.shape, c.y}, {c.shape, c.x}};
    Walk<2> walk = walk_of<2>(c.shape, operands);
    require(walk.axes == c.axes, "axes of a walk: " + std::to_string(walk.axes));
    for (const int step : {1, 4}) {
      if (c.shape.back() % step != 0) continue;
      set_step(walk, step);
      Wide size = 1;
      for (const std::int64_t length : c.shape) size *= length;
      require(size == Wide{walk.units} * step, "units of a walk");
      for (const std::int64_t unit :
           {std::int64_t{0}, std::int64_t{1}, walk.units / 3, walk.units / 2 + 1, walk.units - 1}) {
        if (unit >= walk.units || unit < 0) continue;
        Wide rest = Wide{unit} * step, y = 0, x = 0;
        for (std::size_t axis = c.shape.size(); axis-- > 0;) {
          const Wide place = rest % c.shape[axis];
          rest /= c.shape[axis];
          y += place * c.y[axis];
          x += place * c.x[axis];
        }
        const Offsets<2> at = step == 1 ? offsets_of<1>(walk, unit) : offsets_of<4>(walk, unit);
        require(at.of[0] == y && at.of[1] == x, "place of unit " + std::to_string(unit) + " of a walk");
      }
    }
  }
  const std::vector<std::int64_t> shape{2, k31}, strides{2 * k31, 1};
  const Operand gaps[] = {{shape, strides}, {shape, strides}};
  bool refused = false;
  try {
    walk_of<2>(shape, gaps);
  } catch (const std::invalid_argument&) {
    refused = true;
  }
  require(refused, "too long an axis of a walk");
}

}  // namespace

int main() {
  check_divisions();
  check_places();
  check_axes();
  check_large_axes();
  check_walks();
  if (wrong > 0) std::fprintf(stderr, "%d wrong\n", wrong);
  return wrong > 0;
}

// Python's way to the launchers of shape.h: checks that a call is safe, and launches without the GIL.
#include "common/array_view.h"
#include "common/binding.h"
#include "common/dispatch.h"
#include "common/operand.h"
#include "common/run.h"
#include "common/strided_view.h"
#include "shape/shape.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

namespace gpucnn {
namespace {

void require_same_type(const char* op, const StridedView& a, const StridedView& b) {
  if (a.typestr != b.typestr) {
    throw py::type_error(std::string(op) + ": '" + a.argument + "' is '" + a.typestr + "' and '" + b.argument +
                         "' is '" + b.typestr + "'; they must have one type");
  }
}

// Calls `launcher` unless `written` is empty; a shape that it can't take becomes a ValueError that names the arrays.
template <typename Launcher, typename... Views>
void launch_on(const char* op, const StridedView& written, Launcher&& launcher, const Views&... views) {
  Arguments arguments;
  (detail::add_argument(arguments, views), ...);
  if (written.size == 0) return;
  try {
    run(op, arguments, launcher);
  } catch (const std::invalid_argument& error) {
    throw py::value_error(std::string(op) + ": " + error.what() + " (" + in_words(arguments) + ")");
  }
}

void require_broadcasts(const char* op, const Shape& shape, const std::vector<Operand>& operands) {
  try {
    require_broadcast(shape, operands);
  } catch (const std::invalid_argument& error) {
    throw py::value_error(std::string(op) + ": " + error.what() + " to " + in_words(shape));
  }
}

void require_separate(const char* op, const StridedView& a, const StridedView& b) {
  if (a.size > 0 && a.data == b.data) {
    throw py::value_error(std::string(op) + ": '" + a.argument + "' and '" + b.argument + "' overlap in memory");
  }
  require_apart(op, a, b);
}

void copy_binding(const py::object& x, const py::object& y, std::uintptr_t stream) {
  const StridedView in = strided_view(x, "copy", "x", false), out = strided_view(y, "copy", "y", true);
  require_same_type("copy", in, out);
  require_separate("copy", in, out);
  const std::vector<Operand> operands{{out.shape, out.strides}, {in.shape, in.strides}};
  require_broadcasts("copy", out.shape, operands);
  launch_on(
      "copy", out, [&] { return copy(in.data, out.data, out.itemsize, out.shape, operands.data(), stream_of(stream)); },
      in, out);
}

void convert_binding(const std::string& from, const std::string& to, const py::object& x, const py::object& y,
                     std::uintptr_t stream) {
  with_float_type("convert", from, [&](auto in_type) {
    with_float_type("convert", to, [&](auto out_type) {
      using In = typename decltype(in_type)::type;
      using Out = typename decltype(out_type)::type;
      if constexpr (std::is_same_v<In, Out>) {
        throw py::value_error("convert: from " + from + " to itself, which is a copy");
      } else {
        const StridedView in = strided_view_of<In>(x, "convert", "x", false);
        const StridedView out = strided_view_of<Out>(y, "convert", "y", true);
        require_separate("convert", in, out);
        const std::vector<Operand> operands{{out.shape, out.strides}, {in.shape, in.strides}};
        require_broadcasts("convert", out.shape, operands);
        launch_on(
            "convert", out,
            [&] {
              return convert(reinterpret_cast<const In*>(in.data), reinterpret_cast<Out*>(out.data), out.shape,
                             operands.data(), stream_of(stream));
            },
            in, out);
      }
    });
  });
}

void select_binding(const py::object& condition, const py::object& a, const py::object& b, const py::object& y,
                    std::uintptr_t stream) {
  const StridedView which = strided_view(condition, "select", "condition", false);
  const StridedView yes = strided_view(a, "select", "a", false), no = strided_view(b, "select", "b", false);
  const StridedView out = strided_view(y, "select", "y", true);
  if (which.typestr != "|b1") throw py::type_error("select: 'condition' must be bool and is '" + which.typestr + "'");
  require_same_type("select", yes, out);
  require_same_type("select", no, out);
  require_separate("select", which, out);
  require_apart("select", yes, out);
  require_apart("select", no, out);
  const std::vector<Operand> operands{
      {out.shape, out.strides}, {which.shape, which.strides}, {yes.shape, yes.strides}, {no.shape, no.strides}};
  require_broadcasts("select", out.shape, operands);
  launch_on(
      "select", out,
      [&] {
        return select(reinterpret_cast<const std::uint8_t*>(which.data), yes.data, no.data, out.data, out.itemsize,
                      out.shape, operands.data(), stream_of(stream));
      },
      which, yes, no, out);
}

PadMode mode_named(const char* op, const std::string& mode) {
  if (mode == "constant") return PadMode::constant;
  if (mode == "reflect") return PadMode::reflect;
  if (mode == "replicate") return PadMode::replicate;
  if (mode == "circular") return PadMode::circular;
  throw py::value_error(std::string(op) + ": no mode '" + mode + "'; there are constant, reflect, replicate, circular");
}

// What is added to x of `shape`; throws ValueError unless that makes `padded`.
Padding padding_of(const char* op, const Shape& shape, const Shape& padded, const Shape& before, const Shape& after,
                   const std::string& mode) {
  const std::string name = op;
  const PadMode found = mode_named(op, mode);
  constexpr std::int64_t kMost = std::int64_t{1} << 40;
  if (before.size() != shape.size() || after.size() != shape.size() || padded.size() != shape.size()) {
    throw py::value_error(name + ": as many amounts before and after as axes, " + std::to_string(shape.size()));
  }
  for (std::size_t i = 0; i < shape.size(); ++i) {
    const std::int64_t most = found == PadMode::reflect    ? shape[i] - 1
                              : found == PadMode::circular ? shape[i]
                              : shape[i] > 0               ? kMost
                                                           : 0;
    for (const std::int64_t amount : {before[i], after[i]}) {
      if (found == PadMode::constant ? std::abs(amount) > kMost : amount != 0 && (amount < 0 || amount > most)) {
        throw py::value_error(name + ": mode " + mode + " can't add " + std::to_string(amount) + " cells to " +
                              std::to_string(shape[i]));
      }
    }
    if (padded[i] != shape[i] + before[i] + after[i]) {
      throw py::value_error(name + ": " + in_words(shape) + " with " + in_words(before) + " before and " +
                            in_words(after) + " after it has not the shape " + in_words(padded));
    }
  }
  return {before, after, found};
}

void pad_binding(const py::object& x, const py::object& y, const Shape& before, const Shape& after,
                 const std::string& mode, const std::string& value, std::uintptr_t stream) {
  const StridedView in = strided_view(x, "pad", "x", false), out = strided_view(y, "pad", "y", true);
  require_same_type("pad", in, out);
  require_separate("pad", in, out);
  if (!out.is_contiguous) throw py::value_error("pad: 'y' must be C-contiguous");
  const Padding padding = padding_of("pad", in.shape, out.shape, before, after, mode);
  if (value.size() != static_cast<std::size_t>(in.itemsize)) {
    throw py::value_error("pad: value must be the " + std::to_string(in.itemsize) + " bytes of an element, got " +
                          std::to_string(value.size()));
  }
  launch_on(
      "pad", out,
      [&] {
        return pad(in.data, in.shape, in.strides, padding, value.data(), in.itemsize, out.data, stream_of(stream));
      },
      in, out);
}

void pad_grad_binding(const std::string& dtype, const py::object& dy, const py::object& dx, const Shape& before,
                      const Shape& after, const std::string& mode, std::uintptr_t stream) {
  constexpr const char* kName = "pad_grad";
  with_float_type(kName, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = view<const T>(dy, kName, "dy");
    const auto out = view<T>(dx, kName, "dx");
    require_disjoint(kName, out, in);
    const Padding padding = padding_of(kName, out.shape, in.shape, before, after, mode);
    if (padding.mode == PadMode::constant) throw py::value_error("pad_grad: mode constant has pad() as its gradient");
    if (out.size == 0) return;
    try {
      run(kName, describe(in, out), [&] { return pad_grad(in.data, out.data, out.shape, padding, stream_of(stream)); });
    } catch (const std::invalid_argument& error) {
      throw py::value_error(std::string(kName) + ": " + error.what() + " (" + in_words(describe(in, out)) + ")");
    }
  });
}

void normalize_images_binding(const std::string& dtype, const py::object& x, const py::object& scale,
                              const py::object& shift, const py::object& y, bool planar, std::uintptr_t stream) {
  constexpr const char* kName = "normalize_images";
  with_float_type(kName, dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto in = view<const std::uint8_t>(x, kName, "x");
    const auto factors = view<const float>(scale, kName, "scale"), terms = view<const float>(shift, kName, "shift");
    const auto out = view<T>(y, kName, "y");
    if (out.shape.size() != 4) throw py::value_error(std::string(kName) + ": y must be (N,H,W,C)");
    const std::int64_t N = out.shape[0], H = out.shape[1], W = out.shape[2], C = out.shape[3];
    const std::string because = planar ? "(N,C,H,W) of y, (N,H,W,C)" : "that of y";
    require_shape(kName, in, planar ? Shape{N, C, H, W} : Shape{N, H, W, C}, because);
    require_shape(kName, factors, Shape{C}, "one number for each channel of y");
    require_shape(kName, terms, Shape{C}, "one number for each channel of y");
    require_disjoint(kName, out, in);
    require_disjoint(kName, out, factors);
    require_disjoint(kName, out, terms);
    if (out.size == 0) return;
    constexpr std::int64_t kMost = std::int64_t{1} << 31;
    if (H >= kMost || W >= kMost || H * W >= kMost || C >= kMost) {
      throw py::value_error(std::string(kName) + ": H * W and C must be below 2^31");
    }
    run(kName, describe(in, factors, terms, out), [&] {
      return normalize_images<T>(in.data, factors.data, terms.data, out.data, N, H * W, C, planar, stream_of(stream));
    });
  });
}

}  // namespace

void register_shape(py::module_& m) {
  const py::arg x("x"), y("y"), a("a"), b("b"), dtype("dtype"), before("before"), after("after"), mode("mode"),
      stream("stream");
  m.def("copy", &copy_binding, x, y, stream,
        "y = x, which broadcasts to it; arrays of one type of 1, 2, 4 or 8 bytes, in any memory "
        "order.\n\n" GPUCNN_STREAM_AND_ERRORS);
  m.def("convert", &convert_binding, py::arg("from_dtype"), py::arg("to_dtype"), x, y, stream,
        "y = x rounded to another of float32, float16 and bfloat16. Memory orders and errors as for copy().");
  m.def("select", &select_binding, py::arg("condition"), a, b, y, stream,
        "y = a where condition (bool) is true, else b; all broadcast to y. Types, memory orders and errors as for\n"
        "copy(); y may be a or b if contiguous.");
  m.def("pad", &pad_binding, x, y, before, after, mode, py::arg("value"), stream,
        "y, C-contiguous, is x with cells before and after each axis, or without as many where mode is 'constant' and\n"
        "the amount negative.\n\n"
        "mode: 'constant', 'reflect', 'replicate' or 'circular'.\n"
        "value: the bytes of an element, for 'constant'. Types, memory order of x and errors as for copy().");
  m.def("pad_grad", &pad_grad_binding, dtype, py::arg("dy"), py::arg("dx"), before, after, mode, stream,
        "dx: the sum of dy over the cells that pad() copied from each cell; at most 3 axes got any.\n\n"
        "dtype: 'float32', 'float16' or 'bfloat16', of both, C-contiguous. Errors as for copy().");
  m.def("normalize_images", &normalize_images_binding, dtype, x, py::arg("scale"), py::arg("shift"), y,
        py::arg("planar"), stream,
        "y (N,H,W,C) = x * scale + shift, rounded once.\n\n"
        "dtype: of y, 'float32', 'float16' or 'bfloat16'. x: uint8 (N,H,W,C), or (N,C,H,W) if planar. scale, shift:\n"
        "(C,) float32. All C-contiguous. Errors as for copy().");
}

}  // namespace gpucnn

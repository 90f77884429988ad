"""What the tests of the convolution kernels share: a case's truth, what the bindings of one kernel make of it, what is
asked of every kernel, and bindings that do it wrong."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
from kernel_checks import ORDERS, Memory, sample
from op_checks import NCHW, NHWC, compare, draw

from gpucnn.problem import Conv2dProblem, conv2d_problem
from gpucnn.testing import ConvCase, naive

DTYPES = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


WIDE = [
    ConvCase(2, 16, 9, 8, 24, 3, 3, padding=(1, 1)),  # windows of two images in a tile, edges of it straddled
    ConvCase(1, 32, 6, 5, 16, 3, 3, stride=(2, 2), padding=(1, 1)),  # classes of 1, 2, 2 and 4 taps
    ConvCase(3, 16, 7, 7, 40, 2, 3, stride=(3, 2), padding=(1, 2), dilation=(1, 2)),  # strides that share no divisor
    ConvCase(1, 24, 11, 9, 16, 3, 2, stride=(2, 3), padding=(2, 0), dilation=(2, 3)),  # and that dilations share
    ConvCase(2, 16, 5, 4, 16, 1, 1, stride=(3, 3)),  # classes that meet no tap: zeros
    ConvCase(2, 16, 5, 4, 16, 1, 1, padding=(2, 1)),
    ConvCase(1, 16, 12, 11, 136, 1, 3, padding=(0, 1)),  # one tile and 8 filters; windows beyond a tile of 128
    ConvCase(1, 144, 4, 4, 16, 3, 3, padding=(1, 1)),  # channels and weights beyond a tile
    ConvCase(5, 16, 8, 8, 16, 3, 3, padding=(1, 1)),  # several parts of the weight gradient
    ConvCase(2, 16, 2, 300, 8, 1, 5, padding=(0, 2)),
    ConvCase(70, 16, 1, 1, 32, 1, 1),  # 16 windows are 16 images
    ConvCase(2, 16, 3, 3, 16, 3, 3, padding=(2, 2), dilation=(2, 2)),
]
"""Channels in whole packs of every dtype: what kernels take whose accesses are of 16 bytes."""


class Truth:
    """Inputs, which `dtype` holds, and results of one case in float64, logical order."""

    def __init__(self, case: ConvCase, kind: str, dtype: str = "float32") -> None:
        def drawn(shape: tuple[int, ...], stream: int = 0) -> Any:
            return draw(kind, shape, stream).astype(DTYPES[dtype]).astype(np.float64)

        self.x, self.w = drawn(case.x_shape), drawn(case.weight_shape, 1)
        self.bias = drawn((case.K,), 2) if case.bias else None
        self.dy = drawn(case.y_shape, 3)
        self.refresh(case)

    def refresh(self, case: ConvCase) -> None:
        """The results of the inputs as they are now."""
        self.y = naive.conv2d(self.x, self.w, self.bias, **case.arguments)
        self.dx = naive.conv2d_input_grad(self.dy, self.w, case.x_shape, **case.arguments)
        self.dw = naive.conv2d_weight_grad(self.dy, self.x, case.weight_shape, **case.arguments)
        self.db = naive.conv2d_bias_grad(self.dy)

    @staticmethod
    def of(x: Any, w: Any, bias: Any, dy: Any) -> Truth:
        """Inputs of which the results are not asked for."""
        t = Truth.__new__(Truth)
        t.x, t.w, t.bias, t.dy = x, w, bias, dy
        return t


truth_of = functools.cache(Truth)


def problem_of(case: ConvCase) -> Conv2dProblem:
    return conv2d_problem(case.x_shape, case.weight_shape, case.stride, case.padding, case.dilation, case.groups)


def results(
    kernel: str,
    module: Any,
    p: Conv2dProblem,
    t: Any,
    call: str = "",
    passes: tuple[str, ...] = ("y", "dx", "dw"),
    dtype: str = "float32",
    relu: bool = False,
    offset: int = 0,
) -> dict[str, Any]:
    """What `kernel` makes of t.x, t.w, t.bias and t.dy, in memory order; no other memory is touched. Arrays begin
    `offset` elements after a multiple of 16 bytes."""
    __tracebackhide__ = True
    memory = Memory()

    def taken(name: str) -> Any:
        array = getattr(t, name)
        if array is None:
            return None
        laid_out = array.transpose(NHWC) if array.ndim == 4 else array
        flat = np.concatenate([np.zeros(offset), laid_out.reshape(-1)])
        return memory.given(name, flat, DTYPES[dtype])[offset:].reshape(laid_out.shape)

    def wanted(name: str) -> Any:
        shape = shapes[name]
        flat = memory.wanted(name, (offset + int(np.prod(shape)),), DTYPES[dtype])
        flat[:offset] = 0
        return flat[offset:].reshape(shape)

    shapes = {"y": (p.N, p.P, p.Q, p.K), "dx": (p.N, p.H, p.W, p.C), "dw": (p.K, p.R, p.S, p.C // p.groups)}
    shapes["db"] = (p.K,)
    given = {name: taken(name) for name in ("x", "w", "bias", "dy")}
    found = {name: wanted(name) for name in passes}
    run = {name: getattr(module, f"conv2d_{kernel}_{name}", None) for name in ("fprop", "dgrad", "wgrad", "bgrad")}

    def parts(name: str, output: str) -> Any:
        splits = getattr(module, f"conv2d_{kernel}_{name}_splits")(p)
        return memory.wanted(f"{output}'s parts", (splits, *shapes[output])) if splits > 1 else None

    def cut(name: str, output: str) -> tuple[Any, ...]:
        """Of y or dx, where the kernel cuts their sums."""
        splits = getattr(module, f"conv2d_{kernel}_{name}_splits", None)
        return () if splits is None else (memory.wanted(f"{output}'s parts", (splits(p), *shapes[output])),)

    if "y" in passes:
        run["fprop"](p, dtype, given["x"], given["w"], given["bias"], found["y"], relu, *cut("fprop", "y"), 0)
    if "dx" in passes:
        run["dgrad"](p, dtype, given["dy"], given["w"], found["dx"], *cut("dgrad", "dx"), 0)
    if "dw" in passes:
        run["wgrad"](p, dtype, given["x"], given["dy"], found["dw"], parts("wgrad", "dw"), 0)
    if "db" in passes:
        run["bgrad"](p, dtype, given["dy"], found["db"], parts("bgrad", "db"), 0)
    memory.check(call)
    return found


def logical(found: Any) -> Any:
    """A result as users see it."""
    return found.transpose(NCHW) if found.ndim == 4 else found


class Configured:
    """A module of which the convolution's bindings are those of one configuration."""

    def __init__(self, module: Any, configuration: str) -> None:
        self._module = module
        self._configuration = configuration

    def __getattr__(self, name: str) -> Any:
        for direction in ("fprop", "dgrad", "wgrad"):
            name = name.replace(direction, f"{direction}_{self._configuration}" if self._configuration else direction)
        return getattr(self._module, name)


class Kernel:
    """The kernels of one name, and what is asked of those of every name."""

    def __init__(self, name: str, passes: tuple[str, ...] = ("y", "dx", "dw")) -> None:
        self.name, self.passes = name, passes

    def results(self, module: Any, p: Conv2dProblem, t: Any, call: str = "", **options: Any) -> dict[str, Any]:
        """Of all passes, unless others are named."""
        __tracebackhide__ = True
        return results(self.name, module, p, t, call, **{"passes": self.passes, **options})

    def check(
        self, module: Any, case: ConvCase, kind: str, dtype: str = "float32", relu: bool = False, **options: Any
    ) -> None:
        """Every pass of one case: nothing unwritten, nothing else written, every element right; and float32 sums of
        small integers are exact, so that what is stored is the truth, rounded once."""
        __tracebackhide__ = True
        t, p, exact = truth_of(case, kind, dtype), problem_of(case), kind == "integers"
        positions = p.N * p.P * p.Q
        terms = {"y": case.terms + 1, "dx": p.K // p.groups * p.R * p.S, "dw": positions, "db": positions}
        for name, found in self.results(module, p, t, f"{case}", dtype=dtype, relu=relu, **options).items():
            expected = np.maximum(t.y, 0) if name == "y" and relu else getattr(t, name)
            expected = expected.astype(DTYPES[dtype]).astype(np.float64) if exact else expected
            compare(logical(found), expected, terms[name], f"{case}: {name} {dtype}", exact=exact)

    def check_integers(
        self, module: Any, order: str, cases: Sequence[ConvCase], dtypes: Sequence[str] = (*DTYPES,)
    ) -> None:
        """Over the orders of threads each case meets each dtype, with ReLU and without."""
        __tracebackhide__ = True
        module.set_order(order)
        for number, case in enumerate(sample(module.flavour, cases), ORDERS.index(order)):
            self.check(module, case, "integers", dtypes[number % len(dtypes)], relu=number % 2 == 1)

    def check_rounding(self, module: Any, dtype: str, cases: Sequence[ConvCase]) -> None:
        """It rounds no more than it must."""
        __tracebackhide__ = True
        for number, case in enumerate(sample(module.flavour, cases)):
            self.check(module, case, "normal", dtype, relu=number % 2 == 1)

    def check_addresses(self, module: Any, dtype: str, cases: Iterable[ConvCase]) -> None:
        """Arrays off 16 bytes take the narrow path of the same kernel: the same bits."""
        __tracebackhide__ = True
        for case in cases:
            t, p = truth_of(case, "normal", dtype), problem_of(case)
            aligned, moved = (self.results(module, p, t, dtype=dtype, offset=offset) for offset in (0, 1))
            for name in self.passes:
                assert moved[name].tobytes() == aligned[name].tobytes(), (case, name)

    def check_orders(self, module: Any, cases: Sequence[ConvCase]) -> None:
        """Bits depend neither on the order of threads nor on the run."""
        for case in sample(module.flavour, cases):
            seen = set()
            for order in (*ORDERS, "rand:8", "fwd"):
                module.set_order(order)
                found = self.results(module, problem_of(case), truth_of(case, "normal"))
                seen.add(tuple(found[name].tobytes() for name in self.passes))
            assert len(seen) == 1, case

    def check_single_images(self, module: Any, case: ConvCase) -> None:
        """The first, the middle and the last image have the bits that they have alone."""
        together, alone = truth_of(case, "normal"), replace(case, N=1)
        batch = self.results(module, problem_of(case), together, passes=("y", "dx"))
        for image in (0, case.N // 2, case.N - 1):
            this = slice(image, image + 1)
            one = Truth.of(together.x[this], together.w, together.bias, together.dy[this])
            found = self.results(module, problem_of(alone), one, passes=("y", "dx"))
            for name in ("y", "dx"):
                assert found[name].tobytes() == batch[name][image].tobytes(), (case, name, image)

    def check_longer_padding(self, module: Any, case: ConvCase) -> None:
        """padding='same' of even kernels: as the same image with a row and a column of zeros after it."""
        p = conv2d_problem(case.x_shape, case.weight_shape, 1, "same", 1, case.groups)
        (top, bottom), (left, right) = zip(p.padding, p.padding_after, strict=True)
        padded = replace(case, H=top + case.H + bottom, W=left + case.W + right)
        inner = (..., slice(top, top + case.H), slice(left, left + case.W))
        t = Truth(padded, "integers")
        image = t.x[inner].copy()
        t.x[...] = 0
        t.x[inner] = image
        t.refresh(padded)
        t.x, t.dx = t.x[inner], t.dx[inner]
        for name, found in self.results(module, p, t).items():
            compare(logical(found), getattr(t, name), 1, name, exact=True)

    def check_missing_windows(self, module: Any, case: ConvCase) -> None:
        """A weight gradient heeds no window that is not there: the last row and column of an image lie under none, and
        beyond the windows of a tile."""
        t, p = Truth(case, "normal"), replace(problem_of(case), P=3, Q=3)
        t.dy = t.dy[:, :, :3, :3]
        clean = self.results(module, p, t, passes=("dw",))["dw"]
        t.x[:, :, 6:], t.x[:, :, :, 6:] = np.inf, np.nan
        assert self.results(module, p, t, passes=("dw",))["dw"].tobytes() == clean.tobytes()

    def check_nan(self, module: Any, case: ConvCase, channel: int, filters: slice) -> None:
        """One stays in its windows and in the filters of its group."""
        t, p = Truth(case, "normal"), problem_of(case)
        clean = self.results(module, p, t, passes=("y",))["y"]
        t.x[0, channel, 4, 5] = np.nan  # of 3x3 filters at stride 2: under the windows of rows 1 and 2, and of column 2
        found = self.results(module, p, t, passes=("y",))["y"]
        assert np.isnan(found[0, 1:3, 2, filters]).all()
        found[0, 1:3, 2, filters] = clean[0, 1:3, 2, filters]
        assert found.tobytes() == clean.tobytes()

    def split(self, module: Any, cases: Iterable[ConvCase]) -> list[ConvCase]:
        """Those of which the weight gradient is cut into several sums."""
        splits = getattr(module, f"conv2d_{self.name}_wgrad_splits")
        return [case for case in cases if splits(problem_of(case)) > 1]


# ---------------------------------------------------------------------------- bindings that are wrong, for Planted()

Planting = Callable[..., Any]


def wrong_problem(**fields: Any) -> Planting:
    """Runs the binding on another problem."""
    return lambda binding, p, *arguments: binding(replace(p, **fields), *arguments)


def without(argument: int, value: Any) -> Planting:
    """Runs the binding with `value` for its argument of that number."""
    return lambda run, *a: run(*a[:argument], value, *a[argument + 1 :])


def after(change: Callable[[Any], None], output: int) -> Planting:
    """Runs the binding, then `change` on the array that is its argument number `output`."""

    def run(binding: Any, *arguments: Any) -> None:
        binding(*arguments)
        change(arguments[output])

    return run


def unwritten(array: Any) -> None:
    array.reshape(-1)[-1] = np.nan


def nudged(array: Any) -> None:
    array.reshape(-1)[np.abs(array).argmax()] *= 1.0001


def one_split(output: int) -> Planting:
    """Of the sums only the first part, which lies in the argument after the output."""
    return lambda run, *a: (run(*a), np.copyto(a[output], a[output + 1][0]))

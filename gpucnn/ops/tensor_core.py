"""Convolution and linear layers on tensor cores: which problems the kernels take, and what they are called with."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpucnn.backend import Array
from gpucnn.ops import compiled, planned
from gpucnn.ops.memory import laid_out
from gpucnn.ops.registry import KernelTable, Supports, always
from gpucnn.problem import Conv2dProblem
from gpucnn.reference.linear import LinearProblem

_MOST_WINDOWS = 256
_OFFSETS = 2.0**31
_MOST_POSITIONS = 1 << 33

SIZE = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of a number."""

Call = Callable[..., Array]


class Kernel(NamedTuple):
    """One of those that compute a pass."""

    name: str
    binding: str
    arithmetic: str
    """In the words of `planned`."""
    supports: Supports
    slower: Supports
    """Why it is better left to a kernel behind it, or None; beside what the cost model expects."""
    dtypes: tuple[str, ...]


def add(
    table: KernelTable,
    call: Callable[[str], Call],
    slower: Supports = always,
    split_slower: Supports = always,
) -> None:
    """Adds to a table of conv2d the kernels of 16 bits, of float32 that may be rounded, and of float32 that may not.

    Args:
        call: what calls the bindings of a name.
        slower: why they are better left to a kernel behind them, or None; beside what the cost model expects.
        split_slower: as `slower`, of float32 that may not be rounded.
    """
    for each in kernels(slower, split_slower):
        _add(table, call, each, each.supports, lambda p: p)


def add_linear(table: KernelTable, call: Callable[[str], Call]) -> None:
    """As `add`, to a table of linear: a convolution of images of one pixel."""

    def of_pixels(supports: Supports) -> Supports:
        return lambda p: supports(as_convolution(p)) if p.I and p.O else "needs inputs and outputs"

    for each in kernels():
        _add(table, call, each, of_pixels(each.supports), as_convolution)


def kernels(slower: Supports = always, split_slower: Supports = always) -> list[Kernel]:
    """In order of preference."""
    halves, splits = both(multiplies, _in_groups(8)), both(multiplies, _in_groups(4))
    return [
        Kernel("tensor_core", "tensor_core", "16-bit", halves, slower, ("float16", "bfloat16")),
        Kernel("tf32", "tensor_core", "tf32", both(rounds, _in_groups(4)), slower, ("float32",)),
        Kernel("split_bf16", "split_tensor_core", "split", splits, both(slower, split_slower), ("float32",)),
    ]


def both(first: Supports, second: Supports) -> Supports:
    """Asks for what two ask for."""
    return lambda p: first(p) or second(p)


def _add(
    table: KernelTable,
    call: Callable[[str], Call],
    kernel: Kernel,
    supports: Supports,
    described: Callable[[Any], Conv2dProblem],
) -> None:
    def slower(module: Any, problem: Any, dtype: str, device: int) -> str | None:
        p = described(problem)
        return kernel.slower(p) or planned.slower(module, kernel.arithmetic, table.direction, p, SIZE[dtype], device)

    def words(module: Any, problem: Any, dtype: str) -> str:
        return planned.words(module, kernel.arithmetic, table.direction, described(problem), SIZE[dtype])

    def expected(module: Any, problem: Any, dtype: str) -> float:
        return planned.expected(module, kernel.arithmetic, table.direction, described(problem), SIZE[dtype])

    def has_no_choice(problem: Any) -> str | None:
        p = described(problem)
        if p.groups > 1:
            return f"needs groups=1 for a choice of tiles, got {p.groups}"
        if planned.by_single_elements(table.direction, p, SIZE[kernel.dtypes[0]]):
            return "needs whole units of 16 bytes for a choice of tiles"
        return None

    compiled.add(
        *(table, kernel.name, on_aligned(call(kernel.binding)), supports, kernel.dtypes, words),
        configurations=lambda module: list(module.product_configurations(kernel.arithmetic)),
        slower=slower,
        has_no_choice=has_no_choice,
        expected=expected,
    )


@functools.lru_cache(maxsize=4096)
def as_convolution(p: LinearProblem) -> Conv2dProblem:
    """Rows as images of one pixel: x (M,1,1,I), w (O,1,1,I), y (M,1,1,O)."""
    return Conv2dProblem(p.M, 1, 1, p.I, 1, 1, 1, 1, (1, 1), (0, 0), (1, 1), p.O, 1, p.precision)


def on_aligned(call: Call) -> Call:
    def run(module: Any, problem: Any, stream: int, a: Array, b: Array, *rest: Any) -> Array:
        others = [_aligned(each) if getattr(each, "ndim", 0) == 4 else each for each in rest]
        return call(module, problem, stream, _aligned(a), _aligned(b), *others)

    return run


@functools.lru_cache(maxsize=4096)
def multiplies(p: Conv2dProblem) -> str | None:
    """What every kernel on tensor cores asks for."""
    if p.N * p.P * p.Q > _MOST_POSITIONS:
        return f"needs at most 2^33 windows, got {p.N * p.P * p.Q}"
    return None if is_near(p) else "needs smaller images: 32 bits count what a block reads"


def _in_groups(unit: int) -> Supports:
    """What is asked of several groups, whose images are read in units of 16 bytes."""

    def why_not(p: Conv2dProblem) -> str | None:
        for name, size in (("C", p.C), ("K", p.K)):
            if p.groups > 1 and size % unit:
                return f"needs {name} to be a multiple of {unit} for groups, got {size}"
        return None

    return why_not


def rounds(p: Conv2dProblem) -> str | None:
    """As `multiplies`, of float32 that may be rounded to TF32."""
    if p.precision != "high":
        return f"needs precision='high', got {p.precision!r}"
    return multiplies(p)


def is_near(p: Conv2dProblem) -> bool:
    """`conv2d_tensor_core_is_near` of csrc/conv2d/tensor_core.h, in the same arithmetic."""

    def size(cells: int, more: int, taps: int, dilation: int) -> float:
        return float(cells) + 2.0 * more + float(taps) * dilation

    (down, across), (above, left), (u, v) = p.dilation, p.padding, p.stride
    x = size(p.H, above, p.R, down) * size(p.W, left, p.S, across) * p.C
    y = size(p.P, 0, p.R, down) * size(p.Q, 0, p.S, across) * p.K
    windows, pixels = p.P * p.Q, -(-p.H // u) * -(-p.W // v)
    return x * (_MOST_WINDOWS // windows + 2) < _OFFSETS and y * (_MOST_WINDOWS // pixels + 2) < _OFFSETS


def _aligned(array: Array) -> Array:
    """`array` itself where it begins at a multiple of 16 bytes, as all do but some views; else a copy that does."""
    if array.base is None:
        return array
    address = array.__array_interface__["data"][0] if isinstance(array, np.ndarray) else array.data.ptr
    return array if address % 16 == 0 else laid_out(array)

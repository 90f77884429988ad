"""Convolution and linear layers on tensor cores: which problems the kernels take, and what they are called with."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from gpucnn import backend, extension
from gpucnn.backend import Array
from gpucnn.ops import compiled
from gpucnn.ops.memory import laid_out
from gpucnn.ops.registry import KernelTable, Supports, always
from gpucnn.problem import Conv2dProblem
from gpucnn.reference.linear import LinearProblem

_MOST_WINDOWS = 256
_OFFSETS = 2.0**31
_TILE, _FLOAT_TILE = 64, 32

Call = Callable[..., Array]
Columns = Callable[[Conv2dProblem], int]


def add(
    table: KernelTable,
    call: Callable[[str], Call],
    columns: Columns,
    slower: Supports = always,
    split_slower: Supports = always,
) -> None:
    """Adds to a table of conv2d the kernels of 16 bits, of float32 that may be rounded, and of float32 that may not.

    Args:
        call: what calls the bindings of a name.
        columns: of the product of matrices.
        slower: why they are better left to a kernel behind them, or None.
        split_slower: as `slower`, of float32 that may not be rounded.
    """
    for name, kernel, supports, dtypes in kernels(columns, slower, split_slower):
        compiled.add(table, name, on_aligned(call(kernel)), supports, dtypes)


def add_linear(table: KernelTable, call: Callable[[str], Call], columns: Columns) -> None:
    """As `add`, to a table of linear: a convolution of images of one pixel."""

    def of_pixels(supports: Supports) -> Supports:
        return lambda p: supports(as_convolution(p)) if p.I and p.O else "needs inputs and outputs"

    for name, kernel, supports, dtypes in kernels(columns):
        compiled.add(table, name, on_aligned(call(kernel)), of_pixels(supports), dtypes)


def kernels(
    columns: Columns, slower: Supports = always, split_slower: Supports = always
) -> list[tuple[str, str, Supports, tuple[str, ...]]]:
    """(name, its bindings' name, what it asks for, dtypes)."""

    def both(first: Supports, second: Supports) -> Supports:
        return lambda p: first(p) or second(p)

    return [
        ("tensor_core", "tensor_core", both(multiplies, slower), ("float16", "bfloat16")),
        ("tf32", "tensor_core", both(rounds, slower), ("float32",)),
        ("split_bf16", "split_tensor_core", both(splits(columns), both(slower, split_slower)), ("float32",)),
    ]


@functools.lru_cache(maxsize=4096)
def as_convolution(p: LinearProblem) -> Conv2dProblem:
    """Rows as images of one pixel: x (M,1,1,I), w (O,1,1,I), y (M,1,1,O)."""
    return Conv2dProblem(p.M, 1, 1, p.I, 1, 1, 1, 1, (1, 1), (0, 0), (1, 1), p.O, 1, p.precision)


def on_aligned(call: Call) -> Call:
    def run(module: Any, problem: Any, stream: int, a: Array, b: Array, *rest: Any) -> Array:
        others = [_aligned(each) if getattr(each, "ndim", 0) == 4 else each for each in rest]
        return call(module, problem, stream, _aligned(a), _aligned(b), *others)

    return run


def multiplies(p: Conv2dProblem) -> str | None:
    """What every kernel on tensor cores asks for."""
    if p.groups > 1:
        return f"needs groups=1, got {p.groups}"
    return None if is_near(p) else "needs smaller images: 32 bits count what a block reads"


def rounds(p: Conv2dProblem) -> str | None:
    """As `multiplies`, of float32 that may be rounded to TF32."""
    if p.precision != "high":
        return f"needs precision='high', got {p.precision!r}"
    return multiplies(p)


def splits(columns: Columns) -> Supports:
    """As `multiplies`, of float32 in six products of bfloat16, where those are faster than float32's own; `columns` of
    the product are what its tiles may be too wide for."""

    def why_not(p: Conv2dProblem) -> str | None:
        if reason := multiplies(p):
            return reason
        if not _pays():
            return "six products of bfloat16 take longer than one of float32 on this GPU"
        count = columns(p)
        if -(-count // _TILE) * _TILE >= 2 * (-(-count // _FLOAT_TILE) * _FLOAT_TILE):
            return f"tiles of {_TILE} columns would stay mostly empty, of {count}"
        return None

    return why_not


def is_near(p: Conv2dProblem) -> bool:
    """`conv2d_tensor_coreis_near` of csrc/conv2d/tensor_core.h, in the same arithmetic."""

    def size(cells: int, more: int, taps: int, dilation: int) -> float:
        return float(cells) + 2.0 * more + float(taps) * dilation

    (down, across), (above, left), (u, v) = p.dilation, p.padding, p.stride
    x = size(p.H, above, p.R, down) * size(p.W, left, p.S, across) * p.C
    y = size(p.P, 0, p.R, down) * size(p.Q, 0, p.S, across) * p.K
    windows, pixels = p.P * p.Q, -(-p.H // u) * -(-p.W // v)
    return x * (_MOST_WINDOWS // windows + 2) < _OFFSETS and y * (_MOST_WINDOWS // pixels + 2) < _OFFSETS


def _pays() -> bool:
    """Whether tensor cores multiply bfloat16 more than six times as fast as float32 is multiplied: on the GPUs of data
    centres they do, at about 10 times the rate; on others at 2. On the CPU it is to be tried."""
    return backend.current_backend() != "cuda" or _is_of_a_data_centre()


@functools.cache
def _is_of_a_data_centre() -> bool:
    return extension.require().device_properties(0)["compute_capability"] in ((8, 0), (9, 0))


def _aligned(array: Array) -> Array:
    """`array` itself where it begins at a multiple of 16 bytes, as all do but some views; else a copy that does."""
    if array.base is None:
        return array
    address = array.__array_interface__["data"][0] if isinstance(array, np.ndarray) else array.data.ptr
    return array if address % 16 == 0 else laid_out(array)

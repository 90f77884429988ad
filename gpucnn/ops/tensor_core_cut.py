"""Convolutions of few windows with long sums on tensor cores: forward and input gradient with the depth of the sums cut
into parts, so that a network's last stages at a batch of one keep more than a handful of multiprocessors busy."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from typing import Any, NamedTuple

from gpucnn.ops import compiled, planned, tensor_core
from gpucnn.ops.epilogue import lacking
from gpucnn.ops.registry import KernelTable
from gpucnn.problem import Conv2dProblem

MULTIPROCESSORS = 132
"""That sums are cut for: the same parts, hence the same bits, on every machine."""

_TILE, _FEWEST_DEPTH, _WHOLE_DEPTH = 64, 128, 32
_WORKSPACE = 64 << 20


class Sums(NamedTuple):
    """Those of one image: rows x columns of them, each over `depth` products; and all that a part has of them."""

    rows: int
    columns: int
    depth: int
    stored: int


def fprop_sums(p: Conv2dProblem) -> Sums:
    """Windows by filters."""
    return Sums(p.P * p.Q, p.K, p.R * p.S * p.C, p.P * p.Q * p.K)


def dgrad_sums(p: Conv2dProblem) -> Sums:
    """Pixels, in classes of those that meet the same taps, by channels; over the taps of the class that meets most."""
    rows, taps = 1, 1
    for size, kernel, stride, dilation in zip((p.H, p.W), (p.R, p.S), p.stride, p.dilation, strict=True):
        rows *= -(-size // stride) * min(stride, size)
        taps *= -(-kernel // (stride // gcd(stride, dilation)))
    return Sums(rows, p.C, taps * p.K, p.H * p.W * p.C)


def parts(sums: Sums) -> int:
    """Into how many `depth_of_part` of csrc/conv2d/tensor_core_cut.cu cuts them, in the same arithmetic."""
    wanted = 2 * MULTIPROCESSORS // tiles(sums.rows, sums.columns)
    count = max(1, min(wanted, sums.depth // _FEWEST_DEPTH))
    each = -(-sums.depth // count)
    return max(1, -(-sums.depth // (-(-each // _WHOLE_DEPTH) * _WHOLE_DEPTH)))


def tiles(rows: int, columns: int) -> int:
    """Of 64 x 64 sums."""
    return max(1, -(-rows // _TILE) * -(-columns // _TILE))


def add(
    table: KernelTable, call: Callable[[str], tensor_core.Call], sizes: str, sums: Callable[[Conv2dProblem], Sums]
) -> None:
    """As `tensor_core.add`, of the kernels that cut the sums of a pass, `sums` of one image. `sizes`, "C" or "CK", lie
    along memory, and have to be whole units of 16 bytes."""
    for each in tensor_core.kernels():
        _add(table, call, each, sizes, sums)


def _add(
    table: KernelTable,
    call: Callable[[str], tensor_core.Call],
    kernel: tensor_core.Kernel,
    sizes: str,
    sums: Callable[[Conv2dProblem], Sums],
) -> None:
    unit = 4 if "float32" in kernel.dtypes else 8

    def supports(p: Conv2dProblem) -> str | None:
        if p.groups > 1:
            return f"needs groups=1, got {p.groups}"
        return kernel.supports(p) or _broken(p, sizes, unit) or _why_not(p, sums(p))

    def slower(module: Any, p: Conv2dProblem, dtype: str, device: int) -> str | None:
        size = tensor_core.SIZE[dtype]
        return planned.slower(module, kernel.arithmetic, table.direction, p, size, device, parts(sums(p)))

    def words(module: Any, p: Conv2dProblem, dtype: str) -> str:
        size = tensor_core.SIZE[dtype]
        return planned.words(module, kernel.arithmetic, table.direction, p, size, parts(sums(p)))

    def expected(module: Any, p: Conv2dProblem, dtype: str) -> float:
        size = tensor_core.SIZE[dtype]
        return planned.expected(module, kernel.arithmetic, table.direction, p, size, parts(sums(p)))

    run = tensor_core.on_aligned(call(f"{kernel.binding}_cut"))
    fits = lacking(("moments",), supports)
    compiled.add(table, f"{kernel.name}_cut", run, fits, kernel.dtypes, words, slower=slower, expected=expected)


def _broken(p: Conv2dProblem, sizes: str, unit: int) -> str | None:
    for name in sizes:
        if getattr(p, name) % unit:
            return f"needs {name} to be a multiple of {unit}, got {getattr(p, name)}"
    return None


def _why_not(p: Conv2dProblem, sums: Sums) -> str | None:
    count = tiles(p.N * sums.rows, sums.columns)
    if 2 * count > MULTIPROCESSORS:
        return f"{count} tiles keep multiprocessors busy without cutting their sums"
    if (cut := parts(sums)) < 2:
        return f"sums of {sums.depth} products are too short to be cut"
    if 4 * cut * p.N * sums.stored > _WORKSPACE:
        return f"{cut} parts of all sums would take more than {_WORKSPACE >> 20} MiB"
    return None

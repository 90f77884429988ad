"""What a convolution is planned to run as on tensor cores, and how long the cost model expects it to take there and in
float32: csrc/common/tiling.h, asked of a module's plain arithmetic, and the bytes that any kernel moves."""

from __future__ import annotations

import functools
from collections.abc import Callable
from math import gcd, lcm
from typing import Any, NamedTuple

from gpucnn.ops import compiled
from gpucnn.problem import Conv2dProblem


class Product(NamedTuple):
    """Sums of rows x columns over `depth`, which is `cut` where that pays."""

    rows: int
    columns: int
    depth: int
    cut: bool


def product(direction: str, p: Conv2dProblem) -> Product:
    """A pass of a convolution of groups=1 as a product of matrices."""
    windows, weights = p.N * p.P * p.Q, p.R * p.S * p.C
    if direction == "fprop":
        return Product(windows, p.K, weights, False)
    if direction == "wgrad":
        return Product(p.K, weights, windows, True)
    pixels, classes = p.N, 1  # classes of pixels that meet the same taps; on average each meets a share of them
    for size, stride in zip((p.H, p.W), p.stride, strict=True):
        count = min(stride, size)
        pixels *= -(-size // stride) * count
        classes *= count
    return Product(pixels, p.C, -(-p.R * p.S * p.K // classes), False)


_SINGLE = {"16-bit": ("128x64", 2.8), "tf32": ("128x64", 1.75), "split": ("64x64", 1.45), "fp32": ("64x64", 1.3)}
_SINGLE_WEIGHTS = {"16-bit": ("64x64", 2.3), "tf32": ("64x64", 1.35), "split": ("64x64", 1.45), "fp32": ("64x64", 1.3)}
"""The tile of what comes by single elements, of which the weight gradient has another, and how much longer than wide
it takes: csrc/mma/operands.h."""


def by_single_elements(direction: str, p: Conv2dProblem, size: int) -> bool:
    """Whether operands are in no whole units of 16 bytes."""
    sizes = (p.C,) if direction == "fprop" else (p.C, p.K)
    return any(each * size % 16 for each in sizes)


@functools.lru_cache(maxsize=4096)
def plan(
    module: Any, arithmetic: str, direction: str, p: Conv2dProblem, device: int = 0, parts: int = 0, size: int = 16
) -> dict[str, Any]:
    """`product_plan` of a pass: configuration, parts, waves, seconds. `device`: the current one, which it is for;
    `parts`: where that is a number, into how many the depth is cut; `size`: bytes of a number."""
    rows, columns, depth, cut = product(direction, p)
    if cut and arithmetic == "fp32":  # whose weight gradients are the other way round
        rows, columns = columns, rows
    sizes = max(rows, 1), columns, max(depth, 1)
    if not by_single_elements(direction, p, size):
        found: dict[str, Any] = module.product_plan(arithmetic, *sizes, cut, "64x64" if parts else "", parts=parts)
        return found
    tile, longer = (_SINGLE_WEIGHTS if direction == "wgrad" else _SINGLE)[arithmetic]
    splits = module.product_plan(arithmetic, *sizes, cut)["parts"]  # of the tile for whole units: alike for all
    found = module.product_plan(arithmetic, *sizes, cut, tile, parts=splits)
    return {**found, "seconds": found["seconds"] * longer}


class Merged(NamedTuple):
    """How several groups are merged into a tile: csrc/conv2d/tensor_core_groups.h."""

    tile: int
    """Lines of groups side by side: rows or columns."""
    most: float
    """Products a cycle and multiprocessor, in 16 bits, that shared memory and instructions leave time for."""


_MERGED = {"fprop": Merged(32, 720), "dgrad": Merged(32, 720), "wgrad": Merged(64, 900)}
_EACH = {"16-bit": (1, 1.0), "tf32": (2, 0.5), "split": (6, 0.14)}
"""What a product takes of the matrix unit's time, and the share of the rate of 16 bits for all else."""
_OWN_GROUPS = 0.62
"""Of float32's rate, what the kernel `grouped` is expected to reach."""


def merged_seconds(module: Any, arithmetic: str, direction: str, p: Conv2dProblem) -> tuple[float, float]:
    """That the products of a pass in groups take on tensor cores, and in float32: estimates."""
    multiprocessors, fp32, matrix, *_, clock = module.machine()
    tile, most = _MERGED[direction]
    channels, filters = p.C // p.groups, p.K // p.groups
    lines = channels if direction == "dgrad" else filters
    whole = lcm(8 // gcd(8, channels), 8 // gcd(8, filters))
    merged = min(max(tile // lines // whole, 1) * whole, p.groups)
    used = lines / (-(-merged * lines // tile) * tile)  # the rest are of two groups, or beyond the last
    each, share = _EACH[arithmetic]
    products = p.N * p.P * p.Q * p.K * p.R * p.S * channels / (multiprocessors * clock)
    return products / (used * min(most * share, 0.85 * matrix / each)), products / (_OWN_GROUPS * fp32)


def seconds(
    module: Any, arithmetic: str, direction: str, p: Conv2dProblem, size: int, device: int = 0, parts: int = 0
) -> float:
    """That a pass takes at least by what is planned for it, and to move x, w and y once, of `size` bytes a number."""
    return max(_computing(module, arithmetic, direction, p, size, device, parts), _moving(module, p, size))


def _computing(
    module: Any, arithmetic: str, direction: str, p: Conv2dProblem, size: int, device: int, parts: int = 0
) -> float:
    found: float = plan(module, arithmetic, direction, p, device, parts, size)["seconds"]
    return found


def _moving(module: Any, p: Conv2dProblem, size: int) -> float:
    figures: tuple[float, ...] = module.machine()
    dram, clock = figures[-2:]
    return size * (p.N * p.H * p.W * p.C + p.K * p.R * p.S * p.C // p.groups + p.N * p.P * p.Q * p.K) / (dram * clock)


@functools.lru_cache(maxsize=4096)
def slower(
    module: Any, arithmetic: str, direction: str, p: Conv2dProblem, size: int, device: int = 0, parts: int = 0
) -> str | None:
    """The reason why float32's own products, or sums that are not cut into `parts`, are to be preferred; None where
    they are expected to take as long."""
    if p.groups > 1:
        merged, alone = merged_seconds(module, arithmetic, direction, p)
        return f"{_words(merged)} expected, {_words(alone)} in float32" if merged > alone else None
    own, plain = (_computing(module, arithmetic, direction, p, size, device, each) for each in (parts, 0))
    if parts and plain < own:
        return f"{_words(own)} expected, {_words(plain)} without parts"
    if size < 4:
        return None  # what is left for 16 bits is slower in any case
    other = _computing(module, "fp32", direction, p, size, device)
    if other >= own:
        return None
    moving = _moving(module, p, size)
    if own <= moving:
        return f"{_words(own)} of products, {_words(other)} in float32, while memory takes {_words(moving)}"
    return f"{_words(own)} expected, {_words(max(other, moving))} in float32"


def expected(module: Any, arithmetic: str, direction: str, p: Conv2dProblem, size: int, parts: int = 0) -> float:
    """Seconds that a pass is expected to take, its sums cut into `parts` where that is a number."""
    if p.groups > 1:
        return max(merged_seconds(module, arithmetic, direction, p)[0], _moving(module, p, size))
    return seconds(module, arithmetic, direction, p, size, parts=parts)


def in_float32(direction: str, described: Callable[[Any], Conv2dProblem] = lambda p: p) -> compiled.Expected:
    """What is expected of the tiles of csrc/gemm: of float32 alone, whose rate the model knows."""

    def expected_seconds(module: Any, problem: Any, dtype: str) -> float | None:
        return seconds(module, "fp32", direction, described(problem), 4) if dtype == "float32" else None

    return expected_seconds


def words(module: Any, arithmetic: str, direction: str, p: Conv2dProblem, size: int, parts: int = 0) -> str:
    """For `gpucnn.explain`: the tile, the parts and the time expected."""
    if p.groups > 1:
        merged, alone = (
            max(each, _moving(module, p, size)) for each in merged_seconds(module, arithmetic, direction, p)
        )
        return f"groups in tiles of {_MERGED[direction].tile}, {_words(merged)} expected, {_words(alone)} in float32"
    found = plan(module, arithmetic, direction, p, parts=parts, size=size)
    single = " by single elements" if by_single_elements(direction, p, size) else ""
    cut = f", {found['parts']} parts" if found["parts"] > 1 else ""
    own = expected(module, arithmetic, direction, p, size, parts)
    other = seconds(module, "fp32", direction, p, size)
    return f"tile {found['configuration']}{single}{cut}, {_words(own)} expected, {_words(other)} in float32"


def _words(time: float) -> str:
    return f"{time * 1e6:.3g} us"

"""What a convolution is planned to run as on tensor cores, and how long the cost model expects it to take there and in
float32: csrc/common/tiling.h, asked of a module's plain arithmetic, and the bytes that any kernel moves."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

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
    pixels, taps = p.N, 1
    for size, count, stride in zip((p.H, p.W), (p.R, p.S), p.stride, strict=True):
        pixels *= -(-size // stride) * min(stride, size)
        taps *= -(-count // stride)
    return Product(pixels, p.C, taps * p.K, False)


@functools.lru_cache(maxsize=4096)
def plan(
    module: Any, arithmetic: str, direction: str, p: Conv2dProblem, device: int = 0, parts: int = 0
) -> dict[str, Any]:
    """`product_plan` of a pass: configuration, parts, waves, seconds. `device`: the current one, which it is for;
    `parts`: where that is a number, into how many the depth is cut."""
    rows, columns, depth, cut = product(direction, p)
    if cut and arithmetic == "fp32":  # whose weight gradients are the other way round
        rows, columns = columns, rows
    sizes = max(rows, 1), columns, max(depth, 1)
    found: dict[str, Any] = module.product_plan(arithmetic, *sizes, cut, "64x64" if parts else "", parts=parts)
    return found


def seconds(
    module: Any, arithmetic: str, direction: str, p: Conv2dProblem, size: int, device: int = 0, parts: int = 0
) -> float:
    """That a pass takes at least by what is planned for it, and to move x, w and y once, of `size` bytes a number."""
    return max(_computing(module, arithmetic, direction, p, device, parts), _moving(module, p, size))


def _computing(module: Any, arithmetic: str, direction: str, p: Conv2dProblem, device: int, parts: int = 0) -> float:
    found: float = plan(module, arithmetic, direction, p, device, parts)["seconds"]
    return found


def _moving(module: Any, p: Conv2dProblem, size: int) -> float:
    figures: tuple[float, ...] = module.machine()
    dram, clock = figures[-2:]
    return size * (p.N * p.H * p.W * p.C + p.K * p.R * p.S * p.C + p.N * p.P * p.Q * p.K) / (dram * clock)


@functools.lru_cache(maxsize=4096)
def slower(
    module: Any, arithmetic: str, direction: str, p: Conv2dProblem, size: int, device: int = 0, parts: int = 0
) -> str | None:
    """The reason why float32's own products, or sums that are not cut into `parts`, are to be preferred; None where
    they are expected to take as long."""
    own, plain = (_computing(module, arithmetic, direction, p, device, each) for each in (parts, 0))
    if parts and plain < own:
        return f"{_words(own)} expected, {_words(plain)} without parts"
    other = _computing(module, "fp32", direction, p, device)
    if other >= own:
        return None
    moving = _moving(module, p, size)
    if own <= moving:
        return f"{_words(own)} of products, {_words(other)} in float32, while memory takes {_words(moving)}"
    return f"{_words(own)} expected, {_words(max(other, moving))} in float32"


def words(module: Any, arithmetic: str, direction: str, p: Conv2dProblem, size: int, parts: int = 0) -> str:
    """For `gpucnn.explain`: the tile, the parts and the time expected."""
    found = plan(module, arithmetic, direction, p, parts=parts)
    cut = f", {found['parts']} parts" if found["parts"] > 1 else ""
    own = seconds(module, arithmetic, direction, p, size, parts=parts)
    other = seconds(module, "fp32", direction, p, size)
    return f"tile {found['configuration']}{cut}, {_words(own)} expected, {_words(other)} in float32"


def _words(time: float) -> str:
    return f"{time * 1e6:.3g} us"

"""Pooling."""

from __future__ import annotations

from typing import Any

from gpucnn.arguments import whole
from gpucnn.functional.checks import batched, floats_together, hashable
from gpucnn.ops import pool2d
from gpucnn.problem import IntPair, pool2d_problem
from gpucnn.tensor import Tensor, record


def max_pool2d(
    input: Tensor,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Each window's maximum: (N,C,H,W) -> (N,C,P,Q), or (C,H,W) -> (C,P,Q); stride defaults to kernel_size.

    The gradient goes to the first of equal maxima in row-major order; a NaN is larger than any number.

    Args:
        padding: cells of -infinity at each side, at most half the window.
        ceil_mode: keep a last window that reaches beyond the image, as long as it starts inside.
        return_indices: return (output, indices), int64 positions h * W + w of the maxima.

    Raises:
        ValueError, TypeError: as conv2d.
    """
    floats_together("max_pool2d", input=input)
    arguments = hashable("max_pool2d", kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation)

    def run(x: Tensor) -> Any:
        problem = pool2d_problem("max_pool2d", x.shape, *arguments, bool(ceil_mode))
        return record(pool2d.MaxPool2d, (x,), {"problem": problem, "return_indices": return_indices})

    return batched(input, run)


def avg_pool2d(
    input: Tensor,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Each window's average: (N,C,H,W) -> (N,C,P,Q), or (C,H,W) -> (C,P,Q); stride defaults to kernel_size.

    Args:
        count_include_pad: padded zeros count as cells of the window.
        divisor_override: divide by this instead of the number of cells; not 0.

    Raises:
        ValueError, TypeError: as conv2d.
    """
    floats_together("avg_pool2d", input=input)
    if divisor_override is not None and whole(divisor_override, "avg_pool2d: divisor_override") == 0:
        raise ValueError("avg_pool2d: divisor_override must not be 0")
    arguments = hashable("avg_pool2d", kernel_size=kernel_size, stride=stride, padding=padding)

    def run(x: Tensor) -> Tensor:
        problem = pool2d_problem("avg_pool2d", x.shape, *arguments, 1, bool(ceil_mode))
        options = {"count_include_pad": bool(count_include_pad), "divisor_override": divisor_override}
        return record(pool2d.AvgPool2d, (x,), {"problem": problem, **options})  # type: ignore[no-any-return]

    return batched(input, run)  # type: ignore[no-any-return]

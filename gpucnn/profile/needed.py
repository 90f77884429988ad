"""What a pass of an op needs whichever kernel runs it: each byte moved once, each product computed once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from gpucnn.problem import Conv2dProblem


def needed_bytes(arrays: Iterable[Any], result: Any) -> int:
    """Of a call's arrays, read once, and of its result's, written once. An array that is both counts twice."""
    results = result if isinstance(result, (tuple, list)) else (result,)
    flat = [each for array in arrays for each in (array if isinstance(array, (tuple, list)) else (array,))]
    return sum(int(array.nbytes) for array in (*flat, *results) if hasattr(array, "nbytes"))


def _meetings(size: int, kernel: int, outputs: int, stride: int, padding: int, dilation: int) -> int:
    """Pairs of a window and a tap of it that lie on the image, along one axis."""
    cells = np.arange(outputs)[:, None] * stride - padding + np.arange(kernel) * dilation
    return int(((cells >= 0) & (cells < size)).sum())


def needed_products(op: str, direction: str, problem: Any, arrays: tuple[Any, ...], result: Any) -> int:
    """Multiplications with addition of a pass of a convolution, without those by padding, or of a product of matrices;
    0 for other ops."""
    if isinstance(problem, Conv2dProblem) and direction in ("fprop", "dgrad", "wgrad"):
        p = problem
        vertical = _meetings(p.H, p.R, p.P, p.stride[0], p.padding[0], p.dilation[0])
        horizontal = _meetings(p.W, p.S, p.Q, p.stride[1], p.padding[1], p.dilation[1])
        return p.N * p.K * (p.C // p.groups) * vertical * horizontal
    if op == "linear" and direction in ("fprop", "dgrad"):
        return int(arrays[0].shape[0] * arrays[1].size)
    if op == "linear" and direction == "wgrad":
        return int(arrays[0].size * arrays[1].shape[1])
    if op == "matmul":
        return int(result.size * arrays[0].shape[-1])
    return 0

"""What becomes of a convolution's sums before they are stored: who does it, and the passes there are where none does.

y = relu((sum + bias) * scale + shift + residual), in float32, rounded once; and moments of y for the batch norm behind
it. The kernel that runs the convolution without all that decides: where it can do it too, it does; a slower one is not
taken for its sake, and what comes after the bias is then another pass over memory, batch norm's in evaluation.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from gpucnn.backend import Array, current_stream, device_of, namespace
from gpucnn.ops import elementwise, norm
from gpucnn.ops.registry import KernelTable, Supports, always
from gpucnn.problem import EPILOGUES, Conv2dProblem
from gpucnn.reference.norm_problem import Moments, NormProblem

_REASONS = {
    "scale": "multiplies its sums by no scale",
    "residual": "adds no residual to its sums",
    "moments": "takes no moments of its output",
}


def lacking(names: Sequence[str], supports: Supports = always) -> Supports:
    """What a kernel asks for that does all of an epilogue but what is named."""

    def why_not(p: Conv2dProblem) -> str | None:
        return supports(p) or next((_REASONS[name] for name in p.epilogue if name in names), None)

    return why_not


def bias_and_relu_alone(supports: Supports = always) -> Supports:
    """What a kernel asks for that does nothing else of an epilogue."""
    return lacking(EPILOGUES, supports)


class Epilogue(NamedTuple):
    """What is asked for beside bias and ReLU: arrays, and whether moments of y are."""

    scale: Array | None = None
    """(K,); with it the shift."""
    shift: Array | None = None
    residual: Array | None = None
    """(N,P,Q,K)."""
    moments: bool = False


def run(
    table: KernelTable,
    p: Conv2dProblem,
    x: Array,
    w: Array,
    bias: Array | None,
    relu: bool,
    wanted: Epilogue,
    kernel: str | None,
) -> tuple[Array, Moments | None]:
    """(y, moments of y): the latter None unless they are wanted and the kernel takes them.

    Raises ValueError for a forced kernel that can't do all that is wanted.
    """
    if wanted.scale is None and wanted.residual is None and not wanted.moments:
        return table(p, x, w, bias, relu, kernel=kernel, like=x), None
    asked = _asked(p, wanted.scale is not None, wanted.residual is not None, wanted.moments and p.N > 0)
    if kernel is None and table.pick(p, x).why_not(asked, x) is not None:
        if wanted.scale is None and wanted.residual is None:
            return table(p, x, w, bias, relu, like=x), None
        return passed(table(p, x, w, bias, like=x), relu, wanted.scale, wanted.shift, wanted.residual), None
    arrays = (_single(wanted.scale, x), _single(wanted.shift, x), wanted.residual)
    result = table(asked, x, w, bias, relu, *arrays, kernel=kernel, like=x)
    return result if "moments" in asked.epilogue else (result, None)


@functools.lru_cache(maxsize=4096)
def _asked(p: Conv2dProblem, *wanted: bool) -> Conv2dProblem:
    return replace(p, epilogue=tuple([name for name, is_wanted in zip(EPILOGUES, wanted, strict=True) if is_wanted]))


def _single(array: Array | None, x: Array) -> Array | None:
    """What belongs to channels as kernels take it: in float32, beside float64 in that."""
    if array is None or x.dtype == np.float64:
        return array
    return array.astype(np.float32, copy=False)


def passed(sums: Array, relu: bool, scale: Array | None, shift: Array | None, residual: Array | None) -> Array:
    """relu(sums * scale + shift + residual), (N,P,Q,K), by batch norm's pass with a mean of 0 and a variance of 1; a
    residual alone is added as ever."""
    if scale is None and not relu:
        return elementwise.add(None, sums, residual, like=sums)
    K = sums.shape[-1]
    rows = sums.reshape(1, sums.size // K, K)
    problem = NormProblem(1, rows.shape[1], K, K, 0.0, None, math.inf if relu else None)
    added = None if residual is None else residual.reshape(rows.shape)
    y, *_ = norm.fprop(problem, rows, scale, shift, _standard(K, sums), added, like=sums)
    return y.reshape(sums.shape)


def _standard(channels: int, like: Array) -> tuple[Array, Array]:
    """A mean of 0 and a variance of 1, which nobody writes to: made once on each stream, whose work comes after it."""
    key = channels, device_of(like), current_stream(like)
    if key not in _STANDARD:
        xp = namespace(like)
        _STANDARD[key] = xp.zeros(channels, np.float32), xp.ones(channels, np.float32)
    return _STANDARD[key]


_STANDARD: dict[tuple[int, str, int], tuple[Array, Array]] = {}

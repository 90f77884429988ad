"""What becomes of a convolution's sums before they are stored, in passes of their own over them.

y = relu((sum + bias) * scale + shift + residual), in float32 or better, rounded once; and moments of what is stored.
Sums and y (N,P,Q,K), scale and shift (K,), residual as y.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from gpucnn.backend import Array, accumulator, namespace
from gpucnn.problem import Conv2dProblem
from gpucnn.reference import norm
from gpucnn.reference.norm_problem import Moments, NormProblem

Fprop = Callable[..., Array]


def with_epilogue(plain: Fprop) -> Callable[..., Array | tuple[Array, Moments]]:
    """plain(problem, x, w, bias, relu) as a kernel that does what `problem.epilogue` says: y, or (y, its moments)."""

    @functools.wraps(plain)
    def run(
        p: Conv2dProblem,
        x: Array,
        w: Array,
        bias: Array | None,
        relu: bool = False,
        scale: Array | None = None,
        shift: Array | None = None,
        residual: Array | None = None,
    ) -> Array | tuple[Array, Moments]:
        if not p.epilogue:
            return plain(p, x, w, bias, relu)
        if scale is None and residual is None:
            y = plain(p, x, w, bias, relu)
        else:
            work = accumulator(x.dtype)
            offsets = None if bias is None else bias.astype(work, copy=False)
            sums = plain(p, x.astype(work, copy=False), w.astype(work, copy=False), offsets)
            y = finished(sums, relu, scale, shift, residual).astype(x.dtype, copy=False)
        return (y, moments(y)) if "moments" in p.epilogue else y

    return run


def finished(sums: Array, relu: bool, scale: Array | None, shift: Array | None, residual: Array | None) -> Array:
    """relu(sums * scale + shift + residual), in the sums' dtype; what is None is 1, 0 and 0."""
    rows, problem = _rows(sums, math.inf if relu else None)
    factors = namespace(sums).ones((1, problem.C), np.float64) if scale is None else scale[None].astype(np.float64)
    offsets = None if shift is None else shift[None].astype(np.float64)
    added = None if residual is None else residual.reshape(rows.shape)
    return norm.scale_shift(problem, rows, None, factors, offsets, added).reshape(sums.shape)


def moments(y: Array) -> Moments:
    """Of y as it is, in one split, in float64."""
    rows, problem = _rows(y, None)
    mean, var = norm.moments(problem, rows)
    xp = namespace(y)
    return Moments(xp.concatenate([mean, var * problem.M, xp.zeros_like(mean)]), max(1, problem.M))


def _rows(y: Array, limit: float | None) -> tuple[Array, NormProblem]:
    K = y.shape[-1]
    M = y.size // K
    return y.reshape(1, M, K), NormProblem(1, M, K, K, limit=limit)

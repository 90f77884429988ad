"""Sums and means over axes; problem is (axes, keepdims). Half precision is summed in float32."""

from __future__ import annotations

import numpy as np

from gpucnn.backend import Array, accumulator, namespace

Problem = tuple[tuple[int, ...], bool]


def sum_(problem: Problem, x: Array) -> Array:
    axes, keepdims = problem
    dtype = accumulator(x.dtype) if x.dtype.kind == "f" else None
    total = x.sum(axis=axes, keepdims=keepdims, dtype=dtype)
    return namespace(x).asarray(total, dtype=x.dtype if x.dtype.kind == "f" else total.dtype)


def mean(problem: Problem, x: Array) -> Array:
    """NaN over no elements."""
    axes, keepdims = problem
    xp = namespace(x)
    count = int(np.prod([x.shape[axis] for axis in axes], dtype=np.int64))
    with np.errstate(all="ignore"):
        total = xp.asarray(x.sum(axis=axes, keepdims=keepdims, dtype=accumulator(x.dtype)))
        return (total / total.dtype.type(count)).astype(x.dtype, copy=False)

"""Sums and means over axes; problem is (axes, keepdims). Half precision is summed in float32."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpucnn.backend import Array, accumulator, namespace

Problem = tuple[tuple[int, ...], bool]

_LONG = 512  # terms of a running sum whose rounding errors begin to show


def sum_(problem: Problem, x: Array) -> Array:
    """In the dtype of x; integers and bools in 64 bits."""
    total = _total(problem, x)
    return total.astype(x.dtype, copy=False) if x.dtype.kind == "f" else total


def mean(problem: Problem, x: Array) -> Array:
    """NaN over no elements."""
    total = _total(problem, x)
    total /= total.dtype.type(_terms(problem, x))
    return total.astype(x.dtype, copy=False)


def _total(problem: Problem, x: Array) -> Array:
    axes, keepdims = problem
    dtype = _sum_dtype(x, axes, _terms(problem, x)) if x.dtype.kind == "f" else None
    return namespace(x).asarray(x.sum(axis=axes, keepdims=keepdims, dtype=dtype))


def _terms(problem: Problem, x: Array) -> int:
    return math.prod([x.shape[axis] for axis in problem[0]])


def _sum_dtype(x: Array, axes: tuple[int, ...], terms: int) -> np.dtype[Any]:
    """float64 for long sums of float32 across memory: there numpy keeps one running sum, elsewhere it adds pairwise."""
    if not isinstance(x, np.ndarray) or terms < _LONG:
        return accumulator(x.dtype)
    fastest = min(range(x.ndim), key=lambda axis: (x.shape[axis] == 1, abs(x.strides[axis])))
    return accumulator(x.dtype) if fastest in axes and x.dtype.itemsize > 2 else np.dtype(np.float64)

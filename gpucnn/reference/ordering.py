"""Where the extrema are, orders, and elements picked by their positions along an axis; running sums along one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gpucnn.backend import Array, accumulator, namespace

_LONG = 512  # terms of a running sum whose rounding errors begin to show


def argmax(axis: int, x: Array) -> Array:
    """int64 position of the first maximum along `axis`, which stays with size 1; the first NaN if there is one."""
    return x.argmax(axis=axis, keepdims=True)


def argmin(axis: int, x: Array) -> Array:
    """int64 position of the first minimum along `axis`, which stays with size 1; the first NaN if there is one."""
    return x.argmin(axis=axis, keepdims=True)


class SortProblem(NamedTuple):
    axis: int
    descending: bool


def argsort(p: SortProblem, x: Array) -> Array:
    """int64 positions that sort `x` along the axis; equal elements keep their order, NaN is greater than any number."""
    xp = namespace(x)
    if not p.descending:
        return xp.argsort(x, axis=p.axis, kind="stable")
    backwards = xp.argsort(xp.flip(x, p.axis), axis=p.axis, kind="stable")
    return x.shape[p.axis] - 1 - xp.flip(backwards, p.axis)


def take(axis: int, x: Array, index: Array) -> Array:
    """The elements of x at the positions `index` along `axis`; the other sizes are equal."""
    return namespace(x).take_along_axis(x, index, axis=axis)


class PutProblem(NamedTuple):
    axis: int
    size: int


def put(p: PutProblem, dy: Array, index: Array) -> Array:
    """The gradient of `take`: zeros of `size` along the axis, but dy at `index`; no position comes twice."""
    xp = namespace(dy)
    dx = xp.zeros((*dy.shape[: p.axis], p.size, *dy.shape[p.axis + 1 :]), dy.dtype)
    xp.put_along_axis(dx, index, dy, axis=p.axis)
    return dx


class CumsumProblem(NamedTuple):
    """With `backwards` from the last element on: the gradient of the other."""

    axis: int
    backwards: bool = False


def cumsum(p: CumsumProblem, x: Array) -> Array:
    """Running sums in the dtype of x, added up in float32 or better; of integers and bools in 64 bits."""
    xp = namespace(x)
    if x.dtype.kind != "f":
        return xp.cumsum(x, axis=p.axis)
    work = np.dtype(np.float64) if x.shape[p.axis] >= _LONG else accumulator(x.dtype)
    given = xp.flip(x, p.axis) if p.backwards else x
    sums = xp.cumsum(given, axis=p.axis, dtype=work).astype(x.dtype, copy=False)
    return xp.ascontiguousarray(xp.flip(sums, p.axis)) if p.backwards else sums

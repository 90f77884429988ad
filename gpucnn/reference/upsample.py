"""Larger images: interpolation, bed of nails, pixel shuffle. Images are (N,H,W,C) or, larger, (N,P,Q,C)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backend import Array, accumulator, empty, zeros
from gpucnn.reference.common import blocks, is_large
from gpucnn.reference.parallel import for_each
from gpucnn.reference.resample import AxisSums, axis_sums, sum_along

Entries = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64] | None]
"""(output position, input position, weight or None for 1) of all pairs that have to do with each other."""


@dataclass(frozen=True)
class InterpolateProblem:
    """N images of H x W x C become P x Q.

    `scale` is by how much they grow vertically and horizontally, where that is not just P / H and Q / W.
    """

    N: int
    H: int
    W: int
    C: int
    P: int
    Q: int
    mode: str  # "nearest", "nearest-exact" or "bilinear"
    align_corners: bool
    scale: tuple[float, float] | None
    antialias: bool = False


def interpolate_fprop(p: InterpolateProblem, x: Array) -> Array:
    """y (N,P,Q,C)."""
    rows, columns = (_forward(*axis, p.mode, p.align_corners, p.antialias) for axis in _axes(p))
    return _both_axes(rows, columns, x)


def interpolate_dgrad(p: InterpolateProblem, dy: Array) -> Array:
    """dx (N,H,W,C): each input position gathers from the outputs that it went into."""
    rows, columns = (_backward(*axis, p.mode, p.align_corners, p.antialias) for axis in _axes(p))
    return _both_axes(rows, columns, dy)


def _axes(p: InterpolateProblem) -> tuple[tuple[int, int, float | None], tuple[int, int, float | None]]:
    """(inputs, outputs, scale) along the two axes."""
    vertical, horizontal = p.scale or (None, None)
    return (p.H, p.P, vertical), (p.W, p.Q, horizontal)


def _both_axes(rows: AxisSums, columns: AxisSums, x: Array) -> Array:
    work = x.dtype if rows.is_selection and columns.is_selection else accumulator(x.dtype)
    if rows.size < x.shape[1]:  # the axis that makes less of it comes first
        return sum_along(2, columns, sum_along(1, rows, x, work), x.dtype)
    return sum_along(1, rows, sum_along(2, columns, x, work), x.dtype)


@functools.lru_cache(maxsize=512)
def _forward(size: int, count: int, scale: float | None, mode: str, align_corners: bool, antialias: bool) -> AxisSums:
    return axis_sums(count, *_entries(size, count, scale, mode, align_corners, antialias))


@functools.lru_cache(maxsize=512)
def _backward(size: int, count: int, scale: float | None, mode: str, align_corners: bool, antialias: bool) -> AxisSums:
    target, source, weight = _entries(size, count, scale, mode, align_corners, antialias)
    return axis_sums(size, source, target, weight)


def _entries(size: int, count: int, scale: float | None, mode: str, align_corners: bool, antialias: bool) -> Entries:
    """Which of `size` inputs go into which of `count` outputs along an axis."""
    outputs = np.arange(count)
    if mode == "nearest" and count in (size, 2 * size):  # PyTorch's exception, whatever the scale
        return outputs, outputs * size // count, None
    if mode != "bilinear":
        # In float32 as PyTorch rounds it, whatever the dtype of the images.
        step = np.float32(size / count if scale is None else 1 / scale)
        offset = np.float32(0.5 if mode == "nearest-exact" else 0)
        places = np.floor((outputs.astype(np.float32) + offset) * step)
        return outputs, np.minimum(places, size - 1).astype(np.int64), None
    if size == count:
        return outputs, outputs, None
    per: float  # outputs lie inputs / per apart
    if align_corners:
        inputs, per = (size - 1, count - 1) if count > 1 else (0, 1)
    else:
        inputs, per = (size, count) if scale is None else (1, scale)
    if antialias:
        return _tents(size, (outputs + 0.5) * inputs / per, max(1.0, inputs / per))
    ideal: NDArray[Any] = outputs * inputs / per if align_corners else (outputs + 0.5) * inputs / per - 0.5
    place = np.clip(ideal, 0, size - 1)
    before = place.astype(np.int64)
    after = np.minimum(before + 1, size - 1)
    share = place - before
    return np.tile(outputs, 2), np.concatenate([before, after]), np.concatenate([1 - share, share])


def _tents(size: int, centres: NDArray[Any], width: float) -> Entries:
    """Weights that fall from each output's centre to 0 at a distance of `width` inputs, and sum to 1.

    Inputs have their centres at 1/2, 3/2, ...
    """
    source = np.floor(centres - width).astype(np.int64)[:, None] + np.arange(math.ceil(2 * width) + 1)
    weight = 1 - np.abs(source + 0.5 - centres[:, None]) / width
    weight[(source < 0) | (source >= size) | (weight < 0)] = 0
    weight /= weight.sum(axis=1, keepdims=True)
    target, place = np.nonzero(weight)
    return target, source[target, place], weight[target, place]


# ------------------------------------------------------------------------------------------------------- bed of nails


@dataclass(frozen=True)
class NailsProblem:
    """N images of H x W x C become factor[0]*H x factor[1]*W."""

    N: int
    H: int
    W: int
    C: int
    factor: tuple[int, int]


def nails_fprop(p: NailsProblem, x: Array) -> Array:
    """y (N,P,Q,C): x at the top left of each cell, 0 elsewhere."""
    y = zeros((p.N, p.H * p.factor[0], p.W * p.factor[1], p.C), x.dtype, x)
    y[:, :: p.factor[0], :: p.factor[1]] = x
    return y


def nails_dgrad(p: NailsProblem, dy: Array) -> Array:
    """dx (N,H,W,C)."""
    dx = empty((p.N, p.H, p.W, p.C), dy.dtype, dy)
    dx[...] = dy[:, :: p.factor[0], :: p.factor[1]]
    return dx


# ------------------------------------------------------------------------------------------------------ pixel shuffle


@dataclass(frozen=True)
class ShuffleProblem:
    """N images of H x W pixels with C * factor**2 channels, and of factor*H x factor*W with C: one or the other."""

    N: int
    H: int
    W: int
    C: int
    factor: int


def shuffle(p: ShuffleProblem, x: Array) -> Array:
    """x (N,H,W,C*f*f) -> y (N,f*H,f*W,C): y[f*h+i, f*w+j, c] = x[h, w, (c*f+i)*f+j]."""
    y = empty((p.N, p.H * p.factor, p.W * p.factor, p.C), x.dtype, x)
    coarse, fine = _cells(p, x, y)

    def run(block: slice) -> None:
        fine[block] = coarse[block].transpose(0, 1, 4, 2, 5, 3)

    _for_each_block(p, x, run)
    return y


def unshuffle(p: ShuffleProblem, y: Array) -> Array:
    """y (N,f*H,f*W,C) -> x (N,H,W,C*f*f), the inverse of `shuffle`."""
    x = empty((p.N, p.H, p.W, p.C * p.factor**2), y.dtype, y)
    coarse, fine = _cells(p, x, y)

    def run(block: slice) -> None:
        for i in range(p.factor):  # one copy of all would run along the shortest of its axes
            for j in range(p.factor):
                coarse[block, ..., i, j] = fine[block, :, i, :, j]

    _for_each_block(p, y, run)
    return x


def _cells(p: ShuffleProblem, x: Array, y: Array) -> tuple[Array, Array]:
    """Views (N,H,W,C,f,f) of x and (N,H,f,W,f,C) of y."""
    f = p.factor
    return x.reshape(p.N, p.H, p.W, p.C, f, f), y.reshape(p.N, p.H, f, p.W, f, p.C)


def _for_each_block(p: ShuffleProblem, like: Array, run: Callable[[slice], None]) -> None:
    image_bytes = 2 * p.H * p.W * p.C * p.factor**2 * int(like.itemsize)
    for_each(run, blocks(p.N, image_bytes), like, share=is_large(p.N * image_bytes))

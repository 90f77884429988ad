"""Pooling to P x Q outputs whatever the size of the image, where that size is no multiple of them.

Output p sees the rows floor(p * H / P) up to, not including, ceil((p + 1) * H / P), and columns likewise: windows of
different sizes that may share a row. (Windows all alike are an ordinary pooling.)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backend import Array, accumulator, empty, namespace, zeros
from gpucnn.reference.common import blocks, is_large, select
from gpucnn.reference.parallel import for_each
from gpucnn.reference.resample import AxisSums, axis_sums, sum_along


@dataclass(frozen=True)
class AdaptivePool2dProblem:
    """N images of H x W x C become P x Q."""

    N: int
    H: int
    W: int
    C: int
    P: int
    Q: int


def _spans(size: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(first, last + 1) input position of each of `count` windows over `size` positions."""
    number = np.arange(count)
    return number * size // max(1, count), -(-(number + 1) * size // max(1, count))


# ------------------------------------------------------------------------------------------------------------ average


def average_fprop(p: AdaptivePool2dProblem, x: Array) -> Array:
    """y (N,P,Q,C): each window's average."""
    work = accumulator(x.dtype)
    total = sum_along(2, _window_sums(p.W, p.Q), sum_along(1, _window_sums(p.H, p.P), x, work), work)
    total /= _cells(p, total)
    return total.astype(x.dtype, copy=False)


def average_dgrad(p: AdaptivePool2dProblem, dy: Array) -> Array:
    """dx (N,H,W,C): each window's gradient over the number of its cells, given to all of them."""
    work = accumulator(dy.dtype)
    share = dy / _cells(p, dy)
    return sum_along(1, _shares(p.H, p.P), sum_along(2, _shares(p.W, p.Q), share, work), dy.dtype)


def _cells(p: AdaptivePool2dProblem, like: Array) -> Array:
    """How many cells each window has, (P,Q,1), in the dtype that sums are kept in."""
    (top, below), (left, right) = _spans(p.H, p.P), _spans(p.W, p.Q)
    return namespace(like).asarray(np.outer(below - top, right - left)[..., None].astype(accumulator(like.dtype)))


@functools.lru_cache(maxsize=512)
def _window_sums(size: int, count: int) -> AxisSums:
    return axis_sums(count, *_memberships(size, count))


@functools.lru_cache(maxsize=512)
def _shares(size: int, count: int) -> AxisSums:
    windows, positions = _memberships(size, count)
    return axis_sums(size, positions, windows)


def _memberships(size: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every pair of a window and a position in it."""
    first, end = _spans(size, count)
    windows = np.repeat(np.arange(count), end - first)
    return windows, np.arange(len(windows)) - np.repeat(np.cumsum(end - first) - end, end - first)


# ------------------------------------------------------------------------------------------------------------ maximum


def max_fprop(p: AdaptivePool2dProblem, x: Array) -> tuple[Array, Array]:
    """(y, indices), both (N,P,Q,C): each window's maximum, and h * W + w of where it lies, int64.

    The first of equal maxima in row-major order; a NaN is larger than any number, and of several the last counts.
    """
    y = empty((p.N, p.P, p.Q, p.C), x.dtype, x)
    indices = empty(y.shape, np.int64, x)
    number = np.int32 if p.H * p.W < 1 << 31 else np.int64
    rows, columns = _turns(p.H, p.P, number, x), _turns(p.W, p.Q, number, x)

    def run(block: slice) -> None:
        # Columns of each row come first: so the upper of two equal maxima wins, and the left one of those beside it.
        cells = x[block]
        in_rows, w = _largest((cells.take(turn, axis=2), turn[:, None]) for turn in columns)
        y[block], indices[block] = _largest(
            (in_rows.take(turn, axis=1), w.take(turn, axis=1) + turn[:, None, None] * p.W) for turn in rows
        )

    _for_each_block(p, x, run)
    return y, indices


def _turns(size: int, count: int, dtype: Any, like: Array) -> list[Array]:
    """What each window looks at in each turn, (count,): its first position, its second, ..., its last once more."""
    first, end = _spans(size, count)
    longest = int((end - first).max(initial=1))
    return [namespace(like).asarray(np.minimum(first + turn, end - 1).astype(dtype)) for turn in range(longest)]


def _largest(turns: Iterator[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Over (values, places) of each turn: the largest value, and its place; places must not fall from turn to turn."""
    best, there = next(turns)
    xp = namespace(best)
    found = xp.broadcast_to(there, best.shape)
    for values, places in turns:
        better = (values > best) | (values != values)
        found = xp.maximum(found, xp.multiply(better, places))
        best = xp.maximum(best, values)
    return best, found


def max_dgrad(p: AdaptivePool2dProblem, dy: Array, indices: Array) -> Array:
    """dx (N,H,W,C): each position gathers the gradients of those windows around it whose maximum it is."""
    xp = namespace(dy)
    work = accumulator(dy.dtype)
    dx = empty((p.N, p.H, p.W, p.C), dy.dtype, dy)
    # Which windows see a position follows the same rule as which positions a window sees.
    (top, below), (left, right) = _spans(p.P, p.H), _spans(p.Q, p.W)
    turns = []
    for a in range(int((below - top).max(initial=0))):
        for b in range(int((right - left).max(initial=0))):
            there = (top + a < below)[:, None] & (left + b < right)
            own = np.where(there, np.arange(p.H * p.W).reshape(p.H, p.W), -1)[..., None]
            rows, columns = np.minimum(top + a, below - 1), np.minimum(left + b, right - 1)
            turns.append([xp.asarray(each) for each in (rows, columns, own)])

    def run(block: slice) -> None:
        total = zeros((block.stop - block.start, p.H, p.W, p.C), work, dy)
        for rows, columns, own in turns:
            shares = dy[block].take(rows, axis=1).take(columns, axis=2).astype(work, copy=False)
            total += select(shares, indices[block].take(rows, axis=1).take(columns, axis=2) == own)
        dx[block] = total

    _for_each_block(p, dy, run)
    return dx


def _for_each_block(p: AdaptivePool2dProblem, like: Array, run: Callable[[slice], None]) -> None:
    image_bytes = (p.H * p.W + 2 * p.H * p.Q + 4 * p.P * p.Q) * p.C * int(like.itemsize)
    for_each(run, blocks(p.N, image_bytes), like, share=is_large(p.N * image_bytes))

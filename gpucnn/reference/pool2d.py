"""Max and average pooling; x and dx (N,H,W,C), y and dy (N,P,Q,C)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backend import Array, accumulator, empty, namespace, workspace
from gpucnn.problem import Pool2dProblem
from gpucnn.reference.common import blocks, is_large, padded, padded_zeros, select, tap, taps
from gpucnn.reference.parallel import for_each


def max_fprop(p: Pool2dProblem, x: Array) -> Array:
    """y: each window's maximum; a NaN in it wins."""
    xp = namespace(x)
    y = empty((p.N, p.P, p.Q, p.C), x.dtype, x)

    def run(block: slice) -> None:
        source = padded(x[block], p, -np.inf)
        best = y[block]
        best[...] = tap(source, p, 0, 0)
        for index in range(1, p.R * p.S):
            xp.maximum(best, tap(source, p, *divmod(index, p.S)), out=best)

    _for_each_block(p, x, run)
    return y


def max_fprop_winners(p: Pool2dProblem, x: Array) -> tuple[Array, Array]:
    """(y, winners): winners (N,P,Q,C) are tap numbers r * S + s, the first of equal maxima, the last NaN."""
    xp = namespace(x)
    number = np.uint8 if p.R * p.S <= 256 else np.int32
    y = empty((p.N, p.P, p.Q, p.C), x.dtype, x)
    winners = empty(y.shape, number, x)
    row, column = _first_taps(p)
    winners[...] = xp.asarray((row[:, None] * p.S + column)[..., None])

    def run(block: slice) -> None:
        source = padded(x[block], p, -np.inf)
        best, mine = y[block], winners[block]
        best[...] = tap(source, p, 0, 0)
        cells = workspace(best.shape, x.dtype, x)
        for index in range(1, p.R * p.S):
            cells[...] = tap(source, p, *divmod(index, p.S))  # strided once, so that comparisons run over plain memory
            better = (cells > best) | (cells != cells)
            xp.maximum(best, cells, out=best)
            xp.maximum(mine, xp.multiply(better, number(index), dtype=number), out=mine)

    _for_each_block(p, x, run)
    return y, winners


def _first_taps(p: Pool2dProblem) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row (P,) and column (Q,) of each window's first tap inside the image: what wins if all of its cells are -inf."""
    row = -(-np.maximum(0, p.padding[0] - np.arange(p.P) * p.stride[0]) // p.dilation[0])
    column = -(-np.maximum(0, p.padding[1] - np.arange(p.Q) * p.stride[1]) // p.dilation[1])
    return row, column


def max_indices(p: Pool2dProblem, winners: Array) -> Array:
    """PyTorch's indices: for each output the flat position h * W + w of its maximum in the image, int64 (N,P,Q,C).

    -1 where the window has no cell in the image: dilation can step over a small one.
    """
    xp = namespace(winners)
    r, s = np.divmod(np.arange(p.R * p.S), p.S)
    from_corner = xp.asarray(r * (p.dilation[0] * p.W) + s * p.dilation[1])
    top, left = np.arange(p.P) * p.stride[0] - p.padding[0], np.arange(p.Q) * p.stride[1] - p.padding[1]
    corner = xp.asarray((top[:, None] * p.W + left)[..., None])
    row, column = _first_taps(p)
    has_cell = (top + row * p.dilation[0] < p.H)[:, None] & (left + column * p.dilation[1] < p.W)
    indices = empty(winners.shape, np.int64, winners)

    def run(block: slice) -> None:
        places = from_corner.take(winners[block]) + corner
        indices[block] = places if has_cell.all() else xp.where(xp.asarray(has_cell)[..., None], places, -1)

    _for_each_block(p, indices, run)
    return indices


def max_dgrad(p: Pool2dProblem, dy: Array, winners: Array) -> Array:
    """dx: each window's gradient goes to its winner."""
    work = accumulator(dy.dtype)
    apart = _lie_apart(p)

    def scatter(full: Array, block: slice) -> None:
        gradient = dy[block].astype(work, copy=False)
        for index in range(p.R * p.S):
            target = tap(full, p, *divmod(index, p.S))
            share = select(gradient, winners[block] == index)
            if apart:
                target[...] = share
            else:
                target += share

    return scattered(p, dy, scatter)


@dataclass(frozen=True)
class AveragePool2dProblem:
    """The windows, and what their sums are divided by: see `divisors`."""

    windows: Pool2dProblem
    count_include_pad: bool
    divisor_override: int | None


def average_fprop(problem: AveragePool2dProblem, x: Array) -> Array:
    """y: each window's sum over its divisor."""
    p = problem.windows
    y = empty((p.N, p.P, p.Q, p.C), x.dtype, x)
    counts = _counts(problem, x)

    def run(block: slice) -> None:
        total = window_sums(p, padded(x[block], p))
        total /= counts
        y[block] = total

    _for_each_block(p, x, run)
    return y


def window_sums(p: Pool2dProblem, images: Array) -> Array:
    """(N,P,Q,C) sums over the windows of padded images, in the dtype that sums are kept in."""
    total = tap(images, p, 0, 0).astype(accumulator(images.dtype))
    for index in range(1, p.R * p.S):
        total += tap(images, p, *divmod(index, p.S))
    return total


def average_dgrad(problem: AveragePool2dProblem, dy: Array) -> Array:
    """dx: each window's gradient over its divisor, given to all of its cells."""
    p, counts = problem.windows, _counts(problem, dy)

    def scatter(full: Array, block: slice) -> None:
        spread(p, full, dy[block] / counts)

    return scattered(p, dy, scatter)


def spread(p: Pool2dProblem, full: Array, share: Array) -> None:
    """Adds to every cell of each window, in `full` with its padding, the window's share (N,P,Q,C)."""
    apart = _lie_apart(p)
    for _, _, target in taps(full, p):
        if apart:
            target[...] = share
        else:
            target += share


def one_window(problem: AveragePool2dProblem) -> str | None:
    p = problem.windows
    whole = (p.P, p.Q) == (1, 1) and (p.R, p.S) == (p.H, p.W) and p.padding == (0, 0)
    return None if whole else f"needs one window that is the image, got {p.P} x {p.Q} of {p.R} x {p.S}"


def average_fprop_whole(problem: AveragePool2dProblem, x: Array) -> Array:
    """y (N,1,1,C): each image's sum, a product with a vector of ones, over the divisor."""
    xp, p, counts = namespace(x), problem.windows, _counts(problem, x)
    work = accumulator(x.dtype)
    cells = x.reshape(p.N, p.H * p.W, p.C)
    ones = xp.ones((1, p.H * p.W), work)
    y = empty((p.N, 1, 1, p.C), x.dtype, x)

    def run(block: slice) -> None:
        y[block] = xp.matmul(ones, cells[block].astype(work, copy=False))[:, None] / counts

    _for_each_block(p, x, run)
    return y


def average_dgrad_whole(problem: AveragePool2dProblem, dy: Array) -> Array:
    """dx (N,H,W,C): the gradient over the divisor, at every position."""
    p = problem.windows
    dx = empty((p.N, p.H, p.W, p.C), dy.dtype, dy)
    share = dy / _counts(problem, dy)

    def run(block: slice) -> None:
        dx[block] = share[block]

    _for_each_block(p, dy, run)
    return dx


def scattered(p: Pool2dProblem, dy: Array, scatter: Callable[[Array, slice], None]) -> Array:
    """dx (N,H,W,C): for each block of images, what scatter(zeros with room for the padding, block) leaves in them."""
    work = accumulator(dy.dtype)
    dx = empty((p.N, p.H, p.W, p.C), dy.dtype, dy)
    (top, left) = p.padding
    in_place = work == dy.dtype and p.padding == p.padding_after == (0, 0)

    def run(block: slice) -> None:
        if in_place:
            dx[block] = 0
            scatter(dx[block], block)
        else:
            full = padded_zeros(p, block.stop - block.start, work, dy)
            scatter(full, block)
            dx[block] = full[:, top : top + p.H, left : left + p.W]

    _for_each_block(p, dy, run)
    return dx


def _lie_apart(p: Pool2dProblem) -> bool:
    """Whether no cell is in two windows."""
    return p.stride[0] >= p.R and p.stride[1] >= p.S and p.dilation == (1, 1)


def _for_each_block(p: Pool2dProblem, like: Array, run: Callable[[slice], None]) -> None:
    image_bytes = (p.H * p.W + 2 * p.P * p.Q) * p.C * int(like.itemsize)
    for_each(run, blocks(p.N, image_bytes), like, share=is_large(p.N * image_bytes))


def _counts(p: AveragePool2dProblem, like: Array) -> Array:
    return divisors(p.windows, p.count_include_pad, p.divisor_override, like)


def divisors(p: Pool2dProblem, count_include_pad: bool, divisor_override: int | None, like: Array) -> Array:
    """What each window's sum is divided by: (P,Q,1), or (1,1,1) if all are the same, in the dtype of sums.

    PyTorch's rule: the cells that the window has in the image and its stated padding (what ceil_mode adds beyond that
    never counts), or in the image alone without `count_include_pad`, or the override.
    """
    counts = _divisors(p, count_include_pad, divisor_override, accumulator(like.dtype).name)
    return namespace(like).asarray(counts)


@functools.lru_cache(maxsize=512)
def _divisors(p: Pool2dProblem, count_include_pad: bool, divisor_override: int | None, dtype: str) -> NDArray[Any]:
    if divisor_override is not None:
        return np.full((1, 1, 1), divisor_override, dtype)

    def cells(size: int, pad: int, kernel: int, stride: int, count: int) -> NDArray[np.int64]:
        start = np.arange(count) * stride - pad
        end = np.minimum(start + kernel, size + pad)
        if not count_include_pad:
            start, end = np.maximum(start, 0), np.minimum(end, size)
        return end - start

    rows = cells(p.H, p.padding[0], p.R, p.stride[0], p.P)
    columns = cells(p.W, p.padding[1], p.S, p.stride[1], p.Q)
    counts = np.outer(rows, columns)[..., None].astype(dtype)
    if (counts == counts[0, 0]).all():
        counts = counts[:1, :1]
    counts.flags.writeable = False  # it is given out again
    return counts

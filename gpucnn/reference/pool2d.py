"""Max and average pooling; x and dx (N,H,W,C), y and dy (N,P,Q,C)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpucnn.backend import Array, accumulator, empty, namespace, workspace, zeros
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
    winners[...] = _first_taps(p, x)

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


def _first_taps(p: Pool2dProblem, like: Array) -> Array:
    """The number (P,Q,1) of each window's first tap inside the image: what wins if all of its cells are -inf."""
    row = -(-np.maximum(0, p.padding[0] - np.arange(p.P) * p.stride[0]) // p.dilation[0])
    column = -(-np.maximum(0, p.padding[1] - np.arange(p.Q) * p.stride[1]) // p.dilation[1])
    return namespace(like).asarray((row[:, None] * p.S + column)[..., None])


def max_indices(p: Pool2dProblem, winners: Array) -> Array:
    """PyTorch's indices: for each output the flat position h * W + w of its maximum in the image, int64 (N,P,Q,C).

    -1 where the window has no cell in the image: dilation can step over a small one.
    """
    xp = namespace(winners)
    tap_number = winners.astype(np.int64)
    h = (xp.arange(p.P) * p.stride[0] - p.padding[0])[:, None, None] + tap_number // p.S * p.dilation[0]
    w = (xp.arange(p.Q) * p.stride[1] - p.padding[1])[:, None] + tap_number % p.S * p.dilation[1]
    return xp.where((h < p.H) & (w < p.W), h * p.W + w, -1)


def max_dgrad(p: Pool2dProblem, dy: Array, winners: Array) -> Array:
    """dx: each window's gradient goes to its winner."""
    work = accumulator(dy.dtype)
    apart = p.stride[0] >= p.R and p.stride[1] >= p.S and p.dilation == (1, 1)

    def scatter(full: Array, block: slice) -> None:
        gradient = dy[block].astype(work, copy=False)
        for index in range(p.R * p.S):
            target = tap(full, p, *divmod(index, p.S))
            share = select(gradient, winners[block] == index)
            if apart:
                target[...] = share
            else:
                target += share

    return _scattered(p, dy, scatter)


def average_fprop(p: Pool2dProblem, x: Array, divisors: Array) -> Array:
    """y: each window's sum over divisors (P,Q,1)."""
    y = empty((p.N, p.P, p.Q, p.C), x.dtype, x)

    def run(block: slice) -> None:
        images = padded(x[block], p)
        total = zeros((len(images), p.P, p.Q, p.C), accumulator(x.dtype), x)
        for _, _, cells in taps(images, p):
            total += cells
        total /= divisors
        y[block] = total

    _for_each_block(p, x, run)
    return y


def average_dgrad(p: Pool2dProblem, dy: Array, divisors: Array) -> Array:
    """dx: each window's gradient over its divisor, given to all of its cells."""
    work = accumulator(dy.dtype)

    def scatter(full: Array, block: slice) -> None:
        share = dy[block].astype(work, copy=False) / divisors
        for _, _, target in taps(full, p):
            target += share

    return _scattered(p, dy, scatter)


def _scattered(p: Pool2dProblem, dy: Array, scatter: Callable[[Array, slice], None]) -> Array:
    """dx (N,H,W,C): for each block of images, what scatter(padded zeros, block) leaves inside the padding."""
    dx = empty((p.N, p.H, p.W, p.C), dy.dtype, dy)
    (top, left) = p.padding

    def run(block: slice) -> None:
        full = padded_zeros(p, block.stop - block.start, accumulator(dy.dtype), dy)
        scatter(full, block)
        dx[block] = full[:, top : top + p.H, left : left + p.W]

    _for_each_block(p, dy, run)
    return dx


def _for_each_block(p: Pool2dProblem, like: Array, run: Callable[[slice], None]) -> None:
    image_bytes = (p.H * p.W + 2 * p.P * p.Q) * p.C * int(like.itemsize)
    for_each(run, blocks(p.N, image_bytes), like, share=is_large(p.N * image_bytes))


def divisors(p: Pool2dProblem, count_include_pad: bool, divisor_override: int | None, like: Array) -> Array:
    """What each window's sum is divided by: (P,Q,1), in the dtype that sums are kept in.

    PyTorch's rule: the cells that the window has in the image and its stated padding (what ceil_mode adds beyond that
    never counts), or in the image alone without `count_include_pad`, or the override.
    """
    xp = namespace(like)
    work = accumulator(like.dtype)
    if divisor_override is not None:
        return xp.full((p.P, p.Q, 1), divisor_override, work)

    def cells(size: int, pad: int, kernel: int, stride: int, count: int) -> Array:
        start = np.arange(count) * stride - pad
        end = np.minimum(start + kernel, size + pad)
        if not count_include_pad:
            start, end = np.maximum(start, 0), np.minimum(end, size)
        return end - start

    rows = cells(p.H, p.padding[0], p.R, p.stride[0], p.P)
    columns = cells(p.W, p.padding[1], p.S, p.stride[1], p.Q)
    return xp.asarray(np.outer(rows, columns)[..., None].astype(work))

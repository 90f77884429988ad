"""Max and average pooling; x and dx (N,H,W,C), y and dy (N,P,Q,C)."""

from __future__ import annotations

import numpy as np

from gpucnn.backend import Array, accumulator, empty, namespace, zeros
from gpucnn.problem import Pool2dProblem
from gpucnn.reference.common import blocks, padded, select, tap, taps


def max_fprop(p: Pool2dProblem, x: Array) -> Array:
    """y: each window's maximum; a NaN in it wins."""
    xp = namespace(x)
    y: Array | None = None
    for _, _, cells in taps(padded(x, p, -np.inf), p):
        y = cells.copy() if y is None else xp.maximum(y, cells, out=y)
    return y


def max_fprop_winners(p: Pool2dProblem, x: Array) -> tuple[Array, Array]:
    """(y, winners): winners (N,P,Q,C) are tap numbers r * S + s, the first of equal maxima, the last NaN."""
    xp = namespace(x)
    count = p.R * p.S
    number = np.uint8 if count <= 256 else np.int32
    y = empty((p.N, p.P, p.Q, p.C), x.dtype, x)
    winners = empty(y.shape, number, x)
    winners[...] = _first_taps(p, x)
    for block in blocks(p.N, count * p.P * p.Q * p.C * x.itemsize):
        source = padded(x[block], p, -np.inf)
        best = y[block]
        best[...] = tap(source, p, 0, 0)
        cells = empty(best.shape, x.dtype, x)
        for index, (_, _, view) in enumerate(taps(source, p)):
            if index:
                cells[...] = view  # strided once, so that the comparisons run over plain memory
                better = (cells > best) | (cells != cells)
                xp.maximum(best, cells, out=best)
                mine = winners[block]
                xp.maximum(mine, xp.multiply(better, number(index), dtype=number), out=mine)
    return y, winners


def _first_taps(p: Pool2dProblem, like: Array) -> Array:
    """The number (P,Q,1) of each window's first tap inside the image: what wins if all of its cells are -inf."""
    row = -(-np.maximum(0, p.padding[0] - np.arange(p.P) * p.stride[0]) // p.dilation[0])
    column = -(-np.maximum(0, p.padding[1] - np.arange(p.Q) * p.stride[1]) // p.dilation[1])
    return namespace(like).asarray((row[:, None] * p.S + column)[..., None])


def max_indices(p: Pool2dProblem, winners: Array) -> Array:
    """PyTorch's indices: for each output the flat position h * W + w of its maximum in the image, int64 (N,P,Q,C)."""
    xp = namespace(winners)
    tap_number = winners.astype(np.int64)
    h = (xp.arange(p.P) * p.stride[0] - p.padding[0])[:, None, None] + tap_number // p.S * p.dilation[0]
    w = (xp.arange(p.Q) * p.stride[1] - p.padding[1])[:, None] + tap_number % p.S * p.dilation[1]
    return h * p.W + w


def max_dgrad(p: Pool2dProblem, dy: Array, winners: Array) -> Array:
    """dx: each window's gradient goes to its winner."""
    work = accumulator(dy.dtype)
    top, left = p.padding
    below, right = p.padding_after
    full = zeros((p.N, top + p.H + below, left + p.W + right, p.C), work, dy)
    apart = p.stride[0] >= p.R and p.stride[1] >= p.S and p.dilation == (1, 1)
    gradient = dy.astype(work, copy=False)
    for index in range(p.R * p.S):
        target = tap(full, p, index // p.S, index % p.S)
        share = select(gradient, winners == index)
        if apart:
            target[...] = share
        else:
            target += share
    return _inside(p, full, dy)


def average_fprop(p: Pool2dProblem, x: Array, divisors: Array) -> Array:
    """y: each window's sum over divisors (P,Q,1)."""
    total = zeros((p.N, p.P, p.Q, p.C), accumulator(x.dtype), x)
    for _, _, cells in taps(padded(x, p), p):
        total += cells
    total /= divisors
    return total.astype(x.dtype, copy=False)


def average_dgrad(p: Pool2dProblem, dy: Array, divisors: Array) -> Array:
    """dx: each window's gradient over its divisor, given to all of its cells."""
    work = accumulator(dy.dtype)
    top, left = p.padding
    below, right = p.padding_after
    full = zeros((p.N, top + p.H + below, left + p.W + right, p.C), work, dy)
    share = dy.astype(work, copy=False) / divisors
    for _, _, target in taps(full, p):
        target += share
    return _inside(p, full, dy)


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


def _inside(p: Pool2dProblem, full: Array, like: Array) -> Array:
    (top, left) = p.padding
    inside = full[:, top : top + p.H, left : left + p.W]
    return namespace(like).ascontiguousarray(inside).astype(like.dtype, copy=False)

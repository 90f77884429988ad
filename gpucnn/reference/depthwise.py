"""Depthwise convolution, each channel alone with its K/C filters, as sums of products along rows of channels.

x (N,H,W,C), w (K,R,S,1), y and dy (N,P,Q,K). A matrix product would multiply mostly zeros, and adding up taps one by
one passes over memory twice a tap; a sum of products over a view of the windows multiplies and adds in one pass, in 0.2
to 0.3 ns a product on one core.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gpucnn.backend import Array, accumulator, empty, namespace, zeros
from gpucnn.problem import Conv2dProblem
from gpucnn.reference.common import add_channels, add_up, block_bytes, is_large, rectified, tiles
from gpucnn.reference.parallel import for_each
from gpucnn.reference.windows import Tile, covered, phases, tile_blocks, windows

_LANES = 8  # partial sums of a weight gradient, whatever the number of threads
_WIDE = 256  # channels from which on a pixel is as good a run of memory as a row of pixels
_COST = 16  # of a product here, in multiply-adds of a matrix product


def depthwise_only(p: Conv2dProblem) -> str | None:
    return None if p.groups == p.C > 1 else f"needs groups=C of 2 or more, got groups={p.groups} for C={p.C}"


def fprop(p: Conv2dProblem, x: Array, w: Array, bias: Array | None, relu: bool = False) -> Array:
    """y (N,P,Q,K). `relu`: max(y, 0)."""
    y = empty((p.N, p.P, p.Q, p.K), x.dtype, x)
    work = accumulator(x.dtype)
    offsets = None if bias is None else bias.astype(work, copy=False)
    _correlate(_single(p), _repeated(p, x), _by_tap(w, work), offsets, y)
    return rectified(y) if relu else y


def dgrad(p: Conv2dProblem, dy: Array, w: Array) -> Array:
    """dx (N,H,W,C): phase by phase of the stride, dy convolved with the taps that meet it."""
    work, multiplier = accumulator(dy.dtype), p.K // p.C
    dx = empty((p.N, p.H, p.W, p.C), dy.dtype, dy)
    filters = _by_tap(w, work)
    for phase in phases(_single(p)):
        target = dx[:, phase.rows, phase.columns]
        if phase.problem is None:
            target[...] = 0
        elif multiplier == 1:
            _correlate(phase.problem, dy, filters[phase.taps], None, target)
        else:
            shares = empty((*target.shape[:3], p.K), work, dy)
            _correlate(phase.problem, dy, filters[phase.taps], None, shares)
            target[...] = shares.reshape(*target.shape, multiplier).sum(axis=-1)
    return dx


def wgrad(p: Conv2dProblem, x: Array, dy: Array) -> Array:
    """dw (K,R,S,1): what each tap met times dy, summed over images and positions.

    Tiles are dealt out to at most _LANES sums, and these are added in order: the same bits whoever computes them.
    """
    work = accumulator(x.dtype)
    p, x = _single(p), _repeated(p, x)
    todo = _tiles(p, work)
    lanes = max(1, min(_LANES, len(todo)))
    sums = zeros((lanes, p.R * p.S * p.K), work, x)

    def run(lane: int) -> None:
        for tile in todo[lane::lanes]:
            gradient = dy[tile[:2]].astype(work, copy=False)
            view = windows(covered(p, x, tile, work), p, gradient.shape[1])
            # A sum for each row of windows first: one running sum over a tile would lose digits.
            products = namespace(x).einsum("npqrsk,npqk->nprsk", view, gradient)
            sums[lane] += add_up(products.reshape(-1, p.R * p.S * p.K))

    for_each(run, range(lanes), x, share=_is_large(p))
    return sums.sum(axis=0).reshape(p.R, p.S, p.K).transpose(2, 0, 1)[..., None].astype(x.dtype, order="C")


# ----------------------------------------------------------------------------------------------------------- helpers


def _correlate(p: Conv2dProblem, x: Array, filters: Array, offsets: Array | None, y: Array) -> None:
    """y (N,P,Q,K), in any memory, from x (N,H,W,K) and filters (R,S,K)."""
    xp = namespace(x)
    work = filters.dtype
    in_rows = p.stride[1] == 1 and p.K < _WIDE
    if in_rows:
        filters = xp.tile(filters[:, :, None], (1, 1, p.Q, 1)).reshape(p.R, p.S, p.Q * p.K)
    in_place = y.dtype == work and y.flags.c_contiguous

    def run(tile: Tile) -> None:
        view = windows(covered(p, x, tile, work), p, tile[1].stop - tile[1].start)
        n, P = view.shape[:2]
        total = y[tile[:2]] if in_place else empty((n, P, p.Q, p.K), work, x)
        if in_rows:  # neighbouring windows are neighbours in memory: Q*K numbers in one run
            *outer, _, h, w, c = view.strides
            view = xp.lib.stride_tricks.as_strided(view, (n, P, p.R, p.S, p.Q * p.K), (*outer, h, w, c))
            _sum_products("nprsk,rsk->npk", view, filters, total.reshape(n, P, p.Q * p.K))
        else:
            _sum_products("npqrsk,rsk->npqk", view, filters, total)
        if offsets is not None:
            add_channels(total, offsets)
        if not in_place:
            y[tile[:2]] = total

    for_each(run, _tiles(p, work), x, share=_is_large(p))


def _sum_products(subscripts: str, a: Array, b: Array, out: Array) -> None:
    if isinstance(out, np.ndarray):
        np.einsum(subscripts, a, b, out=out)
    else:
        out[...] = namespace(out).einsum(subscripts, a, b)  # cupy's takes no `out`


def _single(p: Conv2dProblem) -> Conv2dProblem:
    """p with each channel repeated for each of its filters."""
    return p if p.C == p.K else replace(p, C=p.K, groups=p.K)


def _repeated(p: Conv2dProblem, x: Array) -> Array:
    return x if p.C == p.K else namespace(x).repeat(x, p.K // p.C, axis=3)


def _by_tap(w: Array, work: np.dtype[Any]) -> Array:
    """w (K,R,S,1) as (R,S,K)."""
    return namespace(w).ascontiguousarray(w[..., 0].transpose(1, 2, 0).astype(work, copy=False))


def _tiles(p: Conv2dProblem, work: np.dtype[Any]) -> list[Tile]:
    row_bytes = (p.stride[0] * p.W + 2 * p.Q) * p.K * work.itemsize
    limit = block_bytes(p.N * p.P * row_bytes) * tile_blocks(_is_large(p))
    places = tiles(p.N, p.P, row_bytes, limit)
    return [(*place, slice(0, 1)) for place in places]


def _is_large(p: Conv2dProblem) -> bool:
    return is_large(0, _COST * p.N * p.P * p.Q * p.K * p.R * p.S)

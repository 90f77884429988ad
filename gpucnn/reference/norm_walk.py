"""How normalisation goes through arrays (B,M,C): in tiles that stay in the cache; and the sums that it takes there."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from gpucnn.backend import Array, accumulator, empty, namespace, workspace
from gpucnn.reference import common
from gpucnn.reference.common import select
from gpucnn.reference.norm_problem import NormProblem
from gpucnn.reference.parallel import for_each

_SUMMED_NUMBERS = 512  # in a row that sums are taken over: below, the cost of a row shows; above, that of the total
_SAMPLED = 32  # of so many rows one is looked at to guess a mean

Tile = tuple[slice, slice, int]
"""Sets, rows of them, and the number of these rows' band."""


class Walk:
    """How the numbers of a problem are gone through: in tiles of (B,R,W), a row being W = T*C adjacent numbers.

    For one set a row fills a block; for many it is short, and one tile may hold several sets.
    """

    def __init__(self, p: NormProblem, like: Array, held: int) -> None:
        """`held`: how many blocks, coefficients among them, should stay in the cache together."""
        self.p, self.like, self.work = p, like, accumulator(like.dtype)
        limit = max(1, 2 * common.BLOCK_BYTES // (held * self.work.itemsize))
        channels = max(1, p.C)
        self.T = _divisor(p.M, (limit if p.B == 1 else min(limit, _SUMMED_NUMBERS)) // channels)
        self.R = p.M // self.T
        self.W = self.T * p.C
        self.summed = _divisor(self.T, _SUMMED_NUMBERS // channels)
        numbers = self.R * self.W
        if numbers <= limit:
            self.tiles = [(sets, slice(0, self.R), 0) for sets in common.blocks(p.B, numbers, limit)]
            self.bands = 1
        else:
            bands = common.blocks(self.R, self.W, limit)
            self.tiles = [(slice(b, b + 1), rows, n) for b in range(p.B) for n, rows in enumerate(bands)]
            self.bands = len(bands)

    def rows(self, array: Array) -> Array:
        """(B,M,C) as (B,R,W)."""
        return array.reshape(self.p.B, self.R, self.W)

    def short_rows(self, array: Array) -> Array:
        """(b,n,anything) as rows of the length that sums are taken over."""
        width = self.summed * self.p.C
        return array.reshape(len(array), math.prod(array.shape[1:]) // max(1, width), width)

    def repeated(self, coefficients: Array) -> Array:
        """(B,C) as (B,1,W), in the dtype that is computed in."""
        p = self.p
        repeated = empty((p.B, 1, self.W), self.work, coefficients)
        repeated.reshape(p.B, self.T, p.C)[...] = coefficients[:, None]
        return repeated

    def each_tile(self, run: Callable[[Tile], None]) -> None:
        if len(self.tiles) == 1:
            run(self.tiles[0])
        else:
            for_each(run, self.tiles, self.like, share=common.is_large(4 * self.like.nbytes))


@functools.lru_cache(maxsize=4096)
def _divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` up to `limit`, at least 1."""
    return next((d for d in range(min(number, limit), 1, -1) if number % d == 0), 1)


def guess(walk: Walk, x: Array) -> Array:
    """About the mean of each channel of each set, (B,C)."""
    sample = walk.short_rows(x)[:, ::_SAMPLED]
    total = sample.sum(axis=1, dtype=walk.work).reshape(walk.p.B, walk.summed, walk.p.C).sum(axis=1)
    return total / walk.work.type(max(1, sample.shape[1] * walk.summed))


def _open(p: NormProblem, dy: Array, y: Array, passed: Array) -> None:
    """passed = dy where y was not cut. As of F.relu a NaN in y lets dy pass, as of F.relu6 it does not."""
    if p.limit == math.inf:
        select(dy, y != 0, out=passed)
    else:
        inside = y > 0
        inside &= y < p.limit
        select(dy, inside, out=passed)


def let_through(walk: Walk, dy: Array, y: Array, passed: Array) -> None:
    arrays = [walk.rows(array) for array in (dy, y, passed)]
    walk.each_tile(lambda tile: _open(walk.p, *(array[tile[0], tile[1]] for array in arrays)))


def sums(
    walk: Walk, values: Array | None, x: Array | None, centre: Array, cut: tuple[Array, Array] | None = None
) -> Array:
    """Over the positions of each set the sums of values and, if x is given, of values * (x - centre): (2 or 1,B,C).

    Without values those of x - centre and of its square. `cut`: y, of which values are the gradient, and where to
    write what gets through of them, which is then summed.
    """
    like = walk.like
    xp = namespace(like)
    B, C = walk.p.B, walk.p.C
    parts = empty((1 if x is None else 2, B, walk.bands, walk.summed * C), walk.work, like)
    centres = None if x is None else walk.repeated(centre)
    every: list[Array] = [None if array is None else walk.rows(array) for array in (values, x, *(cut or (None, None)))]
    values, x, y, passed = every

    def run(tile: Tile) -> None:
        sets, rows, band = tile
        if passed is not None:
            _open(walk.p, *(array[sets, rows] for array in (values, y, passed)))
        summed = values if passed is None else passed
        factor: Array = None if summed is None else walk.short_rows(summed[sets, rows])
        if x is not None and centres is not None:
            away = workspace(x[sets, rows].shape, walk.work, like)
            xp.subtract(x[sets, rows], centres[sets], out=away)
            away = walk.short_rows(away)
            factor = away if values is None else factor
            parts[1, sets, band] = xp.einsum("brw,brw->bw", factor, away)
        parts[0, sets, band] = factor.sum(axis=1, dtype=walk.work)

    walk.each_tile(run)
    totals = parts.sum(axis=2, dtype=np.float64)
    return totals.reshape(len(parts), B, walk.summed, C).sum(axis=2)

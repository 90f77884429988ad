"""Batch, instance and group normalisation: arrays (B,M,C), statistics and coefficients (B,C) in float64.

A problem has B sets of M positions with C channels each, and its statistics are taken over the positions of a set and
over each of `groups` runs of adjacent channels. Batch norm has one set, of all images; instance and group norm have a
set for each image.

Memory decides the speed: the forward pass reads x twice and writes y, the backward pass reads x and dy twice and
writes dx. What else happens to a number happens while its block is in the cache. Coefficients are repeated to the
length of a block, since numpy takes twice as long over many short rows as over one long one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gpucnn.backend import Array, accumulator, empty, namespace, workspace
from gpucnn.reference import common
from gpucnn.reference.parallel import for_each

_SUMMED_NUMBERS = 512  # in a row that sums are taken over: below, the cost of a row shows; above, that of the total
_SAMPLED = 32  # of so many rows one is looked at to guess a mean

Tile = tuple[slice, slice, int]
"""Sets, rows of them, and the number of these rows' band."""


@dataclass(frozen=True)
class NormProblem:
    """Statistics over the M positions, and C/groups adjacent channels, of each of B sets."""

    B: int
    M: int
    C: int
    groups: int


def moments(p: NormProblem, x: Array) -> tuple[Array, Array]:
    """Mean and biased variance that belong to each channel of each set: those of its group.

    Sums run over differences from a guess of the mean, taken from a sample, so that they lose nothing where the mean
    is large beside the deviation. A sample of one value in s, however unlucky, is at most sqrt(s) deviations off.
    """
    walk = _Walk(p, x, held=3)
    guess = _guess(walk, x)
    total, squares = _sums(walk, None, x, guess)
    offset = total / max(1, p.M)
    mean = guess + offset
    var = squares / max(1, p.M) - offset * offset
    if p.groups != p.C:
        centre = group_mean(p, mean)
        var = group_mean(p, var + (mean - centre) ** 2)
        mean = centre
    return mean, var


@np.errstate(all="ignore")
def moved(p: NormProblem, running: tuple[Array, Array], mean: Array, var: Array, momentum: float) -> None:
    """Moves running mean and variance (C,), in place, by `momentum` towards those of the sets' average set.

    The variance that they keep is the unbiased one, Bessel's M / (M - 1) of the other.
    """
    for kept, seen in zip(running, (mean, var * (p.M / max(1, p.M - 1))), strict=True):
        kept[...] = (1.0 - momentum) * kept.astype(np.float64) + momentum * seen.mean(axis=0)


@np.errstate(all="ignore")
def coefficients(
    mean: Array, var: Array, eps: float, weight: Array | None, bias: Array | None
) -> tuple[Array, Array, Array | None]:
    """(1 / deviation, scale, shift) of y = (x - mean) * scale + shift; shift None for 0."""
    inverse = 1.0 / namespace(var).sqrt(var + eps)
    scale = inverse if weight is None else inverse * weight.astype(np.float64)
    return inverse, scale, None if bias is None else bias.astype(np.float64)[None]


@np.errstate(all="ignore")
def folded(mean: Array, scale: Array, shift: Array | None) -> Array:
    """The shift of y = x * scale + shift: one multiplication and one addition for each element."""
    return -mean * scale if shift is None else shift - mean * scale


@np.errstate(all="ignore")
def gradient_coefficients(
    p: NormProblem, inverse: Array, weight: Array | None, total: Array, products: Array
) -> tuple[Array, Array, Array]:
    """(by_dy, by_x, offset) of `dgrad`, given the `gradient_sums`.

    With g = dy * weight and z = (x - mean) * inverse:  dx = inverse * (g - mean(g) - z * mean(g * z)), the means being
    those over what shares a statistic (Ioffe and Szegedy 2015, with the chain rule applied to the end).
    """
    if weight is not None:
        total, products = total * weight, products * weight
    by_x = -group_mean(p, products) * (inverse**3 / max(1, p.M))
    offset = -group_mean(p, total) * (inverse / max(1, p.M))
    return inverse if weight is None else inverse * weight, by_x, offset


def group_mean(p: NormProblem, values: Array) -> Array:
    """values (B,C) averaged over the channels of each group, for each channel."""
    if p.groups == p.C:
        return values
    each = p.C // p.groups
    means = values.reshape(p.B, p.groups, each).sum(axis=2) / max(1, each)
    return namespace(values).repeat(means, each, axis=1)


def scale_shift(p: NormProblem, x: Array, mean: Array | None, scale: Array, shift: Array | None) -> Array:
    """y = (x - mean) * scale + shift; mean or shift may be None for 0."""
    xp = namespace(x)
    walk = _Walk(p, x, held=5)
    y = empty(x.shape, x.dtype, x)
    source, result = walk.rows(x), walk.rows(y)
    centre = None
    if mean is not None:
        centre = mean.astype(walk.work)
        rest = (centre - mean) * scale  # what rounding the mean took from it
        shift = rest if shift is None else rest + shift
        centre = walk.repeated(centre)
    factor = walk.repeated(scale)
    term = None if shift is None else walk.repeated(shift)

    def run(tile: Tile) -> None:
        sets, rows, _ = tile
        target = result[sets, rows]
        out = target if target.dtype == walk.work else workspace(target.shape, walk.work, x)
        if centre is None:
            xp.multiply(source[sets, rows], factor[sets], out=out)
        else:
            xp.subtract(source[sets, rows], centre[sets], out=out)
            out *= factor[sets]
        if term is not None:
            out += term[sets]
        if out is not target:
            target[...] = out

    walk.each_tile(run)
    return y


def gradient_sums(p: NormProblem, dy: Array, x: Array | None, mean: Array) -> tuple[Array, Array | None]:
    """For each channel of each set, summed over positions: dy, and dy * (x - mean) unless x is None."""
    walk = _Walk(p, dy, held=4)
    if x is None:
        return _sums(walk, dy, None, None)[0], None
    centre = mean.astype(walk.work)
    total, products = _sums(walk, dy, x, centre)
    return total, products + (centre - mean) * total


def dgrad(p: NormProblem, dy: Array, x: Array, mean: Array, by_dy: Array, by_x: Array, offset: Array) -> Array:
    """dx = dy * by_dy + (x - mean) * by_x + offset."""
    xp = namespace(x)
    walk = _Walk(p, x, held=7)
    dx = empty(x.shape, x.dtype, x)
    source, gradient, result = walk.rows(x), walk.rows(dy), walk.rows(dx)
    rounded = mean.astype(walk.work)
    term = walk.repeated(offset + (rounded - mean) * by_x)
    centre, by_dy, by_x = walk.repeated(rounded), walk.repeated(by_dy), walk.repeated(by_x)

    def run(tile: Tile) -> None:
        sets, rows, _ = tile
        target = result[sets, rows]
        both = workspace((2, *target.shape), walk.work, x)
        out = target if target.dtype == walk.work else both[1]
        part = both[0]
        xp.subtract(source[sets, rows], centre[sets], out=part)
        part *= by_x[sets]
        part += term[sets]
        xp.multiply(gradient[sets, rows], by_dy[sets], out=out)
        out += part
        if out is not target:
            target[...] = out

    walk.each_tile(run)
    return dx


class _Walk:
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


def _guess(walk: _Walk, x: Array) -> Array:
    """About the mean of each channel of each set, (B,C)."""
    sample = walk.short_rows(x)[:, ::_SAMPLED]
    total = sample.sum(axis=1, dtype=walk.work).reshape(walk.p.B, walk.summed, walk.p.C).sum(axis=1)
    return total / walk.work.type(max(1, sample.shape[1] * walk.summed))


def _sums(walk: _Walk, values: Array | None, x: Array | None, centre: Array) -> Array:
    """Over the positions of each set the sums of values and, if x is given, of values * (x - centre): (2 or 1,B,C).

    Without values those of x - centre and of its square.
    """
    like = walk.like
    xp = namespace(like)
    B, C = walk.p.B, walk.p.C
    sums = empty((1 if x is None else 2, B, walk.bands, walk.summed * C), walk.work, like)
    centres = None if x is None else walk.repeated(centre)
    values, x = (None if array is None else walk.rows(array) for array in (values, x))

    def run(tile: Tile) -> None:
        sets, rows, band = tile
        factor: Array = None if values is None else walk.short_rows(values[sets, rows])
        if x is not None and centres is not None:
            away = workspace(x[sets, rows].shape, walk.work, like)
            xp.subtract(x[sets, rows], centres[sets], out=away)
            away = walk.short_rows(away)
            factor = away if values is None else factor
            sums[1, sets, band] = xp.einsum("brw,brw->bw", factor, away)
        sums[0, sets, band] = factor.sum(axis=1, dtype=walk.work)

    walk.each_tile(run)
    totals = sums.sum(axis=2, dtype=np.float64)
    return totals.reshape(len(sums), B, walk.summed, C).sum(axis=2)

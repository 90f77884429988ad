"""Batch, instance and group normalisation: arrays (B,M,C), statistics and coefficients (B,C) in float64.

A sum with a `residual` and a ReLU or ReLU6 behind the normalisation take part in its passes, forward and backward.

A problem has B sets of M positions with C channels each, and its statistics are taken over the positions of a set and
over each of `groups` runs of adjacent channels. Batch norm has one set, of all images; instance and group norm have a
set for each image.

Memory decides the speed: the forward pass reads x twice and writes y, the backward pass reads x and dy twice and
writes dx. What else happens to a number happens while its block is in the cache. Coefficients are repeated to the
length of a block, since numpy takes twice as long over many short rows as over one long one.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from gpucnn.backend import Array, empty, namespace, workspace
from gpucnn.reference.norm_problem import Moments, NormProblem, Wanted
from gpucnn.reference.norm_walk import Tile, Walk, guess, let_through, sums


def fprop(
    p: NormProblem,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running: tuple[Array, Array] | None,
    residual: Array | None,
    given: Moments | None = None,
) -> tuple[Array, Array, Array]:
    """(y, mean, 1 / deviation) of y = (x - mean) / deviation * weight + bias + residual, cut as `p.limit` says.

    weight, bias, running mean and variance: (C,); the latter two are moved in place unless there is no position.
    `given`: of a batch norm's x, which is then read for y alone.
    """
    if p.momentum is None:
        assert running is not None
        mean, var = (kept.astype(np.float64)[None] for kept in running)
    else:
        mean, var = moments(p, x) if given is None else merged(p, given)
        if running is not None and x.size:
            moved(p, running, mean, var, p.momentum)
    inverse, scale, shift = coefficients(mean, var, p.eps, weight, bias)
    if p.momentum is None:
        return scale_shift(p, x, None, scale, folded(mean, scale, shift), residual), mean, inverse
    return scale_shift(p, x, mean, scale, shift, residual), mean, inverse


def bprop(
    p: NormProblem,
    dy: Array,
    x: Array | None,
    y: Array | None,
    weight: Array | None,
    mean: Array,
    inverse: Array,
    wanted: Wanted,
) -> tuple[Array | None, Array | None, Array | None, Array | None]:
    """(dx, dweight, dbias, dresidual), each None where it is not wanted; (C,) in float64.

    x is needed for dweight and, with the sets' own statistics, for dx; y where `p.limit` has cut it, and dresidual,
    which is else dy itself, comes only then.
    """
    dx = dweight = dbias = None
    total: Array = None
    products: Array = None
    passed = dy
    if p.limit is not None:
        passed = empty(dy.shape, dy.dtype, dy)
    by_sums = wanted.weight or wanted.bias or (wanted.x and p.own_statistics)
    if by_sums:
        total, products = gradient_sums(p, dy, x, mean, y, passed)
    elif p.limit is not None:
        let_through(Walk(p, dy, held=3), dy, y, passed)
    if wanted.x:
        own = passed is not dy and not wanted.residual  # memory that dx may have
        if p.own_statistics:
            by_dy, by_x, offset = gradient_coefficients(p, inverse, weight, total, products)
            dx = dgrad(p, passed, x, mean, by_dy, by_x, offset, passed if own else None)
        else:
            by_dy = inverse if weight is None else inverse * weight
            dx = scale_shift(replace(p, limit=None), passed, None, by_dy, None)
    if wanted.weight:
        dweight = (products * inverse).sum(axis=0)
    if wanted.bias:
        dbias = total.sum(axis=0)
    return dx, dweight, dbias, passed if wanted.residual and p.limit is not None else None


def moments(p: NormProblem, x: Array) -> tuple[Array, Array]:
    """Mean and biased variance that belong to each channel of each set: those of its group.

    Sums run over differences from a guess of the mean, taken from a sample, so that they lose nothing where the mean
    is large beside the deviation. A sample of one value in s, however unlucky, is at most sqrt(s) deviations off.
    """
    walk = Walk(p, x, held=3)
    start = guess(walk, x)
    total, squares = sums(walk, None, x, start)
    offset = total / max(1, p.M)
    mean = start + offset
    var = squares / max(1, p.M) - offset * offset
    if p.groups != p.C:
        centre = group_mean(p, mean)
        var = group_mean(p, var + (mean - centre) ** 2)
        mean = centre
    return mean, var


@np.errstate(all="ignore")
def merged(p: NormProblem, given: Moments) -> tuple[Array, Array]:
    """Mean and biased variance (1,C) of a batch norm's x, of its splits'.

    The mean is taken of differences from the first split's: of one split alone it stays what it is.
    """
    xp, lines = namespace(given.partial), given.partial.astype(np.float64, copy=False)
    numbers = xp.minimum(given.rows, p.M - given.rows * xp.arange(given.splits))[:, None]
    means, squares = lines[:-1:2], lines[1::2]
    middle = means[0] + (numbers * (means - means[0])).sum(axis=0) / p.M
    var = (squares.sum(axis=0) + (numbers * (means - middle) ** 2).sum(axis=0)) / p.M
    return (middle + lines[-1])[None], var[None]


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


def scale_shift(
    p: NormProblem,
    x: Array,
    mean: Array | None,
    scale: Array,
    shift: Array | None,
    residual: Array | None = None,
) -> Array:
    """y = (x - mean) * scale + shift + residual, cut as `p.limit` says; mean, shift and residual may be None for 0."""
    xp = namespace(x)
    walk = Walk(p, x, held=5 if residual is None else 6)
    y = empty(x.shape, x.dtype, x)
    source, result = walk.rows(x), walk.rows(y)
    added = None if residual is None else walk.rows(residual)
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
        if added is not None:
            out += added[sets, rows]
        if p.limit is not None:
            xp.maximum(out, 0, out=out)
            if p.limit < math.inf:
                xp.minimum(out, p.limit, out=out)
        if out is not target:
            target[...] = out

    walk.each_tile(run)
    return y


def gradient_sums(
    p: NormProblem, dy: Array, x: Array | None, mean: Array, y: Array | None = None, passed: Array | None = None
) -> tuple[Array, Array | None]:
    """For each channel of each set, summed over positions: dy, and dy * (x - mean) unless x is None.

    Where `p.limit` has cut y, what gets through of dy is summed, and written to `passed`.
    """
    walk = Walk(p, dy, held=4 if y is None else 6)
    cut = None if p.limit is None else (y, passed)
    if x is None:
        return sums(walk, dy, None, None, cut)[0], None
    centre = mean.astype(walk.work)
    total, products = sums(walk, dy, x, centre, cut)
    return total, products + (centre - mean) * total


def dgrad(
    p: NormProblem,
    dy: Array,
    x: Array,
    mean: Array,
    by_dy: Array,
    by_x: Array,
    offset: Array,
    dx: Array | None = None,
) -> Array:
    """dx = dy * by_dy + (x - mean) * by_x + offset; dx may be given and be dy."""
    xp = namespace(x)
    walk = Walk(p, x, held=7)
    dx = empty(x.shape, x.dtype, x) if dx is None else dx
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

"""Sums, extrema, products and their like over axes, which stay with size 1.

`problem` is the tuple of axes, or has them as its field `axes`. Half precision is computed in float32.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from gpucnn.backend import Array, accumulator, empty, namespace
from gpucnn.reference.common import blocks, is_large
from gpucnn.reference.parallel import for_each

Axes = tuple[int, ...]

_LONG = 512  # terms of a running sum whose rounding errors begin to show
_SMALL = 1 << 14  # elements for which one call of numpy is quickest
_ROWS = 4096  # that are added up at a time across memory
_CHUNK = 1 << 18  # numbers that are added up at a time along memory
_PIECE_BYTES = 1 << 21  # what is worth a thread of its own


def sum_(axes: Axes, x: Array) -> Array:
    """In the dtype of x; integers and bools in 64 bits."""
    total = _total(axes, x)
    return total.astype(x.dtype, copy=False) if x.dtype.kind == "f" else total


def mean(axes: Axes, x: Array) -> Array:
    """NaN over no elements."""
    return _mean(axes, x).astype(x.dtype, copy=False)


def mean_grad(terms: int, dy: Array) -> Array:
    """What each of so many terms gets of dy."""
    return namespace(dy).asarray(dy / max(1, terms))  # numpy makes scalars of no axes


def _mean(axes: Axes, x: Array) -> Array:
    total = _total(axes, x)
    return total / total.dtype.type(_terms(axes, x))


def _terms(axes: Axes, x: Array) -> int:
    return math.prod([x.shape[axis] for axis in axes])


# ------------------------------------------------------------------------------------------------- accurate sums


def _total(axes: Axes, x: Array) -> Array:
    """The sum in the dtype that sums are kept in; for integers in 64 bits."""
    if x.dtype.kind != "f":
        return x.sum(axis=axes, keepdims=True)
    if not isinstance(x, np.ndarray) or x.size < _SMALL:
        return x.sum(axis=axes, keepdims=True, dtype=_sum_dtype(x, axes))
    if not x.flags.c_contiguous:
        return x.sum(axis=axes, keepdims=True, dtype=_sum_dtype(x, axes))
    kept = tuple([1 if axis in axes else size for axis, size in enumerate(x.shape)])
    # Last axes first: of what is left all but the first sum are short.
    sizes, summed = list(x.shape), [axis in axes for axis in range(x.ndim)]
    while any(summed):
        stop = len(summed) - summed[::-1].index(True)
        start = stop
        while start and summed[start - 1]:
            start -= 1
        x = _middle(x.reshape(math.prod(sizes[:start]), math.prod(sizes[start:stop]), math.prod(sizes[stop:])))
        sizes[start:stop], summed[start:stop] = [], []
    return x.astype(accumulator(x.dtype), copy=False).reshape(kept)


def _sum_dtype(x: Array, axes: Axes) -> np.dtype[Any]:
    """float64 for long sums of float32 across memory: there numpy keeps one running sum, elsewhere it adds pairwise."""
    if not isinstance(x, np.ndarray) or _terms(axes, x) < _LONG:
        return accumulator(x.dtype)
    fastest = min(range(x.ndim), key=lambda axis: (x.shape[axis] == 1, abs(x.strides[axis])))
    return accumulator(x.dtype) if fastest in axes and x.dtype.itemsize > 2 else np.dtype(np.float64)


def _middle(x: Array) -> Array:
    """x (A,R,B), C-contiguous, summed over its middle axis: (A,B).

    Cut into pieces whose sums are added up in turn: along memory numpy adds pairwise; across memory a product with
    ones is what the BLAS library does quickest, and its running sums are short.
    """
    A, R, B = x.shape
    work = accumulator(x.dtype)
    chunks = blocks(R, 1, _CHUNK if B == 1 else _ROWS)
    sums = empty((A, max(1, len(chunks)), B), work, x)
    if not chunks:
        sums[...] = 0
    rows = blocks(A, min(R, _CHUNK if B == 1 else _ROWS) * B * work.itemsize, _PIECE_BYTES)

    def run(piece: tuple[slice, int]) -> None:
        block, chunk = piece
        part = x[block, chunks[chunk]].astype(work, copy=False)
        if B == 1:
            sums[block, chunk, 0] = part[..., 0].sum(axis=1)
        else:
            sums[block, chunk] = np.matmul(np.ones(part.shape[1], work), part)

    for_each(run, [(block, chunk) for block in rows for chunk in range(len(chunks))], x, share=is_large(x.nbytes))
    return sums[:, 0] if sums.shape[1] == 1 else _middle(sums)


# ------------------------------------------------------------------------------------------- variance and norms


class VarProblem(NamedTuple):
    """The divisor of the squared deviations is the number of elements less `correction`; with `root` its root."""

    axes: Axes
    correction: float
    root: bool

    def divisor(self, x: Array) -> float:
        return max(0.0, _terms(self.axes, x) - self.correction)


def var(p: VarProblem, x: Array) -> Array:
    """Squared deviations from the mean, in two passes, so that a mean far from 0 costs no digits."""
    centred = _centred(p, x)
    squares = _total(p.axes, centred * centred)
    variance = squares / squares.dtype.type(p.divisor(x))
    return (namespace(x).sqrt(variance) if p.root else variance).astype(x.dtype, copy=False)


def _centred(p: VarProblem, x: Array) -> Array:
    work = x.astype(accumulator(x.dtype), copy=False)
    return work - _mean(p.axes, work)


def var_grad(p: VarProblem, dy: Array, x: Array, y: Array) -> Array:
    """dx = dy * 2 (x - mean) / divisor, and half of that over y with `root`: 0 where y is 0."""
    centred = _centred(p, x)
    scale = dy.astype(centred.dtype, copy=False) / centred.dtype.type(p.divisor(x))
    scale = _where_not(y == 0, scale / y) if p.root else scale * 2
    return (centred * scale).astype(x.dtype, copy=False)


class NormProblem(NamedTuple):
    """(sum |x| ** p) ** (1 / p); the number of elements that are not 0 for p = 0."""

    axes: Axes
    p: float


def norm(problem: NormProblem, x: Array) -> Array:
    """For finite p. Those of infinite p are extrema."""
    xp, p = namespace(x), problem.p
    if p == 0:
        return (x != 0).sum(axis=problem.axes, keepdims=True).astype(x.dtype)
    size = xp.abs(x.astype(accumulator(x.dtype), copy=False))
    if p == 2:
        total = xp.sqrt(_total(problem.axes, size * size))
    else:
        total = _total(problem.axes, size if p == 1 else size**p)
        total = total if p == 1 else total ** (1 / p)
    return total.astype(x.dtype, copy=False)


def norm_grad(problem: NormProblem, dy: Array, x: Array, y: Array) -> Array:
    """dx = dy * sign(x) * (|x| / y) ** (p - 1), and 0 where the norm y is 0."""
    xp, p = namespace(x), problem.p
    if p == 0:
        return xp.zeros_like(x)
    work = accumulator(x.dtype)
    wide, dy, y = (array.astype(work, copy=False) for array in (x, dy, y))
    if p == 1:
        return (xp.sign(wide) * dy).astype(x.dtype, copy=False)
    if p == 2:
        return (wide * _where_not(y == 0, dy / y)).astype(x.dtype, copy=False)
    slope = dy * xp.sign(wide) * (xp.abs(wide) / y) ** (p - 1)
    return _where_not((y == 0) | ((x == 0) & (p < 1)), slope).astype(x.dtype, copy=False)


def _where_not(mask: Array, values: Array) -> Array:
    """`values`, but 0 where `mask` is true."""
    return namespace(values).where(mask, values.dtype.type(0), values)


# --------------------------------------------------------------------------------------- extrema, products, logs


def amax(axes: Axes, x: Array) -> Array:
    """NaN where there is one."""
    return x.max(axis=axes, keepdims=True)


def amin(axes: Axes, x: Array) -> Array:
    """NaN where there is one."""
    return x.min(axis=axes, keepdims=True)


def extremum_grad(axes: Axes, dy: Array, x: Array, y: Array) -> Array:
    """dy in equal parts to all elements that are equal to y; NaN is equal to NaN."""
    chosen = (x == y) | ((x != x) & (y != y))
    share = dy / chosen.sum(axis=axes, keepdims=True).astype(accumulator(dy.dtype))
    return (chosen * share).astype(dy.dtype, copy=False)


def prod(axes: Axes, x: Array) -> Array:
    """In the dtype of x; integers and bools in 64 bits."""
    if x.dtype.kind != "f":
        return x.prod(axis=axes, keepdims=True)
    return x.prod(axis=axes, keepdims=True, dtype=accumulator(x.dtype)).astype(x.dtype, copy=False)


def prod_grad(axes: Axes, dy: Array, x: Array, y: Array) -> Array:
    """dy times the product of all others: of those before and those after, so that zeros do no harm."""
    xp = namespace(x)
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    order = [*kept, *axes]
    laid_out = x.transpose(order)
    rows = laid_out.reshape(*[x.shape[axis] for axis in kept], _terms(axes, x)).astype(accumulator(x.dtype))
    before, after = xp.ones_like(rows), xp.ones_like(rows)
    before[..., 1:] = xp.cumprod(rows[..., :-1], axis=-1)
    after[..., :-1] = xp.cumprod(rows[..., :0:-1], axis=-1)[..., ::-1]
    others = (before * after).reshape(laid_out.shape).transpose(np.argsort(order).tolist())
    return (dy * others).astype(x.dtype, copy=False)


def logsumexp(axes: Axes, x: Array) -> Array:
    """log(sum(exp(x))), from the distances to the maximum, so that nothing overflows."""
    xp = namespace(x)
    work = x.astype(accumulator(x.dtype), copy=False)
    if not _terms(axes, x):
        return xp.log(_total(axes, work)).astype(x.dtype, copy=False)
    top = work.max(axis=axes, keepdims=True)
    top = xp.where(xp.isfinite(top), top, top.dtype.type(0))
    return (xp.log(_total(axes, xp.exp(work - top))) + top).astype(x.dtype, copy=False)


def logsumexp_grad(axes: Axes, dy: Array, x: Array, y: Array) -> Array:
    """dx = dy * exp(x - y): the softmax; 0 where all x are -infinity."""
    xp = namespace(x)
    work = accumulator(x.dtype)
    finite = xp.where(y == -np.inf, y.dtype.type(0), y).astype(work, copy=False)
    return (dy * xp.exp(x.astype(work, copy=False) - finite)).astype(x.dtype, copy=False)

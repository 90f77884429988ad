"""Weighted sums along one axis of images: interpolation and uneven average pooling, forward and backward.

Each of these is, along each axis, a sparse matrix; its gradient is the transposed matrix. The entries of a row are
added in rounds: the first entry of every row, then the second of those rows that have one, and so on. Sums so keep one
order, and no round adds to an element twice, so that a GPU gives the same bits in every run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.backend import Array, accumulator, empty, namespace, workspace
from gpucnn.reference.common import is_large, tiles
from gpucnn.reference.parallel import for_each

_FEW = 512
"""Up to so many numbers beside each other share a weight in vain: it is written out for each, for a longer loop."""


@dataclass(frozen=True, eq=False)
class Round:
    """At most one entry of each row: out[target] += weight * x[source]. Targets rise."""

    target: NDArray[np.int64]
    source: NDArray[np.int64]
    weight: NDArray[np.float64] | None  # None: all are 1


@dataclass(frozen=True, eq=False)
class AxisSums:
    """A sparse matrix of `size` rows."""

    size: int
    rounds: tuple[Round, ...]

    @property
    def is_selection(self) -> bool:
        """Whether every row is one element of the axis: nothing is added."""
        return len(self.rounds) == 1 and self.rounds[0].weight is None and len(self.rounds[0].target) == self.size


def axis_sums(
    size: int, target: NDArray[np.int64], source: NDArray[np.int64], weight: NDArray[np.float64] | None = None
) -> AxisSums:
    """The matrix of `size` rows with the entries (target, source, weight); a row's are added by rising source."""
    order = np.lexsort((source, target))
    target, source, weight = target[order], source[order], None if weight is None else weight[order]
    turn = np.arange(len(target)) - np.searchsorted(target, target)  # of an entry within its row
    rounds = []
    for number in range(int(turn.max(initial=-1)) + 1):
        mine = turn == number
        rounds.append(Round(target[mine], source[mine], None if weight is None else weight[mine]))
    return AxisSums(size, tuple(rounds))


def sum_along(axis: int, sums: AxisSums, x: Array, dtype: np.dtype[Any]) -> Array:
    """x (N,H,W,C) with its axis 1 or 2 multiplied by `sums`, as `dtype`; added up in the accumulator of x's dtype."""
    work = x.dtype if sums.is_selection else accumulator(x.dtype)
    outer, length, inner = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
    cells = x.reshape(outer, length, inner).astype(work, copy=False)
    out = empty((outer, sums.size, inner), dtype, x)
    row_bytes = 2 * inner * work.itemsize
    todo = tiles(outer, sums.size, row_bytes)
    bands = {rows.start: _band(sums, rows, inner, cells) for _, rows in todo}

    def run(tile: tuple[slice, slice]) -> None:
        images, rows = tile
        _sum_band(bands[rows.start], cells[images], out[tile])

    for_each(run, todo, x, share=is_large(outer * sums.size * row_bytes))
    return out.reshape(*x.shape[:axis], sums.size, *x.shape[axis + 1 :])


def _band(sums: AxisSums, rows: slice, inner: int, like: Array) -> list[tuple[Any, Any, Array | None]]:
    """(target, source, weight) of each round, for some rows alone and counted from the first; target None: all."""
    xp = namespace(like)
    found: list[tuple[Any, Any, Array | None]] = []
    for each in sums.rounds:
        mine = slice(*np.searchsorted(each.target, (rows.start, rows.stop)).tolist())
        if mine.start == mine.stop:
            continue
        weight = None
        if each.weight is not None:
            weight = each.weight[mine, None].astype(like.dtype)
            weight = xp.asarray(weight.repeat(inner, axis=1) if inner <= _FEW else weight)
        everything = mine.stop - mine.start == rows.stop - rows.start
        target = None if everything else _index(each.target[mine] - rows.start, xp)
        found.append((target, _index(each.source[mine], xp), weight))
    return found


def _index(places: NDArray[np.int64], xp: Any) -> Any:
    """Evenly spaced, rising places as a slice, which needs no copy; else an array."""
    step = int(places[1] - places[0]) if len(places) > 1 else 1
    if step > 0 and (np.diff(places) == step).all():
        return slice(int(places[0]), int(places[-1]) + 1, step)
    return xp.asarray(places)


def _sum_band(rounds: list[tuple[Any, Any, Array | None]], cells: Array, out: Array) -> None:
    """out (n,rows,inner) from cells (n,length,inner)."""
    same = out.dtype == cells.dtype
    scratch = workspace((1 if same else 2, *out.shape), cells.dtype, cells)
    total = out if same else scratch[1]
    if rounds and rounds[0][0] is None:
        _, source, weight = rounds[0]
        first = _terms(cells, source, weight, total)
        if first is not total:
            total[...] = first
        rounds = rounds[1:]
    else:
        total[...] = 0
    for target, source, weight in rounds:
        if target is None:
            total += _terms(cells, source, weight, scratch[0])
        else:
            total[:, target] += _terms(cells, source, weight, None)
    if not same:
        out[...] = total


def _terms(cells: Array, source: Any, weight: Array | None, out: Array | None) -> Array:
    """weight * cells[:, source]: a view where it is one already, else in `out` or, without it, in new memory."""
    xp = namespace(cells)
    if isinstance(source, slice):
        view = cells[:, source]
        return view if weight is None else xp.multiply(view, weight, out=out)
    picked = _take(cells, source, out)
    return picked if weight is None else xp.multiply(picked, weight, out=picked)


def _take(cells: Array, index: Array, out: Array | None) -> Array:
    if isinstance(cells, np.ndarray):
        return cells.take(index, axis=1, out=out, mode="clip")  # "raise" would fill `out` through a buffer
    return cells.take(index, axis=1, out=out)

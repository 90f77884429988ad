"""Arrays put together, taken apart and padded; any number of axes, in whatever order memory has."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpucnn.backend import Array, accumulator, empty, namespace
from gpucnn.reference.common import blocks, is_large
from gpucnn.reference.parallel import for_each


def concatenate(axis: int, *arrays: Array) -> Array:
    """One dtype, one shape but along `axis`."""
    first = arrays[0]
    sizes = [array.shape[axis] for array in arrays]
    out = empty((*first.shape[:axis], sum(sizes), *first.shape[axis + 1 :]), first.dtype, first)
    if not is_large(out.nbytes):
        return namespace(out).concatenate(arrays, axis, out=out)
    places = parts(out, axis, sizes)

    def run(piece: tuple[int, slice]) -> None:
        number, rows = piece
        places[number][rows] = arrays[number][rows]

    pieces = [(number, rows) for number, place in enumerate(places) for rows in _row_blocks(place)]
    for_each(run, pieces, out)
    return out


class SplitProblem(NamedTuple):
    """The sizes of the parts along `axis`, and which of them are wanted."""

    axis: int
    sizes: tuple[int, ...]
    wanted: tuple[bool, ...]


def split(p: SplitProblem, array: Array) -> list[Array | None]:
    """The parts, each C-contiguous: a view where it is so already, else a copy; None for those not wanted."""
    views = parts(array, p.axis, p.sizes)
    copied = [wanted and not view.flags.c_contiguous for view, wanted in zip(views, p.wanted, strict=True)]
    results = [empty(v.shape, v.dtype, v) if copy else v for v, copy in zip(views, copied, strict=True)]

    def run(piece: tuple[int, slice]) -> None:
        number, rows = piece
        results[number][rows] = views[number][rows]

    pieces = [(number, rows) for number, copy in enumerate(copied) if copy for rows in _row_blocks(views[number])]
    for_each(run, pieces, array, share=is_large(array.nbytes))
    return [result if wanted else None for result, wanted in zip(results, p.wanted, strict=True)]


def parts(array: Array, axis: int, sizes: Sequence[int]) -> list[Array]:
    """Views of consecutive parts along `axis`."""
    ends = itertools.accumulate(sizes)
    return [array[_along(axis, end - size, end)] for end, size in zip(ends, sizes, strict=True)]


def _row_blocks(array: Array) -> list[slice]:
    """Slices of the first axis that are worth a thread of their own."""
    rows = len(array)
    return blocks(rows, int(array.nbytes) // max(1, rows), 1 << 21) if rows else []


# ------------------------------------------------------------------------------------------- copies and moves


def copy(problem: None, x: Array) -> Array:
    """C-contiguous, in memory of its own."""
    return x.copy(order="C")


def convert(dtype: np.dtype[Any], x: Array) -> Array:
    """Rounded to the nearest; what is too large for the dtype becomes infinite."""
    return x.astype(dtype, order="C")


def repeat(counts: tuple[int, ...], x: Array) -> Array:
    """So many copies in a row along each axis."""
    return namespace(x).tile(x, counts)


def flip(axes: tuple[int, ...], x: Array) -> Array:
    return namespace(x).flip(x, axes).copy()


class RollProblem(NamedTuple):
    """How far elements move along which axes."""

    shifts: tuple[int, ...]
    axes: tuple[int, ...]


def roll(p: RollProblem, x: Array) -> Array:
    return namespace(x).roll(x, p.shifts, p.axes)


# ------------------------------------------------------------------------------------------------------ padding


class PadProblem(NamedTuple):
    """For each axis how many cells are added before and after, what they hold, and in mode 'constant' the number.

    In mode 'constant' a negative number of cells cuts as many off.
    """

    amounts: tuple[tuple[int, int], ...]
    mode: str
    value: float = 0.0


def pad(p: PadProblem, x: Array) -> Array:
    """Mode 'constant', 'reflect', 'replicate' or 'circular'; all but the first take no negative amounts."""
    shape = tuple([size + sum(amount) for size, amount in zip(x.shape, p.amounts, strict=True)])
    out = empty(shape, x.dtype, x)
    source = x[tuple([slice(max(0, -a), size - max(0, -b)) for size, (a, b) in zip(x.shape, p.amounts, strict=True)])]
    inside = tuple([slice(max(0, a), size - max(0, b)) for size, (a, b) in zip(shape, p.amounts, strict=True)])

    def run(rows: slice) -> None:
        part = out[rows]
        if p.mode == "constant":
            part[...] = p.value
        part[inside] = source[rows]
        for axis, amount in enumerate(p.amounts):
            if p.mode != "constant" and any(amount):
                _fill_edges(part, axis, *amount, p.mode)

    for_each(run, _independent_rows(p, out), out, share=is_large(out.nbytes))
    return out


def pad_grad(p: PadProblem, dy: Array) -> Array:
    """Every added cell's gradient joins that of the cell which it was copied from; those of constants are dropped."""
    if p.mode == "constant":
        return pad(PadProblem(tuple([(-a, -b) for a, b in p.amounts]), "constant"), dy)
    dx = empty(tuple([size - sum(amount) for size, amount in zip(dy.shape, p.amounts, strict=True)]), dy.dtype, dy)

    def run(rows: slice) -> None:
        gradient = dy[rows].astype(accumulator(dy.dtype), copy=False)
        for axis, amount in reversed(list(enumerate(p.amounts))):
            if any(amount):
                gradient = _fold_edges(gradient, axis, *amount, p.mode)
        dx[rows] = gradient

    for_each(run, _independent_rows(p, dy), dy, share=is_large(dy.nbytes))
    return dx


def _independent_rows(p: PadProblem, array: Array) -> list[slice]:
    return [slice(None)] if any(p.amounts[0]) else _row_blocks(array)


def _along(axis: int, start: int, stop: int, step: int = 1) -> tuple[slice, ...]:
    """Cells [start, stop) of `axis`, in reverse for a step of -1."""
    part = slice(start, stop) if step > 0 else slice(stop - 1, start - 1 if start else None, -1)
    return (*(slice(None),) * axis, part)


def _copied_from(size: int, before: int, after: int, mode: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of an axis of `size` cells, the (start, stop, step) that the cells before it and after it are copies of.

    For 'replicate' that is one cell, whatever the amount.
    """
    if mode == "reflect":
        return (1, before + 1, -1), (size - 1 - after, size - 1, -1)
    if mode == "circular":
        return (size - before, size, 1), (0, after, 1)
    return (0, 1, 1), (size - 1, size, 1)


def _fill_edges(out: Array, axis: int, before: int, after: int, mode: str) -> None:
    """Writes the first `before` and the last `after` cells of `axis` from those between them."""
    end = out.shape[axis] - after
    inner = out[_along(axis, before, end)]
    first, last = _copied_from(end - before, before, after, mode)
    if before:
        out[_along(axis, 0, before)] = inner[_along(axis, *first)]
    if after:
        out[_along(axis, end, end + after)] = inner[_along(axis, *last)]


def _fold_edges(gradient: Array, axis: int, before: int, after: int, mode: str) -> Array:
    """The cells between the first `before` and the last `after` of `axis`, with the gradients of those added."""
    end = gradient.shape[axis] - after
    inner = gradient[_along(axis, before, end)].copy()
    first, last = _copied_from(end - before, before, after, mode)
    for amount, start, source in ((before, 0, first), (after, end, last)):
        if amount:
            edge = gradient[_along(axis, start, start + amount)]
            if mode == "replicate":
                edge = edge.sum(axis=axis, keepdims=True)
            inner[_along(axis, *source)] += edge
    return inner

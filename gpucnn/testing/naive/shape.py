"""Padding and putting together by their definitions, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Amounts = Sequence[tuple[int, int]]


def pad(x: ArrayLike, amounts: Amounts, mode: str = "constant", value: float = 0.0) -> NDArray[np.float64]:
    """amounts[axis] = (before, after) cells more, or less where negative, whose contents `mode` tells."""
    x = np.asarray(x, np.float64)
    y = np.full([size + before + after for size, (before, after) in zip(x.shape, amounts, strict=True)], value)
    for place in np.ndindex(*y.shape):
        source = _source(place, x.shape, amounts, mode)
        if source is not None:
            y[place] = x[source]
    return y


def pad_grad(dy: ArrayLike, shape: tuple[int, ...], amounts: Amounts, mode: str = "constant") -> NDArray[np.float64]:
    """Each dy goes to the cell of the input of `shape` that it was copied from."""
    dy, dx = np.asarray(dy, np.float64), np.zeros(shape)
    for place in np.ndindex(*dy.shape):
        source = _source(place, shape, amounts, mode)
        if source is not None:
            dx[source] += dy[place]
    return dx


def _source(place: tuple[int, ...], shape: tuple[int, ...], amounts: Amounts, mode: str) -> tuple[int, ...] | None:
    """The cell that the padded cell `place` shows, None for one that holds the constant."""
    cell = []
    for position, size, (before, _) in zip(place, shape, amounts, strict=True):
        i = position - before
        if not 0 <= i < size:
            if mode == "constant":
                return None
            i = {"reflect": -i if i < 0 else 2 * (size - 1) - i, "replicate": 0 if i < 0 else size - 1}.get(
                mode, i % size
            )
        cell.append(i)
    return tuple(cell)


def cat(arrays: Sequence[ArrayLike], axis: int) -> NDArray[np.float64]:
    """The arrays in a row along `axis`, element by element."""
    given = [np.asarray(array, np.float64) for array in arrays]
    shape = list(given[0].shape)
    shape[axis] = sum(array.shape[axis] for array in given)
    y = np.empty(shape)
    start = 0
    for array in given:
        for place in np.ndindex(*array.shape):
            target = list(place)
            target[axis] += start
            y[tuple(target)] = array[place]
        start += array.shape[axis]
    return y

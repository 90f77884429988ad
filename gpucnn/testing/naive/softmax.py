"""Softmax and its logarithm by definition, in float64, along any axis."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucnn.testing.naive.activation import exp


def _each_row(x: NDArray[np.float64], dim: int) -> list[tuple[tuple[int | slice, ...], list[float]]]:
    """(place, numbers) of every row along `dim`."""
    rest = [1 if axis == dim % x.ndim else size for axis, size in enumerate(x.shape)]
    places = [
        tuple(slice(None) if axis == dim % x.ndim else i for axis, i in enumerate(index)) for index in np.ndindex(*rest)
    ]
    return [(place, x[place].tolist()) for place in places]


def log_softmax(x: ArrayLike, dim: int = -1) -> NDArray[np.float64]:
    """x - m - log(sum of exp(x - m)), with m the largest of the row."""
    x = np.asarray(x, np.float64)
    out = np.empty_like(x)
    for place, row in _each_row(x, dim):
        largest = math.nan if any(math.isnan(v) for v in row) else max(row)
        total = math.fsum(exp(v - largest) for v in row)
        out[place] = [v - largest - math.log(total) for v in row]
    return out


def log_softmax_grad(dy: ArrayLike, x: ArrayLike, dim: int = -1) -> NDArray[np.float64]:
    """dx[i] = sum over j of dy[j] * ([i == j] - softmax[i])."""
    dy, probabilities = np.asarray(dy, np.float64), softmax(x, dim)
    dx = np.empty_like(probabilities)
    for place, row in _each_row(probabilities, dim):
        given = dy[place].tolist()
        dx[place] = [math.fsum(d * ((i == j) - p) for j, d in enumerate(given)) for i, p in enumerate(row)]
    return dx


def softmax(x: ArrayLike, dim: int = -1) -> NDArray[np.float64]:
    """exp(x - m) / (sum of exp(x - m)), with m the largest of the row."""
    x = np.asarray(x, np.float64)
    out = np.empty_like(x)
    for place, row in _each_row(x, dim):
        largest = math.nan if any(math.isnan(v) for v in row) else max(row)
        total = math.fsum(exp(v - largest) for v in row)
        out[place] = [exp(v - largest) / total for v in row]
    return out


def softmax_grad(dy: ArrayLike, x: ArrayLike, dim: int = -1) -> NDArray[np.float64]:
    """dx[i] = sum over j of dy[j] * softmax[j] * ([i == j] - softmax[i])."""
    dy, probabilities = np.asarray(dy, np.float64), softmax(x, dim)
    dx = np.empty_like(probabilities)
    for place, row in _each_row(probabilities, dim):
        given = list(zip(dy[place].tolist(), row, strict=True))
        dx[place] = [math.fsum(d * q * ((i == j) - p) for j, (d, q) in enumerate(given)) for i, p in enumerate(row)]
    return dx

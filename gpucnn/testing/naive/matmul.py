"""The product of matrices by its definition, in float64.

y[..., m, n] = sum over k of a[..., m, k] * b[..., k, n]
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def matmul(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """The axes before the last two broadcast; a vector is a row on the left, a column on the right."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim == 1:
        return np.asarray(matmul(a[None], b)[..., 0, :] if b.ndim > 1 else matmul(a[None], b)[0])
    if b.ndim == 1:
        return np.asarray(matmul(a, b[:, None])[..., 0])
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    left, right = np.broadcast_to(a, (*batch, *a.shape[-2:])), np.broadcast_to(b, (*batch, *b.shape[-2:]))
    y = np.empty((*batch, a.shape[-2], b.shape[-1]))
    for place in np.ndindex(*y.shape):
        *at, m, n = place
        row, column = (*at, m), (*at, slice(None), n)
        y[place] = math.fsum(left[row] * right[column])
    return y


def matmul_grad(dy: ArrayLike, a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(da, db) for matrices and batches of them: every product's derivatives added up where its factors came from."""
    dy, a, b = np.asarray(dy, np.float64), np.asarray(a, np.float64), np.asarray(b, np.float64)
    da, db = np.zeros(a.shape), np.zeros(b.shape)
    for place in np.ndindex(*dy.shape):
        *at, m, n = place
        for k in range(a.shape[-1]):
            i = (*_own(at, a.shape[:-2]), m, k)
            j = (*_own(at, b.shape[:-2]), k, n)
            da[i] += dy[place] * b[j]
            db[j] += dy[place] * a[i]
    return da, db


def _own(at: list[int], batch: tuple[int, ...]) -> list[int]:
    """The place in a batch that is repeated to a larger one."""
    return [0 if size == 1 else i for i, size in zip(at[len(at) - len(batch) :], batch, strict=True)]

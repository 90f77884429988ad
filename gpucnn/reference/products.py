"""Products of matrices, of the shapes and sizes that convolutions make: long and narrow, or deep with few rows."""

from __future__ import annotations

import functools

import numpy as np

from gpucnn.backend import Array, empty, namespace
from gpucnn.reference.parallel import for_each, pieces

_UNPACKED = 10**6
"""Multiply-adds up to which OpenBLAS multiplies matrices as they lie.

Larger ones it first copies into panels, which for a matrix with few columns costs as much as the product: 4096 x 144
times 144 x 16 takes 1.3 to 1.5 times as long as 16 products of 256 rows.
"""
_SUMMED_ROWS = 128
"""Rows of a product whose result is a partial sum: as quick as more of them, where they are not very short."""
_SHORT = 256  # multiply-adds a row, below which eight times as many are summed at once
_FEWEST_ROWS = 48  # of a product that is cut out of a larger one: with fewer the panels are the cheaper way


def is_cut(operations_a_row: int) -> bool:
    """Whether products with so many multiply-adds a row are made of smaller ones, if they have enough rows."""
    return operations_a_row * _FEWEST_ROWS <= _UNPACKED


def multiply(a: Array, b: Array, out: Array) -> None:
    """out (..., M, N) = a (..., M, K) times b (..., K, N), on this thread; out's rows may lie apart."""
    if not isinstance(a, np.ndarray):
        out[...] = namespace(a).matmul(a, b)
        return
    M, N = out.shape[-2:]
    K = a.shape[-1]
    rows = _rows_at_once(M, _UNPACKED // max(1, K * N), _FEWEST_ROWS)
    apart = a.strides[-1] == a.itemsize and b.strides[-1] != b.itemsize  # the one case that is slow without panels
    if rows < M and not apart:
        a = a.reshape(*a.shape[:-2], M // rows, rows, K)
        b = b[..., None, :, :]
        out = out.reshape(*out.shape[:-2], M // rows, rows, N)  # a view: one axis split in two
    np.matmul(a, b, out=out)


def summed_products(a: Array, b: Array) -> Array:
    """The sum over axis -3 of a (..., n, K, M) times b (..., n, M, N), on this thread: (..., K, N)."""
    xp = namespace(a)
    if b.strides[-1] != b.itemsize and a.strides[-2] == a.itemsize:
        # The other way round, BLAS reads both along their memory.
        return summed_products(b.swapaxes(-1, -2), a.swapaxes(-1, -2)).swapaxes(-1, -2)
    (n, K, M), N = a.shape[-3:], b.shape[-1]
    most = _SUMMED_ROWS if K * N >= _SHORT else 8 * _SUMMED_ROWS
    rows = _rows_at_once(M, min(most, _UNPACKED // max(1, K * N)), _FEWEST_ROWS)
    if most < rows <= _UNPACKED // max(1, K * N):  # no divisor, and one running sum would lose digits
        cut = M - M % most
        return summed_products(a[..., :cut], b[..., :cut, :]) + summed_products(a[..., cut:], b[..., cut:, :])
    if rows < M:
        a = a.reshape(*a.shape[:-1], M // rows, rows).swapaxes(-2, -3)
        b = b.reshape(*b.shape[:-2], M // rows, rows, N)
        return xp.matmul(a, b).sum(axis=(-4, -3))
    products = xp.matmul(a, b)
    return products[..., 0, :, :] if n == 1 else products.sum(axis=-3)


@functools.lru_cache(maxsize=4096)
def _rows_at_once(M: int, most: int, fewest: int) -> int:
    """A divisor of M, so that one numpy call makes all the products; M where there is none in the range."""
    return next((rows for rows in range(min(M, most), fewest - 1, -1) if M % rows == 0), M)


def multiply_shared(a: Array, b: Array, bias: Array | None, out: Array) -> None:
    """out (M,N) = a (M,K) times b (K,N), plus bias (N,), in b's dtype; shared out among the threads."""

    def run(piece: tuple[slice, slice]) -> None:
        rows, columns = piece
        mine = out[piece]
        total = mine if out.dtype == b.dtype else empty(mine.shape, b.dtype, a)
        multiply(a[rows].astype(b.dtype, copy=False), b[:, columns], total)
        if bias is not None:
            total += bias[columns]
        if total is not mine:
            mine[...] = total

    M, N = out.shape
    for_each(run, pieces(M, N, a.shape[1]), a)

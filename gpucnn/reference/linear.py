"""Fully connected layers: x (M,I), w (O,I), bias (O,), y and dy (M,O). Half precision is multiplied in float32."""

from __future__ import annotations

from gpucnn.backend import Array, accumulator
from gpucnn.reference.parallel import matmul


def fprop(problem: None, x: Array, w: Array, bias: Array | None) -> Array:
    """y = x w^T + bias."""
    y = _product(x, w.T)
    if bias is not None:
        y += bias
    return y


def dgrad(problem: None, dy: Array, w: Array) -> Array:
    """dx = dy w."""
    return _product(dy, w)


def wgrad(problem: None, x: Array, dy: Array) -> Array:
    """dw = dy^T x."""
    return _product(dy.T, x)


def bgrad(problem: None, dy: Array) -> Array:
    """db: dy summed over its rows."""
    return dy.sum(axis=0, dtype=accumulator(dy.dtype)).astype(dy.dtype, copy=False)


def _product(a: Array, b: Array) -> Array:
    work = accumulator(a.dtype)
    product = matmul(a.astype(work, copy=False), b.astype(work, copy=False))
    return product.astype(a.dtype, copy=False)

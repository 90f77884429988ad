"""Fully connected layers: x (M,I), w (O,I), bias (O,), y and dy (M,O). Half precision is multiplied in float32."""

from __future__ import annotations

from dataclasses import dataclass

from gpucnn.backend import Array, accumulator, namespace
from gpucnn.reference.common import sum_rows
from gpucnn.reference.parallel import matmul


@dataclass(frozen=True)
class LinearProblem:
    """M rows of I inputs to O outputs each; `precision` is that of float32 (gpucnn/precision.py)."""

    M: int
    I: int  # noqa: E741
    O: int  # noqa: E741
    precision: str = "highest"


def fprop(problem: LinearProblem, x: Array, w: Array, bias: Array | None, relu: bool = False) -> Array:
    """y = x w^T + bias; with `relu`, max(y, 0)."""
    y = _product(x, w.T)
    if bias is not None:
        y += bias
    if relu:
        namespace(y).maximum(y, 0, out=y)
    return y.astype(x.dtype, copy=False)


def dgrad(problem: LinearProblem, dy: Array, w: Array) -> Array:
    """dx = dy w."""
    return _product(dy, w).astype(dy.dtype, copy=False)


def wgrad(problem: LinearProblem, x: Array, dy: Array) -> Array:
    """dw = dy^T x."""
    return _product(dy.T, x).astype(dy.dtype, copy=False)


def bgrad(problem: LinearProblem, dy: Array) -> Array:
    """db: dy summed over its rows."""
    return sum_rows(dy).astype(dy.dtype, copy=False)


def _product(a: Array, b: Array) -> Array:
    """a times b in the dtype that sums are kept in."""
    work = accumulator(a.dtype)
    a, b = a.astype(work, copy=False), b.astype(work, copy=False)
    return a * b if a.shape[1] == 1 else matmul(a, b)  # of which numpy takes three times as long for one image

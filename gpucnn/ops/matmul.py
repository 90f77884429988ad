"""Products of vectors, matrices and batches of matrices."""

from __future__ import annotations

import math
from typing import Any

from gpucnn.autograd import Function
from gpucnn.backend import Array, namespace
from gpucnn.ops.elementwise import unbroadcast
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import matmul as reference

matmul = KernelTable("matmul", "forward")
matmul.add("blas", "reference", reference.matmul)


class Matmul(Function):
    """a (..., M, K) and b (..., K, N) of one dtype -> (..., M, N); the axes before the last two broadcast.

    A vector (K,) is a matrix of one row as `a`, of one column as `b`, and the result then lacks that axis.
    """

    @staticmethod
    def forward(ctx: Any, a: Array, b: Array) -> Array:
        ctx.save_for_backward(a if ctx.needs_input_grad[1] else None, b if ctx.needs_input_grad[0] else None)
        ctx.shapes = a.shape, b.shape
        y = matmul(None, _row(a), _column(b), like=a)
        kept = (*y.shape[:-2], *y.shape[-2:][a.ndim == 1 : 1 if b.ndim == 1 else 2])
        return y.reshape(kept)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array | None, Array | None]:
        a, b = ctx.saved
        m, n = ctx.shapes
        rows, columns = () if len(m) == 1 else m[-2:-1], () if len(n) == 1 else n[-1:]
        batch = dy.shape[: dy.ndim - len(rows) - len(columns)]
        dy = dy.reshape(*batch, *(rows or (1,)), *(columns or (1,)))
        da = db = None
        if b is not None:
            da = unbroadcast(matmul(None, dy, _swapped(_column(b)), like=dy), m if rows else (1, *m)).reshape(m)
        if a is not None:
            a, shape = _row(a), n if columns else (*n, 1)
            if len(shape) == 2:  # the sum over the batch is part of one product
                a, dy = (array.reshape(math.prod(array.shape[:-1]), array.shape[-1]) for array in (a, dy))
            db = unbroadcast(matmul(None, _swapped(a), dy, like=dy), shape).reshape(n)
        return da, db


def _row(a: Array) -> Array:
    return a.reshape(1, -1) if a.ndim == 1 else a


def _column(b: Array) -> Array:
    return b.reshape(-1, 1) if b.ndim == 1 else b


def _swapped(array: Array) -> Array:
    return namespace(array).swapaxes(array, -1, -2)

"""Products of vectors, matrices and batches of matrices."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from gpucnn.autograd import Function
from gpucnn.backend import Array, dtype_name, empty, namespace
from gpucnn.ops import compiled, linear
from gpucnn.ops.elementwise import unbroadcast
from gpucnn.ops.memory import contiguous
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import matmul as reference

_AXES = 4
"""Of a batch, that the kernel tells matrices from one another by."""


class _Matrices(NamedTuple):
    """An operand's matrices as they lie in memory."""

    array: Array  # (matrices, rows, columns), C-contiguous
    transposed: bool  # each of them
    batch: tuple[int, ...]


def _matrices(array: Array) -> _Matrices:
    """No copy where the matrices, or their transposes, are one after another in memory."""
    swapped = _swapped(array)
    transposed = not array.flags.c_contiguous and bool(swapped.flags.c_contiguous)
    lying = swapped if transposed else contiguous(array)
    return _Matrices(lying.reshape(math.prod(array.shape[:-2]), *lying.shape[-2:]), transposed, array.shape[:-2])


def _tiled(module: Any, problem: None, stream: int, a: Array, b: Array) -> Array:
    """One launch for all matrices of a batch."""
    (M, K), N = a.shape[-2:], b.shape[-1]
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    left, right = _matrices(a), _matrices(b)
    if len(right.array) == 1 and not left.transposed and left.batch == batch:  # all rows of a times one b
        return _product(module, stream, left.array.reshape(len(left.array) * M, K), False, *right[:2]).reshape(
            *batch, M, N
        )
    if math.prod(batch) == 1:
        return _product(module, stream, left.array[0], left.transposed, *right[:2]).reshape(*batch, M, N)
    sizes, steps = _walk(batch, left.batch, right.batch)
    if len(sizes) > _AXES:
        left, right = (_matrices(namespace(each).broadcast_to(each, (*batch, *each.shape[-2:]))) for each in (a, b))
        sizes, steps = _walk(batch, batch, batch)
    y = empty((math.prod(batch), M, N), a.dtype, a)
    name = dtype_name(a.dtype)
    module.matmul_batched(name, *left[:2], *right[:2], y, sizes, *steps, stream)
    return y.reshape(*batch, M, N)


def _walk(batch: tuple[int, ...], *operands: tuple[int, ...]) -> tuple[list[int], tuple[list[int], ...]]:
    """The axes of a batch, as few as can be, and how many matrices further on each leads in the operands."""
    sizes: list[int] = []
    steps: tuple[list[int], ...] = ([], [])
    after = [1] * len(operands)  # matrices of an operand under the axes that were seen
    for axis in range(1, len(batch) + 1):
        own = [shape[-axis] if axis <= len(shape) else 1 for shape in operands]
        step = [count if size > 1 else 0 for count, size in zip(after, own, strict=True)]
        after = [count * size for count, size in zip(after, own, strict=True)]
        if batch[-axis] == 1:
            continue
        if sizes and all(walk[0] * sizes[0] == new for walk, new in zip(steps, step, strict=True)):
            sizes[0] *= batch[-axis]
            continue
        sizes.insert(0, batch[-axis])
        for walk, new in zip(steps, step, strict=True):
            walk.insert(0, new)
    return sizes, steps


def _product(module: Any, stream: int, a: Array, transposed_a: bool, b: Array, transposed_b: bool) -> Array:
    """a (M,K), in memory (K,M) where transposed, times b (1,K,N), in memory (1,N,K) where transposed: (M,N)."""
    b = b[0]
    M, K = a.shape[::-1] if transposed_a else a.shape
    N = b.shape[0] if transposed_b else b.shape[1]
    if not transposed_a and linear.why_no_split(M, N, K) is None:
        return (linear.split_fprop if transposed_b else linear.split_dgrad)(module, None, stream, a, b)
    if N == 1 and linear.why_no_split(1, M, K) is None:  # as rows: a column lies in memory as a row does
        run = linear.split_dgrad if transposed_a else linear.split_fprop
        return run(module, None, stream, b.reshape(1, K), a).reshape(M, 1)
    if not transposed_a:
        return (linear.tiled_fprop if transposed_b else linear.tiled_dgrad)(module, None, stream, a, b)
    if not transposed_b:
        return linear.tiled_wgrad(module, None, stream, b, a)
    y = empty((1, M, N), a.dtype, a)
    module.matmul_batched(dtype_name(a.dtype), a[None], True, b[None], True, y, [], [], [], stream)
    return y[0]


matmul = KernelTable("matmul", "forward")
compiled.add(matmul, "tiled", _tiled, dtypes=compiled.FLOATS)
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

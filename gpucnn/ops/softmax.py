"""Softmax and its logarithm over the last axis."""

from __future__ import annotations

import functools
from typing import Any

from gpucnn.autograd import Function
from gpucnn.backend import Array, dtype_name, empty
from gpucnn.ops import compiled
from gpucnn.ops.memory import contiguous
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import softmax as reference


def _rows(module: Any, problem: None, stream: int, x: Array, *, logarithm: bool) -> Array:
    y = empty(x.shape, x.dtype, x)
    module.softmax_fprop(dtype_name(x.dtype), x, y, logarithm, stream)
    return y


def _rows_grad(module: Any, problem: None, stream: int, dy: Array, y: Array, *, logarithm: bool) -> Array:
    dx = empty(y.shape, y.dtype, y)
    module.softmax_dgrad(dtype_name(y.dtype), dy, y, dx, logarithm, stream)
    return dx


def _tables(op: str, logarithm: bool) -> tuple[KernelTable, KernelTable]:
    forward, backward = KernelTable(op, "forward"), KernelTable(op, "backward")
    compiled.add(forward, "rows", functools.partial(_rows, logarithm=logarithm), dtypes=compiled.FLOATS)
    compiled.add(backward, "rows", functools.partial(_rows_grad, logarithm=logarithm), dtypes=compiled.FLOATS)
    forward.add("array", "reference", getattr(reference, op))
    backward.add("array", "reference", getattr(reference, f"{op}_grad"))
    return forward, backward


softmax, softmax_grad = _tables("softmax", logarithm=False)
log_softmax, log_softmax_grad = _tables("log_softmax", logarithm=True)


def _over_rows(name: str, run: KernelTable, gradient: KernelTable) -> type[Function]:
    """A Function over the last axis whose gradient follows from its output."""

    class OverRows(Function):
        @staticmethod
        def forward(ctx: Any, x: Array) -> Array:
            y = run(None, contiguous(x), like=x)
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx: Any, dy: Array) -> Array:
            return gradient(None, contiguous(dy), ctx.saved[0], like=dy)

    OverRows.__name__ = OverRows.__qualname__ = name
    return OverRows


Softmax = _over_rows("Softmax", softmax, softmax_grad)
LogSoftmax = _over_rows("LogSoftmax", log_softmax, log_softmax_grad)

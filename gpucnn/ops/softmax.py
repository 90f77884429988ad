"""Softmax and its logarithm over the last axis."""

from __future__ import annotations

from typing import Any

from gpucnn.autograd import Function
from gpucnn.backend import Array, contiguous
from gpucnn.ops.activation import tables
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import softmax as reference

softmax, softmax_grad = tables("softmax", reference.softmax, reference.softmax_grad)
log_softmax, log_softmax_grad = tables("log_softmax", reference.log_softmax, reference.log_softmax_grad)


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

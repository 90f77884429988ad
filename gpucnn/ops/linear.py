"""Fully connected layers."""

from __future__ import annotations

from typing import Any

from gpucnn.autograd import Function
from gpucnn.backend import Array, contiguous
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import linear as reference

fprop = KernelTable("linear", "fprop")
fprop.add("matmul", "reference", reference.fprop)

dgrad = KernelTable("linear", "dgrad")
dgrad.add("matmul", "reference", reference.dgrad)

wgrad = KernelTable("linear", "wgrad")
wgrad.add("matmul", "reference", reference.wgrad)

bgrad = KernelTable("linear", "bgrad")
bgrad.add("rows", "reference", reference.bgrad)


class Linear(Function):
    """x (M,I), w (O,I), bias (O,) or None -> y (M,O)."""

    @staticmethod
    def forward(ctx: Any, x: Array, w: Array, bias: Array | None) -> Array:
        x, w = contiguous(x), contiguous(w)
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, w if ctx.needs_input_grad[0] else None)
        return fprop(None, x, w, bias, like=x)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array | None, ...]:
        x, w = ctx.saved
        dy = contiguous(dy)
        return (
            dgrad(None, dy, w, like=dy) if ctx.needs_input_grad[0] else None,
            wgrad(None, x, dy, like=dy) if ctx.needs_input_grad[1] else None,
            bgrad(None, dy, like=dy) if ctx.needs_input_grad[2] else None,
        )

"""Dropout, each element or each channel."""

from __future__ import annotations

from typing import Any

from gpucnn.autograd import Function
from gpucnn.backend import Array, from_nhwc, memory_order
from gpucnn.ops.elementwise import in_memory_order
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import dropout as reference
from gpucnn.reference.dropout import DropoutProblem

mask = KernelTable("dropout", "mask")
mask.add("philox", "reference", reference.mask)

apply_mask = KernelTable("dropout", "apply")
apply_mask.add("select", "reference", reference.apply)


class Dropout(Function):
    """x / (1 - p) where the mask keeps, else 0.

    A mask with fewer axes than x has (N,C): an entry stands for all that follows it.
    """

    @staticmethod
    def forward(ctx: Any, x: Array, *, problem: DropoutProblem) -> Array:
        keep = mask(problem, x, like=x)
        if keep.ndim < x.ndim:
            keep = keep.reshape(keep.shape + (1,) * (x.ndim - keep.ndim))
        elif order := memory_order(x):  # the mask is drawn in logical order and laid out like x
            keep = from_nhwc(keep.transpose(order).copy())
        ctx.problem = problem
        ctx.save_for_backward(keep)
        return in_memory_order(apply_mask, problem, x, keep)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return in_memory_order(apply_mask, ctx.problem, dy, ctx.saved[0])

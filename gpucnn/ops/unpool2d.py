"""Maximum unpooling, the partial inverse of maximum pooling."""

from __future__ import annotations

from typing import Any

from gpucnn.autograd import Function
from gpucnn.backend import Array, from_nhwc, to_nhwc
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import unpool2d as reference
from gpucnn.reference.unpool2d import Unpool2dProblem

unpool_fprop = KernelTable("max_unpool2d", "fprop")
unpool_fprop.add("scatter", "reference", reference.unpool_fprop)

unpool_dgrad = KernelTable("max_unpool2d", "dgrad")
unpool_dgrad.add("gather", "reference", reference.unpool_dgrad)


class MaxUnpool2d(Function):
    """x (N,C,P,Q) and int64 indices of the same shape, all in range -> y (N,C,H,W)."""

    @staticmethod
    def forward(ctx: Any, x: Array, indices: Array, *, problem: Unpool2dProblem) -> Array:
        ctx.problem = problem
        x, indices = to_nhwc(x), to_nhwc(indices)
        ctx.save_for_backward(indices)
        return from_nhwc(unpool_fprop(problem, x, indices, like=x))

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array, None]:
        dy = to_nhwc(dy)
        return from_nhwc(unpool_dgrad(ctx.problem, dy, ctx.saved[0], like=dy)), None

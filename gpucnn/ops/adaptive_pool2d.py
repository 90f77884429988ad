"""2-D pooling to a given size that does not divide the image's: average and maximum."""

from __future__ import annotations

from typing import Any

from gpucnn.autograd import Function
from gpucnn.backend import Array, from_nhwc, to_nhwc
from gpucnn.ops.images import linear_map
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import adaptive_pool2d as reference
from gpucnn.reference.adaptive_pool2d import AdaptivePool2dProblem

average_fprop = KernelTable("adaptive_avg_pool2d", "fprop")
average_fprop.add("separable", "reference", reference.average_fprop)

average_dgrad = KernelTable("adaptive_avg_pool2d", "dgrad")
average_dgrad.add("separable", "reference", reference.average_dgrad)

max_fprop = KernelTable("adaptive_max_pool2d", "fprop")
max_fprop.add("separable", "reference", reference.max_fprop)

max_dgrad = KernelTable("adaptive_max_pool2d", "dgrad")
max_dgrad.add("gather", "reference", reference.max_dgrad)


AdaptiveAvgPool2d = linear_map("AdaptiveAvgPool2d", average_fprop, average_dgrad)


class AdaptiveMaxPool2d(Function):
    """x (N,C,H,W) -> (y, indices), both (N,C,P,Q): the maxima and their h * W + w, int64."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, problem: AdaptivePool2dProblem) -> tuple[Array, Array]:
        ctx.problem = problem
        x = to_nhwc(x)
        y, indices = max_fprop(problem, x, like=x)
        ctx.save_for_backward(indices)
        return from_nhwc(y), from_nhwc(indices)

    @staticmethod
    def backward(ctx: Any, dy: Array, d_indices: None) -> Array:
        dy = to_nhwc(dy)
        return from_nhwc(max_dgrad(ctx.problem, dy, ctx.saved[0], like=dy))

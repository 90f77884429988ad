"""2-D pooling to a given size that does not divide the image's: average and maximum."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.autograd import Function
from gpucnn.backend import Array, dtype_name, empty, from_nhwc
from gpucnn.ops import compiled
from gpucnn.ops.images import linear_map
from gpucnn.ops.memory import to_nhwc
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import adaptive_pool2d as reference
from gpucnn.reference.adaptive_pool2d import AdaptivePool2dProblem


def _average(module: Any, p: AdaptivePool2dProblem, stream: int, x: Array) -> Array:
    y = empty((p.N, p.P, p.Q, p.C), x.dtype, x)
    module.adaptive_avg_pool2d_fprop(p, dtype_name(x.dtype), x, y, stream)
    return y


def _average_dgrad(module: Any, p: AdaptivePool2dProblem, stream: int, dy: Array) -> Array:
    dx = empty((p.N, p.H, p.W, p.C), dy.dtype, dy)
    module.adaptive_avg_pool2d_dgrad(p, dtype_name(dy.dtype), dy, dx, stream)
    return dx


def _max(module: Any, p: AdaptivePool2dProblem, stream: int, x: Array) -> tuple[Array, Array]:
    y = empty((p.N, p.P, p.Q, p.C), x.dtype, x)
    indices = empty(y.shape, np.int64, x)
    module.adaptive_max_pool2d_fprop(p, dtype_name(x.dtype), x, y, indices, stream)
    return y, indices


def _max_dgrad(module: Any, p: AdaptivePool2dProblem, stream: int, dy: Array, indices: Array) -> Array:
    dx = empty((p.N, p.H, p.W, p.C), dy.dtype, dy)
    module.adaptive_max_pool2d_dgrad(p, dtype_name(dy.dtype), dy, indices, dx, stream)
    return dx


average_fprop = KernelTable("adaptive_avg_pool2d", "fprop")
compiled.add(average_fprop, "direct", _average, dtypes=compiled.FLOATS)
average_fprop.add("separable", "reference", reference.average_fprop)

average_dgrad = KernelTable("adaptive_avg_pool2d", "dgrad")
compiled.add(average_dgrad, "direct", _average_dgrad, dtypes=compiled.FLOATS)
average_dgrad.add("separable", "reference", reference.average_dgrad)

max_fprop = KernelTable("adaptive_max_pool2d", "fprop")
compiled.add(max_fprop, "direct", _max, dtypes=compiled.FLOATS)
max_fprop.add("separable", "reference", reference.max_fprop)

max_dgrad = KernelTable("adaptive_max_pool2d", "dgrad")
compiled.add(max_dgrad, "direct", _max_dgrad, dtypes=compiled.FLOATS)
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

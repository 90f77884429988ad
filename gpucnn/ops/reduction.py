"""Sums and means over axes."""

from __future__ import annotations

import math
from typing import Any

from gpucnn.autograd import Function
from gpucnn.backend import Array, namespace
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import reduction as reference

sum_ = KernelTable("sum", "forward")
sum_.add("array", "reference", reference.sum_)

mean = KernelTable("mean", "forward")
mean.add("array", "reference", reference.mean)


def _spread(dy: Array, shape: tuple[int, ...], axes: tuple[int, ...], keepdims: bool) -> Array:
    """dy, reduced over `axes`, as a view of the shape that it was reduced from."""
    kept = dy.shape if keepdims else tuple(1 if i in axes else size for i, size in enumerate(shape))
    return namespace(dy).broadcast_to(dy.reshape(kept), shape)


class Sum(Function):
    """Over the given axes (non-negative, distinct)."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
        ctx.shape, ctx.axes, ctx.keepdims = x.shape, axes, keepdims
        return sum_((axes, keepdims), x, like=x)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return _spread(dy, ctx.shape, ctx.axes, ctx.keepdims)


class Mean(Function):
    """Over the given axes (non-negative, distinct)."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
        ctx.shape, ctx.axes, ctx.keepdims = x.shape, axes, keepdims
        return mean((axes, keepdims), x, like=x)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        count = math.prod([ctx.shape[axis] for axis in ctx.axes])
        share = namespace(dy).asarray(dy / max(1, count))  # numpy makes scalars of arrays without axes
        return _spread(share, ctx.shape, ctx.axes, ctx.keepdims)

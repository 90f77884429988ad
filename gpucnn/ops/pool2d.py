"""2-D pooling over windows of one size: maximum, average and power average."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.autograd import Function
from gpucnn.backend import Array, empty, from_nhwc, to_nhwc
from gpucnn.ops import compiled
from gpucnn.ops.registry import KernelTable
from gpucnn.problem import Pool2dProblem
from gpucnn.reference import lp_pool2d as lp
from gpucnn.reference import pool2d as reference
from gpucnn.reference.lp_pool2d import LpPool2dProblem

_FLOAT32 = ("float32",)


def _direct_max(module: Any, p: Pool2dProblem, stream: int, x: Array) -> Array:
    y = empty((p.N, p.P, p.Q, p.C), x.dtype, x)
    module.max_pool2d_direct_fprop(p, x, y, None, stream)
    return y


def _direct_max_winners(module: Any, p: Pool2dProblem, stream: int, x: Array) -> tuple[Array, Array]:
    y = empty((p.N, p.P, p.Q, p.C), x.dtype, x)
    winners = empty(y.shape, np.uint8 if p.R * p.S <= 256 else np.int32, x)
    module.max_pool2d_direct_fprop(p, x, y, winners, stream)
    return y, winners


def _direct_max_indices(module: Any, p: Pool2dProblem, stream: int, winners: Array) -> Array:
    indices = empty(winners.shape, np.int64, winners)
    module.max_pool2d_direct_indices(p, winners, indices, stream)
    return indices


def _direct_max_dgrad(module: Any, p: Pool2dProblem, stream: int, dy: Array, winners: Array) -> Array:
    dx = empty((p.N, p.H, p.W, p.C), dy.dtype, dy)
    module.max_pool2d_direct_dgrad(p, dy, winners, dx, stream)
    return dx


max_fprop = KernelTable("max_pool2d", "fprop")
compiled.add(max_fprop, "direct", _direct_max, dtypes=_FLOAT32)
max_fprop.add("taps", "reference", reference.max_fprop)

max_fprop_winners = KernelTable("max_pool2d", "fprop with winners")
compiled.add(max_fprop_winners, "direct", _direct_max_winners, dtypes=_FLOAT32)
max_fprop_winners.add("taps", "reference", reference.max_fprop_winners)

max_indices = KernelTable("max_pool2d", "indices")
compiled.add(max_indices, "direct", _direct_max_indices)
max_indices.add("arithmetic", "reference", reference.max_indices)

max_dgrad = KernelTable("max_pool2d", "dgrad")
compiled.add(max_dgrad, "direct", _direct_max_dgrad, dtypes=_FLOAT32)
max_dgrad.add("taps", "reference", reference.max_dgrad)

average_fprop = KernelTable("avg_pool2d", "fprop")
average_fprop.add("whole_image", "reference", reference.average_fprop_whole, reference.one_window)
average_fprop.add("taps", "reference", reference.average_fprop)

average_dgrad = KernelTable("avg_pool2d", "dgrad")
average_dgrad.add("whole_image", "reference", reference.average_dgrad_whole, reference.one_window)
average_dgrad.add("taps", "reference", reference.average_dgrad)

lp_fprop = KernelTable("lp_pool2d", "fprop")
lp_fprop.add("powers", "reference", lp.lp_fprop, lp.finite)
lp_fprop.add("magnitudes", "reference", lp.magnitude_fprop, lp.infinite)

lp_dgrad = KernelTable("lp_pool2d", "dgrad")
lp_dgrad.add("powers", "reference", lp.lp_dgrad, lp.finite)
lp_dgrad.add("magnitudes", "reference", lp.magnitude_dgrad, lp.infinite)


class MaxPool2d(Function):
    """x (N,C,H,W) -> y (N,C,P,Q), or (y, indices) with `return_indices`: h * W + w of each maximum, int64."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, problem: Pool2dProblem, return_indices: bool = False) -> Any:
        x = to_nhwc(x)
        ctx.problem = problem
        if not (ctx.needs_input_grad[0] or return_indices):
            return from_nhwc(max_fprop(problem, x, like=x))
        y, winners = max_fprop_winners(problem, x, like=x)
        ctx.save_for_backward(winners)
        if not return_indices:
            return from_nhwc(y)
        return from_nhwc(y), from_nhwc(max_indices(problem, winners, like=x))

    @staticmethod
    def backward(ctx: Any, dy: Array, d_indices: None = None) -> Array:
        dy = to_nhwc(dy)
        return from_nhwc(max_dgrad(ctx.problem, dy, ctx.saved[0], like=dy))


class AvgPool2d(Function):
    """x (N,C,H,W) -> y (N,C,P,Q)."""

    @staticmethod
    def forward(
        ctx: Any, x: Array, *, problem: Pool2dProblem, count_include_pad: bool, divisor_override: int | None
    ) -> Array:
        x = to_nhwc(x)
        ctx.problem = problem
        divisors = reference.divisors(problem, count_include_pad, divisor_override, x)
        ctx.save_for_backward(divisors)
        return from_nhwc(average_fprop(problem, x, divisors, like=x))

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        dy = to_nhwc(dy)
        return from_nhwc(average_dgrad(ctx.problem, dy, ctx.saved[0], like=dy))


class LpPool2d(Function):
    """x (N,C,H,W) -> y (N,C,P,Q)."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, problem: LpPool2dProblem) -> Array:
        x = to_nhwc(x)
        ctx.problem = problem
        y, sums_or_winners = lp_fprop(problem, x, like=x)
        ctx.save_for_backward(x, sums_or_winners)
        return from_nhwc(y)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        dy = to_nhwc(dy)
        return from_nhwc(lp_dgrad(ctx.problem, dy, *ctx.saved, like=dy))

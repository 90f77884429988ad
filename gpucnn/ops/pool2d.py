"""2-D pooling over windows of one size: maximum, average and power average."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.autograd import Function
from gpucnn.backend import Array, dtype_name, empty, from_nhwc
from gpucnn.ops import compiled
from gpucnn.ops.memory import to_nhwc
from gpucnn.ops.registry import KernelTable
from gpucnn.problem import Pool2dProblem
from gpucnn.reference import lp_pool2d as lp
from gpucnn.reference import pool2d as reference
from gpucnn.reference.lp_pool2d import LpPool2dProblem
from gpucnn.reference.pool2d import AveragePool2dProblem


def _winner_type(p: Pool2dProblem) -> Any:
    return np.uint8 if p.R * p.S <= 256 else np.int32


def _outputs(p: Pool2dProblem, x: Array) -> Array:
    return empty((p.N, p.P, p.Q, p.C), x.dtype, x)


def _images(p: Pool2dProblem, dy: Array) -> Array:
    return empty((p.N, p.H, p.W, p.C), dy.dtype, dy)


def _direct_max(module: Any, p: Pool2dProblem, stream: int, x: Array) -> Array:
    y = _outputs(p, x)
    module.max_pool2d_direct_fprop(p, dtype_name(x.dtype), x, y, None, stream)
    return y


def _direct_max_winners(module: Any, p: Pool2dProblem, stream: int, x: Array) -> tuple[Array, Array]:
    y, winners = _outputs(p, x), empty((p.N, p.P, p.Q, p.C), _winner_type(p), x)
    module.max_pool2d_direct_fprop(p, dtype_name(x.dtype), x, y, winners, stream)
    return y, winners


def _direct_max_indices(module: Any, p: Pool2dProblem, stream: int, winners: Array) -> Array:
    indices = empty(winners.shape, np.int64, winners)
    module.max_pool2d_direct_indices(p, winners, indices, stream)
    return indices


def _direct_max_dgrad(module: Any, p: Pool2dProblem, stream: int, dy: Array, winners: Array) -> Array:
    dx = _images(p, dy)
    module.max_pool2d_direct_dgrad(p, dtype_name(dy.dtype), dy, winners, dx, stream)
    return dx


def _divided_by(p: AveragePool2dProblem) -> tuple[bool, float | None]:
    return p.count_include_pad, None if p.divisor_override is None else float(p.divisor_override)


def _direct_average(module: Any, p: AveragePool2dProblem, stream: int, x: Array) -> Array:
    y = _outputs(p.windows, x)
    module.avg_pool2d_direct_fprop(p.windows, dtype_name(x.dtype), *_divided_by(p), x, y, stream)
    return y


def _direct_average_dgrad(module: Any, p: AveragePool2dProblem, stream: int, dy: Array) -> Array:
    dx = _images(p.windows, dy)
    module.avg_pool2d_direct_dgrad(p.windows, dtype_name(dy.dtype), *_divided_by(p), dy, dx, stream)
    return dx


def _some_channels(p: AveragePool2dProblem) -> str | None:
    return None if p.windows.C else "needs channels, got C=0"


_MOST_PARTS = 1 << 24
"""Numbers, of 4 bytes each, that the global average may put aside: 64 MiB."""


def _global_average_only(p: AveragePool2dProblem) -> str | None:
    w = p.windows
    if reason := _some_channels(p) or reference.one_window(p):
        return reason
    if w.N * w.C * -(-w.H * w.W // 1024) > _MOST_PARTS:
        return "its partial sums would take more than 64 MiB"
    return None


def _global_average(module: Any, p: AveragePool2dProblem, stream: int, x: Array) -> Array:
    y, count = _outputs(p.windows, x), module.avg_pool2d_global_parts(p.windows)
    parts = empty((p.windows.N, count, p.windows.C), np.float32, x) if count > 1 else None
    module.avg_pool2d_global_fprop(p.windows, dtype_name(x.dtype), _divided_by(p)[1], x, parts, y, stream)
    return y


def _direct_lp(module: Any, p: LpPool2dProblem, stream: int, x: Array) -> tuple[Array, Array]:
    y = _outputs(p.windows, x)
    sums = empty(y.shape, np.float32, x)
    module.lp_pool2d_direct_fprop(p.windows, dtype_name(x.dtype), p.norm_type, x, y, sums, stream)
    return y, sums


def _direct_lp_dgrad(module: Any, p: LpPool2dProblem, stream: int, dy: Array, x: Array, sums: Array) -> Array:
    dx = _images(p.windows, dy)
    module.lp_pool2d_direct_dgrad(p.windows, dtype_name(dy.dtype), p.norm_type, dy, x, sums, dx, stream)
    return dx


def _magnitudes(module: Any, p: LpPool2dProblem, stream: int, x: Array) -> tuple[Array, Array]:
    y = _outputs(p.windows, x)
    winners = empty(y.shape, _winner_type(p.windows), x)
    module.lp_pool2d_magnitude_fprop(p.windows, dtype_name(x.dtype), p.norm_type > 0, x, y, winners, stream)
    return y, winners


def _magnitudes_dgrad(module: Any, p: LpPool2dProblem, stream: int, dy: Array, x: Array, winners: Array) -> Array:
    dx = _images(p.windows, dy)
    module.lp_pool2d_magnitude_dgrad(p.windows, dtype_name(dy.dtype), dy, x, winners, dx, stream)
    return dx


max_fprop = KernelTable("max_pool2d", "fprop")
compiled.add(max_fprop, "direct", _direct_max, dtypes=compiled.FLOATS)
max_fprop.add("taps", "reference", reference.max_fprop)

max_fprop_winners = KernelTable("max_pool2d", "fprop with winners")
compiled.add(max_fprop_winners, "direct", _direct_max_winners, dtypes=compiled.FLOATS)
max_fprop_winners.add("taps", "reference", reference.max_fprop_winners)

max_indices = KernelTable("max_pool2d", "indices")
compiled.add(max_indices, "direct", _direct_max_indices)
max_indices.add("arithmetic", "reference", reference.max_indices)

max_dgrad = KernelTable("max_pool2d", "dgrad")
compiled.add(max_dgrad, "direct", _direct_max_dgrad, dtypes=compiled.FLOATS)
max_dgrad.add("taps", "reference", reference.max_dgrad)

average_fprop = KernelTable("avg_pool2d", "fprop")
compiled.add(average_fprop, "global", _global_average, _global_average_only, compiled.FLOATS)
compiled.add(average_fprop, "direct", _direct_average, _some_channels, compiled.FLOATS)
average_fprop.add("whole_image", "reference", reference.average_fprop_whole, reference.one_window)
average_fprop.add("taps", "reference", reference.average_fprop)

average_dgrad = KernelTable("avg_pool2d", "dgrad")
compiled.add(average_dgrad, "direct", _direct_average_dgrad, _some_channels, compiled.FLOATS)
average_dgrad.add("whole_image", "reference", reference.average_dgrad_whole, reference.one_window)
average_dgrad.add("taps", "reference", reference.average_dgrad)

lp_fprop = KernelTable("lp_pool2d", "fprop")
compiled.add(lp_fprop, "direct", _direct_lp, lp.finite, compiled.FLOATS)
compiled.add(lp_fprop, "magnitudes", _magnitudes, lp.infinite, compiled.FLOATS)
lp_fprop.add("powers", "reference", lp.lp_fprop, lp.finite)
lp_fprop.add("magnitudes", "reference", lp.magnitude_fprop, lp.infinite)

lp_dgrad = KernelTable("lp_pool2d", "dgrad")
compiled.add(lp_dgrad, "direct", _direct_lp_dgrad, lp.finite, compiled.FLOATS)
compiled.add(lp_dgrad, "magnitudes", _magnitudes_dgrad, lp.infinite, compiled.FLOATS)
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
        ctx.problem = AveragePool2dProblem(problem, count_include_pad, divisor_override)
        return from_nhwc(average_fprop(ctx.problem, x, like=x))

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        dy = to_nhwc(dy)
        return from_nhwc(average_dgrad(ctx.problem, dy, like=dy))


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

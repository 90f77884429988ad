"""Batch, instance and group normalisation, one Function; layer normalisation; local response normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.autograd import Function
from gpucnn.backend import Array, contiguous
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import norm as reference
from gpucnn.reference.norm import NormProblem

moments = KernelTable("norm", "moments")
moments.add("shifted", "reference", reference.moments)

scale_shift = KernelTable("norm", "scale and shift")
scale_shift.add("blocks", "reference", reference.scale_shift)

gradient_sums = KernelTable("norm", "gradient sums")
gradient_sums.add("blocks", "reference", reference.gradient_sums)

dgrad = KernelTable("norm", "dgrad")
dgrad.add("blocks", "reference", reference.dgrad)


def _channels_last(x: Array) -> Array:
    """Logical (N,C,...) as C-contiguous (N,...,C): a free view where memory is channels-last, else a counted copy."""
    return contiguous(x.transpose((0, *range(2, x.ndim), 1)))


def _channels_second(y: Array) -> Array:
    """C-contiguous (N,...,C) as logical (N,C,...), always a view."""
    return y.transpose((0, y.ndim - 1, *range(1, y.ndim - 1)))


class Norm(Function):
    """x (N,C,...) -> (x - mean) / sqrt(var + eps) * weight + bias; weight and bias are (C,) or None.

    Parameters:
        problem: which elements share a mean and a variance.
        running: mean and variance (C,), or None.
        momentum: None: normalise by `running`. A number: by x's own statistics, and move `running` by it, in place.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Array,
        weight: Array | None,
        bias: Array | None,
        *,
        problem: NormProblem,
        eps: float,
        running: tuple[Array, Array] | None = None,
        momentum: float | None = None,
    ) -> Array:
        x = _channels_last(x)
        rows = x.reshape(problem.B, problem.M, problem.C)
        ctx.problem, ctx.own_statistics = problem, momentum is not None
        if momentum is not None:
            mean, var = moments(problem, rows, like=x)
            if running is not None and x.size:
                reference.moved(problem, running, mean, var, momentum)
        else:
            assert running is not None
            mean, var = (kept.astype(np.float64)[None] for kept in running)
        inverse, scale, shift = reference.coefficients(mean, var, eps, weight, bias)
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        ctx.save_for_backward(
            rows if needs_weight or (needs_x and ctx.own_statistics) else None, weight, mean, inverse
        )
        if ctx.own_statistics:
            y = scale_shift(problem, rows, mean, scale, shift, like=x)
        else:
            shift = -mean * scale if shift is None else shift - mean * scale
            y = scale_shift(problem, rows, None, scale, shift, like=x)
        return _channels_second(y.reshape(x.shape))

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array | None, ...]:
        dy = _channels_last(dy)
        problem = ctx.problem
        rows = dy.reshape(problem.B, problem.M, problem.C)
        x, weight, mean, inverse = ctx.saved
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        dx = dweight = dbias = total = products = None
        if needs_weight or needs_bias or ctx.own_statistics:
            total, products = gradient_sums(problem, rows, x, mean, like=dy)
        if needs_x:
            if ctx.own_statistics:
                by_dy, by_x, offset = reference.gradient_coefficients(problem, inverse, weight, total, products)
                dx = dgrad(problem, rows, x, mean, by_dy, by_x, offset, like=dy)
            else:
                by_dy = inverse if weight is None else inverse * weight
                dx = scale_shift(problem, rows, None, by_dy, None, like=dy)
            dx = _channels_second(dx.reshape(dy.shape))
        if needs_weight:
            dweight = (products * inverse).sum(axis=0).astype(weight.dtype)
        if needs_bias:
            dbias = total.sum(axis=0)
        return dx, dweight, dbias

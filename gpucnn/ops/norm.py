"""Batch, instance and group normalisation, one Function; layer normalisation; local response normalisation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpucnn.autograd import Function
from gpucnn.backend import Array, contiguous, from_nhwc, memory_order
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import layer_norm, local_response_norm
from gpucnn.reference import norm as reference
from gpucnn.reference.local_response_norm import LocalResponseProblem
from gpucnn.reference.norm import NormProblem

moments = KernelTable("norm", "moments")
moments.add("shifted", "reference", reference.moments)

scale_shift = KernelTable("norm", "scale and shift")
scale_shift.add("blocks", "reference", reference.scale_shift)

gradient_sums = KernelTable("norm", "gradient sums")
gradient_sums.add("blocks", "reference", reference.gradient_sums)

dgrad = KernelTable("norm", "dgrad")
dgrad.add("blocks", "reference", reference.dgrad)

layer_fprop = KernelTable("layer_norm", "fprop")
layer_fprop.add("rows", "reference", layer_norm.fprop)

layer_bprop = KernelTable("layer_norm", "bprop")
layer_bprop.add("rows", "reference", layer_norm.bprop)

local_fprop = KernelTable("local_response_norm", "fprop")
local_fprop.add("shifts", "reference", local_response_norm.fprop)

local_dgrad = KernelTable("local_response_norm", "dgrad")
local_dgrad.add("shifts", "reference", local_response_norm.dgrad)


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
        needs_x, needs_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(rows if needs_weight or (needs_x and ctx.own_statistics) else None, weight, mean, inverse)
        if ctx.own_statistics:
            y = scale_shift(problem, rows, mean, scale, shift, like=x)
        else:
            y = scale_shift(problem, rows, None, scale, reference.folded(mean, scale, shift), like=x)
        return _channels_second(y.reshape(x.shape))

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array | None, ...]:
        dy = _channels_last(dy)
        problem = ctx.problem
        rows = dy.reshape(problem.B, problem.M, problem.C)
        x, weight, mean, inverse = ctx.saved
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        dx = dweight = dbias = None
        total: Array = None
        products: Array = None
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
            dweight = (products * inverse).sum(axis=0)
        if needs_bias:
            dbias = total.sum(axis=0)
        return dx, dweight, dbias


class LayerNorm(Function):
    """x (...), normalised over its last `axes` axes; weight and bias have the sizes of these axes, or are None."""

    @staticmethod
    def forward(ctx: Any, x: Array, weight: Array | None, bias: Array | None, *, axes: int, eps: float) -> Array:
        outer = x.ndim - axes
        # Whole images are taken in the order in which they lie in memory, and their weights with them.
        ctx.order = memory_order(x) if axes >= 3 else None
        ctx.inner = None if ctx.order is None else [axis - outer for axis in ctx.order[outer:]]
        x = contiguous(x if ctx.order is None else x.transpose(ctx.order))
        rows = x.reshape(math.prod(x.shape[:outer]), math.prod(x.shape[outer:]))
        ctx.sizes = x.shape[outer:]
        weight, bias = (_flat(array, ctx.inner) for array in (weight, bias))
        y, mean, inverse = layer_fprop(eps, rows, weight, bias, like=x)
        ctx.save_for_backward(rows, weight, mean, inverse)
        y = y.reshape(x.shape)
        return y if ctx.order is None else from_nhwc(y)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array | None, ...]:
        rows, weight, mean, inverse = ctx.saved
        dy = contiguous(dy if ctx.order is None else dy.transpose(ctx.order))
        dx, dweight, dbias = layer_bprop(None, dy.reshape(rows.shape), rows, weight, mean, inverse, like=dy)
        dx = dx.reshape(dy.shape)
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            (dx if ctx.order is None else from_nhwc(dx)) if needs_x else None,
            _unflat(dweight, ctx.sizes, ctx.inner) if needs_weight else None,
            _unflat(dbias, ctx.sizes, ctx.inner) if needs_bias else None,
        )


def _flat(weight: Array | None, order: list[int] | None) -> Array | None:
    """A weight's numbers in the order of memory."""
    if weight is None:
        return None
    return (weight if order is None else weight.transpose(order)).reshape(-1)


def _unflat(gradient: Array, sizes: tuple[int, ...], order: list[int] | None) -> Array:
    """What `_flat` has done, undone; `sizes` are those in the order of memory."""
    gradient = gradient.reshape(sizes)
    return gradient if order is None else gradient.transpose([order.index(axis) for axis in range(len(order))])


class LocalResponseNorm(Function):
    """x (N,C,...) over a power of the squares of its neighbours among the channels."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, problem: LocalResponseProblem) -> Array:
        x = _channels_last(x)
        ctx.problem = problem
        ctx.save_for_backward(x)
        return _channels_second(local_fprop(problem, _rows(x), like=x).reshape(x.shape))

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        (x,) = ctx.saved
        dx = local_dgrad(ctx.problem, _rows(_channels_last(dy)), _rows(x), like=x)
        return _channels_second(dx.reshape(x.shape))


def _rows(x: Array) -> Array:
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])

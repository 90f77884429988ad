"""Batch, instance and group normalisation, one Function; layer normalisation; local response normalisation."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from gpucnn.autograd import Function
from gpucnn.backend import Array, dtype_name, empty, from_nhwc, memory_order
from gpucnn.ops import compiled
from gpucnn.ops.memory import Axes, contiguous, inverse
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import layer_norm, local_response_norm
from gpucnn.reference import norm as reference
from gpucnn.reference.local_response_norm import LocalResponseProblem
from gpucnn.reference.norm_problem import Moments, NormProblem, Wanted


def _columns_fprop(
    module: Any,
    p: NormProblem,
    stream: int,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running: tuple[Array, Array] | None,
    residual: Array | None,
    given: Moments | None = None,
) -> tuple[Array, Array, Array]:
    if not x.size:
        return reference.fprop(p, x, weight, bias, running, residual)
    y = empty(x.shape, x.dtype, x)
    mean, inverse = empty((2, p.B, p.C), np.float64, x)
    partial, taken, rows = None, None, 0
    if given is not None:
        taken, rows = given
        if (splits := module.norm_condensed_splits(given.splits)) < given.splits:
            partial = empty((1, 2 * splits + 1, p.C), np.float32, x)
    elif p.own_statistics:  # less than a fiftieth of x
        partial = empty((p.B, 2 * module.norm_splits(p, dtype_name(x.dtype)) + 1, p.C), np.float32, x)
    linear = empty((3, p.B, p.C), np.float32, x)
    kept = (None, None) if running is None else tuple(_single(array) for array in running)
    module.norm_fprop(
        *(p, dtype_name(x.dtype), x, _single(weight), _single(bias), *kept),
        *(residual, y, mean, inverse, partial, linear, stream, taken, rows),
    )
    if running is not None and p.own_statistics:
        for array, moved in zip(running, kept, strict=True):
            if moved is not array:
                array[...] = moved
    return y, mean, inverse


def _columns_bprop(
    module: Any,
    p: NormProblem,
    stream: int,
    dy: Array,
    x: Array | None,
    y: Array | None,
    weight: Array | None,
    mean: Array,
    inverse: Array,
    wanted: Wanted,
) -> tuple[Array | None, Array | None, Array | None, Array | None]:
    if not dy.size:
        return reference.bprop(p, dy, x, y, weight, mean, inverse, wanted)
    dx, passed = (
        empty(dy.shape, dy.dtype, dy) if is_wanted else None
        for is_wanted in (wanted.x, wanted.residual and p.limit is not None)
    )
    dweight, dbias = (
        empty((p.C,), np.float32, dy) if is_wanted else None for is_wanted in (wanted.weight, wanted.bias)
    )
    partial = None
    if wanted.weight or wanted.bias or (wanted.x and p.own_statistics):
        partial = empty((p.B, 2 * module.norm_splits(p, dtype_name(dy.dtype)), p.C), np.float32, dy)
    linear = empty((4, p.B, p.C), np.float32, dy)
    module.norm_bprop(
        *(p, dtype_name(dy.dtype), dy, x, y, _single(weight), mean, inverse),
        *(dx, dweight, dbias, passed, partial, linear, stream),
    )
    return dx, dweight, dbias, passed


def _single(array: Array | None) -> Array | None:
    """What belongs to channels as the kernels take it: in float32."""
    if array is None or (array.dtype == np.float32 and array.flags.c_contiguous):
        return array
    return contiguous(array.astype(np.float32, copy=False))


fprop = KernelTable("norm", "fprop")
"""(problem, x, weight, bias, running, residual, Moments of a batch norm's x or None) -> (y, mean, 1 / deviation)."""
compiled.add(fprop, "columns", _columns_fprop, dtypes=compiled.FLOATS)
fprop.add("blocks", "reference", reference.fprop)

bprop = KernelTable("norm", "bprop")
compiled.add(bprop, "columns", _columns_bprop, dtypes=compiled.FLOATS)
bprop.add("blocks", "reference", reference.bprop)


def _rows_fprop(
    module: Any, eps: float, stream: int, x: Array, weight: Array | None, bias: Array | None
) -> tuple[Array, Array, Array]:
    if not x.size:
        return layer_norm.fprop(eps, x, weight, bias)
    y = empty(x.shape, x.dtype, x)
    mean, inverse = empty((2, len(x), 1), np.float64, x)
    module.layer_norm_fprop(eps, dtype_name(x.dtype), x, _single(weight), _single(bias), y, mean, inverse, stream)
    return y, mean, inverse


def _rows_bprop(
    module: Any,
    wanted: Wanted,
    stream: int,
    dy: Array,
    x: Array,
    weight: Array | None,
    mean: Array,
    inverse: Array,
) -> tuple[Array | None, Array | None, Array | None]:
    if not x.size:
        return layer_norm.bprop(wanted, dy, x, weight, mean, inverse)
    M, L = x.shape
    dx = empty(dy.shape, dy.dtype, dy) if wanted.x else None
    sums, partial = None, None
    if wanted.weight or wanted.bias:
        sums = empty((2, L), np.float32, dy)
        if (splits := module.layer_norm_splits(dtype_name(dy.dtype), M, L)) > 1:
            partial = empty((splits, 2, L), np.float32, dy)
    module.layer_norm_bprop(dtype_name(dy.dtype), dy, x, _single(weight), mean, inverse, dx, sums, partial, stream)
    return (dx, None, None) if sums is None else (dx, sums[1], sums[0])


layer_fprop = KernelTable("layer_norm", "fprop")
compiled.add(layer_fprop, "rows", _rows_fprop, dtypes=compiled.FLOATS)
layer_fprop.add("rows", "reference", layer_norm.fprop)

layer_bprop = KernelTable("layer_norm", "bprop")
compiled.add(layer_bprop, "rows", _rows_bprop, dtypes=compiled.FLOATS)
layer_bprop.add("rows", "reference", layer_norm.bprop)


def _window_fprop(module: Any, p: LocalResponseProblem, stream: int, x: Array) -> Array:
    y = empty(x.shape, x.dtype, x)
    module.local_response_fprop(dtype_name(x.dtype), p.size, p.alpha, p.beta, p.k, x, y, stream)
    return y


def _window_dgrad(module: Any, p: LocalResponseProblem, stream: int, dy: Array, x: Array) -> Array:
    dx = empty(x.shape, x.dtype, x)
    module.local_response_dgrad(dtype_name(x.dtype), p.size, p.alpha, p.beta, p.k, dy, x, dx, stream)
    return dx


local_fprop = KernelTable("local_response_norm", "fprop")
compiled.add(local_fprop, "windows", _window_fprop, dtypes=compiled.FLOATS)
local_fprop.add("shifts", "reference", local_response_norm.fprop)

local_dgrad = KernelTable("local_response_norm", "dgrad")
compiled.add(local_dgrad, "windows", _window_dgrad, dtypes=compiled.FLOATS)
local_dgrad.add("shifts", "reference", local_response_norm.dgrad)


def _channels_last(x: Array) -> Array:
    """Logical (N,C,...) as C-contiguous (N,...,C): a free view where memory is channels-last, else a counted copy."""
    return contiguous(x.transpose(_last(x.ndim)))


def _channels_second(y: Array) -> Array:
    """C-contiguous (N,...,C) as logical (N,C,...), always a view."""
    return y.transpose(inverse(_last(y.ndim)))


@functools.cache
def _last(ndim: int) -> Axes:
    return (0, *range(2, ndim), 1)


class Norm(Function):
    """x (N,C,...) -> (x - mean) / sqrt(var + eps) * weight + bias; weight and bias are (C,) or None.

    Parameters:
        problem: which elements share a mean and a variance, and whether these are x's own or `running`.
        running: mean and variance (C,), moved in place in the former case; or None.
        moments: of a batch norm's x, taken already; or None.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Array,
        weight: Array | None,
        bias: Array | None,
        *,
        problem: NormProblem,
        running: tuple[Array, Array] | None = None,
        moments: Moments | None = None,
    ) -> Array:
        return _forward(ctx, x, weight, bias, None, problem, running, moments)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array | None, ...]:
        return _backward(ctx, dy)[:3]


class NormReLU(Function):
    """As Norm, with `residual`, of x's shape or None, added, and the sum cut to [0, problem.limit]."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Array,
        weight: Array | None,
        bias: Array | None,
        residual: Array | None,
        *,
        problem: NormProblem,
        running: tuple[Array, Array] | None = None,
        moments: Moments | None = None,
    ) -> Array:
        return _forward(ctx, x, weight, bias, residual, problem, running, moments)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array | None, ...]:
        return _backward(ctx, dy)


def _forward(
    ctx: Any,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    residual: Array | None,
    problem: NormProblem,
    running: tuple[Array, Array] | None,
    moments: Moments | None,
) -> Array:
    x = _channels_last(x)
    shape = problem.B, problem.M, problem.C
    rows = x.reshape(shape)
    added = None if residual is None else _channels_last(residual).reshape(shape)
    y, mean, inverse = fprop(problem, rows, weight, bias, running, added, moments, like=x)
    ctx.problem = problem
    needs_x, needs_weight = ctx.needs_input_grad[:2]
    ctx.save_for_backward(
        rows if needs_weight or (needs_x and problem.own_statistics) else None,
        y if problem.limit is not None and True in ctx.needs_input_grad else None,
        weight,
        mean,
        inverse,
    )
    return _channels_second(y.reshape(x.shape))


def _backward(ctx: Any, dy: Array) -> tuple[Array | None, ...]:
    dy = _channels_last(dy)
    problem: NormProblem = ctx.problem
    rows = dy.reshape(problem.B, problem.M, problem.C)
    x, y, weight, mean, inverse = ctx.saved
    dx, dweight, dbias, dresidual = bprop(
        problem, rows, x, y, weight, mean, inverse, Wanted(*ctx.needs_input_grad), like=dy
    )
    dx, dresidual = (None if g is None else _channels_second(g.reshape(dy.shape)) for g in (dx, dresidual))
    return dx, dweight, dbias, dresidual


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
        wanted = Wanted(*ctx.needs_input_grad)
        dx, dweight, dbias = layer_bprop(wanted, dy.reshape(rows.shape), rows, weight, mean, inverse, like=dy)
        if wanted.x:
            dx = dx.reshape(dy.shape)
            dx = dx if ctx.order is None else from_nhwc(dx)
        return (
            dx if wanted.x else None,
            _unflat(dweight, ctx.sizes, ctx.inner) if wanted.weight else None,
            _unflat(dbias, ctx.sizes, ctx.inner) if wanted.bias else None,
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

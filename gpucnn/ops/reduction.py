"""Sums, extrema, products and their like over axes, in the order that memory has."""

from __future__ import annotations

import math
from typing import Any

from gpucnn.autograd import Function
from gpucnn.backend import Array, empty, namespace
from gpucnn.ops.memory import PLAIN, inverse, memory_axes
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import reduction as reference
from gpucnn.reference.reduction import NormProblem, VarProblem

Axes = tuple[int, ...]

sum_ = KernelTable("sum", "forward")
sum_.add("array", "reference", reference.sum_)

mean = KernelTable("mean", "forward")
mean.add("array", "reference", reference.mean)


def _pair(name: str, run: Any, gradient: Any) -> tuple[KernelTable, KernelTable]:
    forward, backward = KernelTable(name, "forward"), KernelTable(name, "backward")
    forward.add("array", "reference", run)
    backward.add("array", "reference", gradient)
    return forward, backward


amax, amax_grad = _pair("amax", reference.amax, reference.extremum_grad)
amin, amin_grad = _pair("amin", reference.amin, reference.extremum_grad)
prod, prod_grad = _pair("prod", reference.prod, reference.prod_grad)
logsumexp, logsumexp_grad = _pair("logsumexp", reference.logsumexp, reference.logsumexp_grad)
var, var_grad = _pair("var", reference.var, reference.var_grad)
norm, norm_grad = _pair("norm", reference.norm, reference.norm_grad)


def summed(x: Array, axes: Axes) -> Array:
    """x summed over `axes`, which stay with size 1."""
    return _over(sum_, x, axes, memory_axes(x))


def _over(table: KernelTable, x: Array, axes: Axes, order: Axes) -> Array:
    if order is PLAIN[x.ndim]:
        return table(axes, x, like=x)
    view = x.transpose(order)
    return table(_moved(axes, order), view, like=view).transpose(inverse(order))


def _moved(axes: Axes, order: Axes) -> Axes:
    """Where the axes are in an array transposed by `order`."""
    return tuple(sorted([order.index(axis) for axis in axes]))


def _kept(shape: Axes, axes: Axes, keepdims: bool) -> Axes:
    """`shape` with the reduced axes of size 1, or without them."""
    return tuple([1 if i in axes else size for i, size in enumerate(shape) if keepdims or i not in axes])


class _Linear(Function):
    """A sum or mean: its gradient is dy, divided by the same number everywhere, and needs nothing saved."""

    table: KernelTable

    @classmethod
    def forward(cls, ctx: Any, x: Array, *, axes: Axes, keepdims: bool) -> Array:
        ctx.shape, ctx.axes, ctx.order = x.shape, axes, memory_axes(x)
        y = _over(cls.table, x, axes, ctx.order)
        return y if keepdims else y.reshape(_kept(x.shape, axes, False))

    @staticmethod
    def spread(ctx: Any, dy: Array) -> Array:
        """dy in the shape that it was reduced from: a view, but for images channels-last memory."""
        xp = namespace(dy)
        dx = xp.broadcast_to(dy.reshape(_kept(ctx.shape, ctx.axes, True)), ctx.shape)
        if ctx.order is PLAIN[len(ctx.shape)]:
            return dx
        laid_out = empty(tuple([ctx.shape[axis] for axis in ctx.order]), dy.dtype, dy)
        laid_out[...] = dx.transpose(ctx.order)
        return laid_out.transpose(inverse(ctx.order))


class Sum(_Linear):
    """Over the given axes (non-negative, distinct)."""

    table = sum_

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return _Linear.spread(ctx, dy)


class Mean(_Linear):
    """Over the given axes (non-negative, distinct)."""

    table = mean

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        count = math.prod([ctx.shape[axis] for axis in ctx.axes])
        return _Linear.spread(ctx, namespace(dy).asarray(dy / max(1, count)))  # numpy makes scalars of no axes


class _Saving(Function):
    """A reduction whose gradient is a kernel of dy, x and y."""

    table: KernelTable
    gradient: KernelTable

    @staticmethod
    def problem(axes: Axes, **parameters: Any) -> Any:
        return axes

    @classmethod
    def forward(cls, ctx: Any, x: Array, *, axes: Axes, keepdims: bool, **parameters: Any) -> Array:
        ctx.order = memory_axes(x)
        ctx.gradient, ctx.problem = cls.gradient, cls.problem(_moved(axes, ctx.order), **parameters)
        view = x.transpose(ctx.order)
        y = cls.table(ctx.problem, view, like=view)
        ctx.save_for_backward(x, y)
        return y.transpose(inverse(ctx.order)).reshape(_kept(x.shape, axes, keepdims))

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        x, y = ctx.saved
        logical = tuple([y.shape[axis] for axis in inverse(ctx.order)])
        view = x.transpose(ctx.order)
        dx = ctx.gradient(ctx.problem, dy.reshape(logical).transpose(ctx.order), view, y, like=view)
        return dx.transpose(inverse(ctx.order))


class Amax(_Saving):
    """The greatest element; its gradient goes to all that are equal, in equal parts."""

    table, gradient = amax, amax_grad


class Amin(_Saving):
    """The least element; its gradient goes to all that are equal, in equal parts."""

    table, gradient = amin, amin_grad


class Prod(_Saving):
    """The product."""

    table, gradient = prod, prod_grad


class LogSumExp(_Saving):
    """log(sum(exp(x)))."""

    table, gradient = logsumexp, logsumexp_grad


class Var(_Saving):
    """Variance, or with root=True standard deviation."""

    table, gradient = var, var_grad

    @staticmethod
    def problem(axes: Axes, **parameters: Any) -> VarProblem:
        return VarProblem(axes, **parameters)


class Norm(_Saving):
    """The p-norm for finite p."""

    table, gradient = norm, norm_grad

    @staticmethod
    def problem(axes: Axes, **parameters: Any) -> NormProblem:
        return NormProblem(axes, **parameters)

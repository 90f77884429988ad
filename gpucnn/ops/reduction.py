"""Sums, extrema, products and their like over axes, in the order that memory has."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpucnn.autograd import Function
from gpucnn.backend import Array, dtype_name, empty, namespace
from gpucnn.ops import compiled
from gpucnn.ops.memory import PLAIN, inverse, laid_out, memory_axes
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import reduction as reference
from gpucnn.reference.reduction import NormProblem, VarProblem

Axes = tuple[int, ...]


# ------------------------------------------------------------------------------------------------- compiled kernels


def grouped(shape: Axes, axes: Axes) -> Axes | None:
    """(outer, reduced, inner): the product of the axes before the reduced ones, of these, of those behind them.

    None where other axes lie between them; axes of size 1 lie nowhere.
    """
    sizes, stage = [1, 1, 1], 0
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        reduced = axis in axes
        if reduced and stage == 2:
            return None
        if reduced or stage == 1:
            stage = 1 if reduced else 2
        sizes[stage] *= size
    return tuple(sizes)


class _Plan:
    """An array as compiled reductions take it: `x` (outer, reduced, inner), laid out anew where it has to be."""

    def __init__(self, x: Array, axes: Axes) -> None:
        self.order: Axes = ()
        found = grouped(x.shape, axes) if x.flags.c_contiguous else None
        self.kept = _kept(x.shape, axes, True)
        if found is None:
            self.order = (*[axis for axis in range(x.ndim) if axis not in axes], *axes)
            x = x.transpose(self.order)
            x = x if x.flags.c_contiguous else laid_out(x)
            count = math.prod([x.shape[axis] for axis in range(x.ndim - len(axes), x.ndim)])
            found = math.prod(x.shape[: x.ndim - len(axes)]), count, 1
        self.laid_out = x.shape
        self.x = x.reshape(found)
        self.results = found[0], found[2]

    def result(self, array: Array) -> Array:
        """`array`, of the shape of the reduction's result, as (outer, inner)."""
        return (array if array.flags.c_contiguous else laid_out(array)).reshape(self.results)

    def restored(self, dx: Array) -> Array:
        """dx, of the shape of `x`, with the axes of the array that the plan was made for."""
        dx = dx.reshape(self.laid_out)
        return dx.transpose(inverse(self.order)) if self.order else dx


def _reduced(
    module: Any,
    stream: int,
    plan: _Plan,
    name: str,
    dtype: Any = None,
    *,
    centre: Array | None = None,
    exponent: float = 1.0,
    finish: str = "none",
    by: float = 1.0,
) -> Array:
    """(outer, inner) of plan.x under csrc/reduction's `name`, in `dtype` or that of x."""
    x = plan.x
    outer, terms, inner = x.shape
    splits = module.reduce_splits(terms, inner)
    y = empty(plan.results, x.dtype if dtype is None else dtype, x)
    partial = empty((outer, splits, inner), np.float32, x) if splits > 1 else None
    module.reduce(name, dtype_name(x.dtype), x, y, centre, partial, exponent, finish, by, stream)
    return y


def _simple(name: str, finish: str = "none") -> Any:
    """The call of a reduction whose problem is its axes."""

    def call(module: Any, axes: Axes, stream: int, x: Array) -> Array:
        plan = _Plan(x, axes)
        terms = plan.x.shape[1]
        return _reduced(module, stream, plan, name, finish=finish, by=terms).reshape(plan.kept)

    return call


def _extremum(name: str) -> Any:
    reduce = _simple(name)

    def call(module: Any, axes: Axes, stream: int, x: Array) -> Array:
        if x.size == 0 and math.prod(_kept(x.shape, axes, True)) > 0:
            raise ValueError(f"the {name} of no elements is not defined")
        return reduce(module, axes, stream, x)

    return call


def _mean_grad(module: Any, terms: int, stream: int, dy: Array) -> Array:
    dy = dy if dy.flags.c_contiguous else laid_out(dy)
    return _mapped(module, "divided_by", stream, dy, (dy,), max(1, terms))


def _logsumexp(module: Any, axes: Axes, stream: int, x: Array) -> Array:
    plan = _Plan(x, axes)
    top = _reduced(module, stream, plan, "largest", np.float32)
    return _reduced(module, stream, plan, "sum_of_exponentials", centre=top, finish="log").reshape(plan.kept)


def _mean32(module: Any, stream: int, plan: _Plan) -> Array:
    return _reduced(module, stream, plan, "sum", np.float32, finish="divide", by=plan.x.shape[1])


def _var(module: Any, p: VarProblem, stream: int, x: Array) -> Array:
    plan = _Plan(x, p.axes)
    centre, finish = _mean32(module, stream, plan), "root" if p.root else "divide"
    y = _reduced(module, stream, plan, "sum_of_squared_deviations", centre=centre, finish=finish, by=p.divisor(x))
    return y.reshape(plan.kept)


def _var_grad(module: Any, p: VarProblem, stream: int, dy: Array, x: Array, y: Array) -> Array:
    plan = _Plan(x, p.axes)
    dx = empty(plan.x.shape, x.dtype, x)
    dy, y, mean = plan.result(dy), plan.result(y), _mean32(module, stream, plan)
    module.var_grad(dtype_name(x.dtype), dy, plan.x, y, mean, dx, p.divisor(x), p.root, stream)
    return plan.restored(dx)


def _norm(module: Any, p: NormProblem, stream: int, x: Array) -> Array:
    plan = _Plan(x, p.axes)
    if p.p == 2:
        y = _reduced(module, stream, plan, "sum_of_squares", finish="root")
    elif p.p in (0, 1):
        y = _reduced(module, stream, plan, "sum_of_powers", exponent=p.p)
    else:
        y = _reduced(module, stream, plan, "sum_of_powers", exponent=p.p, finish="power", by=1 / p.p)
    return y.reshape(plan.kept)


def _mapped(module: Any, name: str, stream: int, like: Array, arrays: tuple[Array, ...], *parameters: float) -> Array:
    """A function of csrc/elementwise of arrays that broadcast to `like`."""
    dx = empty(like.shape, like.dtype, like)
    module.elementwise(name, dtype_name(like.dtype), arrays, dx, parameters, stream)
    return dx


def _norm_grad(module: Any, p: NormProblem, stream: int, dy: Array, x: Array, y: Array) -> Array:
    if p.p == 0:
        return namespace(x).zeros(x.shape, x.dtype)
    if p.p == 1:
        return _mapped(module, "norm_1_grad", stream, x, (dy, x))
    if p.p == 2:
        return _mapped(module, "norm_2_grad", stream, x, (dy, x, y))
    return _mapped(module, "norm_grad", stream, x, (dy, x, y), p.p)


def _logsumexp_grad(module: Any, axes: Axes, stream: int, dy: Array, x: Array, y: Array) -> Array:
    return _mapped(module, "logsumexp_grad", stream, x, (dy, x, y))


def _extremum_grad(module: Any, axes: Axes, stream: int, dy: Array, x: Array, y: Array) -> Array:
    plan = _Plan(x, axes)
    counts = _reduced(module, stream, plan, "count_of_equal", np.float32, centre=plan.result(y))
    dx = empty(plan.x.shape, x.dtype, x)
    module.extremum_grad(dtype_name(x.dtype), plan.result(dy), plan.x, plan.result(y), counts, dx, stream)
    return plan.restored(dx)


def _prod_grad(module: Any, axes: Axes, stream: int, dy: Array, x: Array, y: Array) -> Array:
    plan = _Plan(x, axes)
    dx = empty(plan.x.shape, x.dtype, x)
    module.prod_grad(dtype_name(x.dtype), plan.result(dy), plan.x, dx, stream)
    return plan.restored(dx)


# ---------------------------------------------------------------------------------------------------------- tables


def _table(op: str, direction: str, call: Any, name: str, run: Any) -> KernelTable:
    """With a compiled kernel `name`, and that of the reference."""
    table = KernelTable(op, direction)
    compiled.add(table, name, call, dtypes=compiled.FLOATS)
    table.add("array", "reference", run)
    return table


def _pair(op: str, call: Any, run: Any, gradient_call: Any, gradient: Any) -> tuple[KernelTable, KernelTable]:
    return _table(op, "forward", call, "tree", run), _table(op, "backward", gradient_call, "map", gradient)


sum_ = _table("sum", "forward", _simple("sum"), "tree", reference.sum_)
mean = _table("mean", "forward", _simple("sum", "divide"), "tree", reference.mean)
mean_grad = _table("mean", "backward", _mean_grad, "map", reference.mean_grad)

amax, amax_grad = _pair("amax", _extremum("largest"), reference.amax, _extremum_grad, reference.extremum_grad)
amin, amin_grad = _pair("amin", _extremum("smallest"), reference.amin, _extremum_grad, reference.extremum_grad)
prod, prod_grad = _pair("prod", _simple("product"), reference.prod, _prod_grad, reference.prod_grad)
logsumexp, logsumexp_grad = _pair(
    "logsumexp", _logsumexp, reference.logsumexp, _logsumexp_grad, reference.logsumexp_grad
)
var, var_grad = _pair("var", _var, reference.var, _var_grad, reference.var_grad)
norm, norm_grad = _pair("norm", _norm, reference.norm, _norm_grad, reference.norm_grad)


# ------------------------------------------------------------------------------------------------------- the ops


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
        return laid_out(dx.transpose(ctx.order)).transpose(inverse(ctx.order))


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
        terms = math.prod([ctx.shape[axis] for axis in ctx.axes])
        return _Linear.spread(ctx, mean_grad(terms, dy, like=dy))


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

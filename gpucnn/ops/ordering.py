"""Positions of extrema, orders, elements picked by position, and running sums, in the order that memory has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpucnn.autograd import Function
from gpucnn.backend import Array
from gpucnn.ops.memory import inverse, memory_axes
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import ordering as reference
from gpucnn.reference.ordering import CumsumProblem, PutProblem, SortProblem


def _table(name: str, run: Callable[..., Any]) -> KernelTable:
    table = KernelTable(name, "forward")
    table.add("array", "reference", run)
    return table


argmax = _table("argmax", reference.argmax)
argmin = _table("argmin", reference.argmin)
argsort = _table("argsort", reference.argsort)
take = _table("take", reference.take)
put = _table("put", reference.put)
cumsum = _table("cumsum", reference.cumsum)


class ArgExtremum(Function):
    """int64 position of the first maximum (minimum) along `axis`, which stays with size 1."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, axis: int, largest: bool) -> Array:
        order = memory_axes(x)
        view = x.transpose(order)
        table = argmax if largest else argmin
        return table(order.index(axis), view, like=view).transpose(inverse(order))


class Argsort(Function):
    """int64 positions that sort along `axis`, stably; NaN is greater than any number."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, axis: int, descending: bool) -> Array:
        order = memory_axes(x)
        view = x.transpose(order)
        return argsort(SortProblem(order.index(axis), descending), view, like=view).transpose(inverse(order))


class Take(Function):
    """The elements of x at distinct positions `index` (int64) along `axis`."""

    @staticmethod
    def forward(ctx: Any, x: Array, index: Array, *, axis: int) -> Array:
        ctx.order = memory_axes(x)
        ctx.problem = PutProblem(ctx.order.index(axis), x.shape[axis])
        view, positions = x.transpose(ctx.order), index.transpose(ctx.order)
        ctx.save_for_backward(positions)
        return take(ctx.problem.axis, view, positions, like=view).transpose(inverse(ctx.order))

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array, None]:
        dx = put(ctx.problem, dy.transpose(ctx.order), ctx.saved[0], like=dy)
        return dx.transpose(inverse(ctx.order)), None


class Cumsum(Function):
    """Running sums along `axis`."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, axis: int) -> Array:
        ctx.axis = axis
        return _running(x, axis, backwards=False)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return _running(dy, ctx.axis, backwards=True)


def _running(x: Array, axis: int, *, backwards: bool) -> Array:
    order = memory_axes(x)
    view = x.transpose(order)
    return cumsum(CumsumProblem(order.index(axis), backwards), view, like=view).transpose(inverse(order))

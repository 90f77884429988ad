"""Positions of extrema, orders, elements picked by position, and running sums, in the order that memory has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpucnn.autograd import Function
from gpucnn.backend import Array, contiguous, dtype_name, empty, zeros
from gpucnn.ops import compiled
from gpucnn.ops.memory import inverse, memory_axes
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import ordering as reference
from gpucnn.reference.ordering import CumsumProblem, PutProblem, SortProblem

_INT64 = np.dtype(np.int64)
_MOVED = (*compiled.FLOATS, "uint8", "int32", "int64")
"""The dtypes whose elements kernels move."""


def _along(shape: tuple[int, ...], axis: int, length: int) -> tuple[int, ...]:
    return (*shape[:axis], length, *shape[axis + 1 :])


def _extremum(largest: bool) -> Callable[..., Array]:
    def run(module: Any, axis: int, stream: int, x: Array) -> Array:
        index = empty(_along(x.shape, axis, 1), _INT64, x)
        module.extremum(dtype_name(x.dtype), contiguous(x), index, axis, largest, stream)
        return index

    return run


def _take(module: Any, axis: int, stream: int, x: Array, index: Array) -> Array:
    y = empty(index.shape, x.dtype, x)
    module.take(dtype_name(x.dtype), contiguous(x), contiguous(index), y, axis, stream)
    return y


def _put(module: Any, p: PutProblem, stream: int, dy: Array, index: Array) -> Array:
    dx = zeros(_along(dy.shape, p.axis, p.size), dy.dtype, dy)
    module.put(dtype_name(dy.dtype), contiguous(dy), contiguous(index), dx, p.axis, stream)
    return dx


def _running_sum(module: Any, p: CumsumProblem, stream: int, x: Array) -> Array:
    y = empty(x.shape, x.dtype, x)
    module.running_sum(dtype_name(x.dtype), contiguous(x), y, p.axis, p.backwards, stream)
    return y


def _table(
    name: str,
    array_code: Callable[..., Any],
    call: Callable[..., Any] | None = None,
    dtypes: tuple[str, ...] = compiled.FLOATS,
) -> KernelTable:
    table = KernelTable(name, "forward")
    if call is not None:
        compiled.add(table, "rows_or_columns" if dtypes is compiled.FLOATS else "elements", call, dtypes=dtypes)
    table.add("array", "reference", array_code)
    return table


argmax = _table("argmax", reference.argmax, _extremum(largest=True))
argmin = _table("argmin", reference.argmin, _extremum(largest=False))
argsort = _table("argsort", reference.argsort)
take = _table("take", reference.take, _take, _MOVED)
put = _table("put", reference.put, _put, _MOVED)
cumsum = _table("cumsum", reference.cumsum, _running_sum)


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

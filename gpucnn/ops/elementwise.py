"""Arithmetic with broadcasting; all in the order that memory has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpucnn.autograd import Function
from gpucnn.backend import NHWC, Array, contiguous, from_nhwc, memory_order, namespace
from gpucnn.ops.reduction import sum_
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import elementwise as reference


def in_memory_order(run: Callable[..., Array], problem: Any, *arrays: Array) -> Array:
    """run(problem, *arrays) on the arrays' views in memory order; arrays may broadcast.

    Where one image array is channels-last all are seen as N,H,W,C, so that the result is channels-last too whatever
    order the array library would answer in.
    """
    if not any([memory_order(array) for array in arrays]) or max([array.ndim for array in arrays]) > 4:
        result = run(problem, *arrays, like=arrays[0])
        # Of arrays without axes numpy makes scalars.
        return result if result.ndim else namespace(arrays[0]).asarray(result)
    views = [contiguous(a.reshape((1,) * (4 - a.ndim) + a.shape).transpose(NHWC)) for a in arrays]
    return from_nhwc(run(problem, *views, like=views[0]))


def unbroadcast(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Sums `gradient` over the axes along which an array of `shape` was repeated."""
    if gradient.shape == shape:
        return gradient
    extra = gradient.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(i + extra for i, size in enumerate(shape) if size == 1)
    return sum_((axes, True), gradient, like=gradient).reshape(shape)


def _table(name: str) -> KernelTable:
    table = KernelTable(name, "forward")
    table.add("array", "reference", getattr(reference, name))
    return table


add, subtract, multiply, divide = (_table(name) for name in ("add", "subtract", "multiply", "divide"))
negative, power, exp, log = (_table(name) for name in ("negative", "power", "exp", "log"))


def _unbroadcast_both(ctx: Any, da: Array | None, db: Array | None) -> tuple[Array | None, Array | None]:
    return (
        None if da is None else unbroadcast(da, ctx.shapes[0]),
        None if db is None else unbroadcast(db, ctx.shapes[1]),
    )


class Add(Function):
    @staticmethod
    def forward(ctx: Any, a: Array, b: Array) -> Array:
        ctx.shapes = a.shape, b.shape
        return in_memory_order(add, None, a, b)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array | None, Array | None]:
        return _unbroadcast_both(ctx, dy if ctx.needs_input_grad[0] else None, dy if ctx.needs_input_grad[1] else None)


class Subtract(Function):
    @staticmethod
    def forward(ctx: Any, a: Array, b: Array) -> Array:
        ctx.shapes = a.shape, b.shape
        return in_memory_order(subtract, None, a, b)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array | None, Array | None]:
        return _unbroadcast_both(
            ctx,
            dy if ctx.needs_input_grad[0] else None,
            in_memory_order(negative, None, dy) if ctx.needs_input_grad[1] else None,
        )


class Multiply(Function):
    @staticmethod
    def forward(ctx: Any, a: Array, b: Array) -> Array:
        ctx.shapes = a.shape, b.shape
        ctx.save_for_backward(a, b)
        return in_memory_order(multiply, None, a, b)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array | None, Array | None]:
        a, b = ctx.saved
        return _unbroadcast_both(
            ctx,
            in_memory_order(multiply, None, dy, b) if ctx.needs_input_grad[0] else None,
            in_memory_order(multiply, None, dy, a) if ctx.needs_input_grad[1] else None,
        )


class Divide(Function):
    @staticmethod
    def forward(ctx: Any, a: Array, b: Array) -> Array:
        ctx.shapes = a.shape, b.shape
        y = in_memory_order(divide, None, a, b)
        ctx.save_for_backward(b, y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array | None, Array | None]:
        b, y = ctx.saved
        da = in_memory_order(divide, None, dy, b)
        if not ctx.needs_input_grad[1]:
            return _unbroadcast_both(ctx, da, None)
        return _unbroadcast_both(ctx, da, in_memory_order(negative, None, in_memory_order(multiply, None, da, y)))


class Negative(Function):
    @staticmethod
    def forward(ctx: Any, a: Array) -> Array:
        return in_memory_order(negative, None, a)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return in_memory_order(negative, None, dy)


class Power(Function):
    """a ** exponent for a number as exponent."""

    @staticmethod
    def forward(ctx: Any, a: Array, *, exponent: float) -> Array:
        ctx.exponent = float(exponent) if a.dtype.kind == "f" else exponent  # numpy's scalars would widen a float32
        ctx.save_for_backward(a)
        return in_memory_order(power, ctx.exponent, a)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        (a,) = ctx.saved
        if ctx.exponent == 0:
            return namespace(dy).zeros_like(dy)
        factor = namespace(dy).asarray(ctx.exponent, dtype=dy.dtype)
        slope = in_memory_order(multiply, None, in_memory_order(power, ctx.exponent - 1, a), factor)
        return in_memory_order(multiply, None, dy, slope)


class Log(Function):
    @staticmethod
    def forward(ctx: Any, a: Array) -> Array:
        ctx.save_for_backward(a)
        return in_memory_order(log, None, a)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return in_memory_order(divide, None, dy, ctx.saved[0])


def from_output(name: str, run: KernelTable, gradient: KernelTable) -> type[Function]:
    """A Function of one input whose gradient follows from its output alone, so that only that is saved."""

    class FromOutput(Function):
        @staticmethod
        def forward(ctx: Any, x: Array) -> Array:
            y = in_memory_order(run, None, x)
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx: Any, dy: Array) -> Array:
            return in_memory_order(gradient, None, dy, ctx.saved[0])

    FromOutput.__name__ = FromOutput.__qualname__ = name
    return FromOutput


Exp = from_output("Exp", exp, multiply)

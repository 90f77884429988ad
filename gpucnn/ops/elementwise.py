"""Arithmetic with broadcasting; all in the order that memory has."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpucnn.autograd import Function
from gpucnn.backend import FLOAT_KINDS, NCHW, NHWC, Array, dtype_name, empty, namespace
from gpucnn.ops import compiled
from gpucnn.ops.memory import PLAIN, common_axes, contiguous, falling, inverse, laid_out
from gpucnn.ops.reduction import summed
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import elementwise as reference
from gpucnn.reference.elementwise import Bounds


def in_memory_order(run: Callable[..., Array], problem: Any, *arrays: Array) -> Array:
    """run(problem, *arrays) on the arrays' views in memory order; arrays may broadcast.

    Where one image array is channels-last all are seen as N,H,W,C, so that the result is channels-last too whatever
    order the array library would answer in.
    """
    first = arrays[0]
    if first.ndim == 4 and not first.flags.c_contiguous:  # images as they mostly lie: the way below made short
        laid_out = []
        for array in arrays:
            if array.ndim != 4 or not (view := array.transpose(NHWC)).flags.c_contiguous:
                break
            laid_out.append(view)
        else:
            return run(problem, *laid_out, like=laid_out[0]).transpose(NCHW)
    order = common_axes(arrays)
    ndim = len(order)
    if order is PLAIN[ndim]:
        result = run(problem, *arrays, like=arrays[0])
        # Of arrays without axes numpy makes scalars.
        return result if result.ndim else namespace(arrays[0]).asarray(result)
    views = [a.reshape((1,) * (ndim - a.ndim) + a.shape).transpose(order) for a in arrays]
    views = [view if view.flags.c_contiguous or falling(view) else contiguous(view) for view in views]
    return run(problem, *views, like=views[0]).transpose(inverse(order))


def unbroadcast(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Sums `gradient` over the axes along which an array of `shape` was repeated."""
    if gradient.shape == shape:
        return gradient
    extra = gradient.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(i + extra for i, size in enumerate(shape) if size == 1)
    return summed(gradient, axes).reshape(shape)


Parameters = Callable[[Any, Array], tuple[float, ...]]
"""(problem, first array) -> the parameters of a compiled function."""

_MOST_AXES = 8  # that a compiled function takes however they lie


def no_parameters(problem: Any, like: Array) -> tuple[float, ...]:
    return ()


def mapped(
    name: str | Callable[[Any], str],
    parameters: Parameters = no_parameters,
    walks: bool = False,
    binding: str = "elementwise",
) -> Callable[..., Array]:
    """The call (see `compiled.add`) of a compiled function of single elements.

    Args:
        name: the function's in csrc/<binding>, or what tells it from the problem.
        parameters: what it is to be given beside arrays.
        walks: whether it takes arrays that broadcast or lie with gaps; if not such are laid out first.
        binding: 'elementwise' or 'activation'.
    """

    def call(module: Any, problem: Any, stream: int, *arrays: Array) -> Array:
        like = arrays[0]
        shape = like.shape
        if any([array.shape != shape for array in arrays]):
            shape = np.broadcast_shapes(*[array.shape for array in arrays])
        if not walks or len(shape) > _MOST_AXES:
            arrays = tuple([_alike(array, shape) for array in arrays])
        y = empty(shape, like.dtype, like)
        function = name if isinstance(name, str) else name(problem)
        getattr(module, binding)(function, dtype_name(like.dtype), arrays, y, parameters(problem, like), stream)
        return y

    return call


def _alike(array: Array, shape: tuple[int, ...]) -> Array:
    """`array` where it is contiguous and of `shape`, or has one element; else a copy that is."""
    if array.size == 1 and array.ndim <= len(shape):
        return array
    if array.shape != shape:
        return laid_out(namespace(array).broadcast_to(array, shape))
    return array if array.flags.c_contiguous else laid_out(array)


def _table(
    name: str,
    function: str | Callable[[Any], str] | None = None,
    parameters: Parameters = no_parameters,
    walks: bool = False,
) -> KernelTable:
    table = KernelTable(name, "forward")
    compiled.add(table, "map", mapped(function or name, parameters, walks), dtypes=compiled.FLOATS)
    table.add("array", "reference", getattr(reference, name))
    return table


def _power(exponent: float) -> str:
    """The compiled function: numpy too has one of its own for each of these exponents."""
    return {2: "square", -1: "reciprocal", 0.5: "square_root"}.get(exponent, "power")


def _exponent(exponent: float, like: Array) -> tuple[float, ...]:
    return (float(exponent),) if _power(exponent) == "power" else ()


def _bounds(bounds: Bounds, like: Array) -> tuple[float, ...]:
    """As numbers that the arrays' dtype holds: with these numpy compares."""
    least, greatest = bounds
    with np.errstate(over="ignore"):
        return (
            -math.inf if least is None else float(like.dtype.type(least)),
            math.inf if greatest is None else float(like.dtype.type(greatest)),
        )


add, subtract, multiply, divide = (_table(name, walks=True) for name in ("add", "subtract", "multiply", "divide"))
negative, exp, log = (_table(name) for name in ("negative", "exp", "log"))
power = _table("power", _power, _exponent)
absolute, square_root, sign = (_table(name) for name in ("absolute", "square_root", "sign"))
maximum, minimum, maximum_grad = (_table(name, walks=True) for name in ("maximum", "minimum", "maximum_grad"))
clamp, clamp_grad = (_table(name, None, _bounds) for name in ("clamp", "clamp_grad"))


def _where(module: Any, problem: None, stream: int, condition: Array, a: Array, b: Array) -> Array:
    dtype = a.dtype if a.dtype == b.dtype else np.result_type(a, b)
    shape = np.broadcast_shapes(condition.shape, a.shape, b.shape)
    arrays = condition, a.astype(dtype, copy=False), b.astype(dtype, copy=False)
    if len(shape) > _MOST_AXES:
        arrays = tuple([_alike(array, shape) for array in arrays])
    y = empty(shape, dtype, a)
    module.select(*arrays, y, stream)
    return y


where = KernelTable("where", "forward")
compiled.add(where, "select", _where)
where.add("array", "reference", reference.where)


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
        ctx.exponent = (
            float(exponent) if a.dtype.kind in FLOAT_KINDS else exponent
        )  # numpy's scalars would widen a float32
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


def unary(
    name: str, run: KernelTable, gradient: KernelTable, saves_output: Callable[[Any], bool] = lambda problem: True
) -> type[Function]:
    """A Function of one input (and a `problem`) that saves one array for its gradient.

    That is the output, which the next op is likely to save too, unless `saves_output(problem)` is False for a function
    whose slope follows from its input alone.
    """

    class Unary(Function):
        @staticmethod
        def forward(ctx: Any, x: Array, *, problem: Any = None) -> Array:
            y = in_memory_order(run, problem, x)
            ctx.problem = problem
            ctx.save_for_backward(y if saves_output(problem) else x)
            return y

        @staticmethod
        def backward(ctx: Any, dy: Array) -> Array:
            return in_memory_order(gradient, ctx.problem, dy, ctx.saved[0])

    Unary.__name__ = Unary.__qualname__ = name
    return Unary


Exp = unary("Exp", exp, multiply)


class SquareRoot(Function):
    @staticmethod
    def forward(ctx: Any, a: Array) -> Array:
        y = in_memory_order(square_root, None, a)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        (y,) = ctx.saved
        return in_memory_order(divide, None, dy, in_memory_order(add, None, y, y))


class Absolute(Function):
    @staticmethod
    def forward(ctx: Any, a: Array) -> Array:
        ctx.save_for_backward(a)
        return in_memory_order(absolute, None, a)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return in_memory_order(multiply, None, dy, in_memory_order(sign, None, ctx.saved[0]))


class Sign(Function):
    @staticmethod
    def forward(ctx: Any, a: Array) -> Array:
        return in_memory_order(sign, None, a)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return namespace(dy).zeros_like(dy)


class Maximum(Function):
    """Where the operands are equal each gets half of the gradient."""

    @staticmethod
    def forward(ctx: Any, a: Array, b: Array) -> Array:
        ctx.shapes = a.shape, b.shape
        ctx.save_for_backward(a, b)
        return in_memory_order(maximum, None, a, b)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array | None, Array | None]:
        return _gradients_of_the_greater(ctx, dy, *ctx.saved)


class Minimum(Function):
    """Where the operands are equal each gets half of the gradient."""

    @staticmethod
    def forward(ctx: Any, a: Array, b: Array) -> Array:
        ctx.shapes = a.shape, b.shape
        ctx.save_for_backward(a, b)
        return in_memory_order(minimum, None, a, b)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array | None, Array | None]:
        return _gradients_of_the_greater(ctx, dy, *[in_memory_order(negative, None, array) for array in ctx.saved])


def _gradients_of_the_greater(ctx: Any, dy: Array, a: Array, b: Array) -> tuple[Array | None, Array | None]:
    return _unbroadcast_both(
        ctx,
        in_memory_order(maximum_grad, None, dy, a, b) if ctx.needs_input_grad[0] else None,
        in_memory_order(maximum_grad, None, dy, b, a) if ctx.needs_input_grad[1] else None,
    )


class Clamp(Function):
    """a between bounds (least, greatest), numbers or None for no bound."""

    @staticmethod
    def forward(ctx: Any, a: Array, *, bounds: Bounds) -> Array:
        ctx.bounds = bounds
        ctx.save_for_backward(a)
        return in_memory_order(clamp, bounds, a)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return in_memory_order(clamp_grad, ctx.bounds, dy, ctx.saved[0])


class Where(Function):
    """a where `condition` (bool) is true, else b; all three broadcast."""

    @staticmethod
    def forward(ctx: Any, condition: Array, a: Array, b: Array) -> Array:
        ctx.shapes = a.shape, b.shape
        ctx.save_for_backward(condition)
        return in_memory_order(where, None, condition, a, b)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array | None, ...]:
        (condition,) = ctx.saved
        nothing = namespace(dy).zeros((), dy.dtype)
        return None, *_unbroadcast_both(
            ctx,
            in_memory_order(where, None, condition, dy, nothing) if ctx.needs_input_grad[1] else None,
            in_memory_order(where, None, condition, nothing, dy) if ctx.needs_input_grad[2] else None,
        )

"""Changes of shape, parts, and arrays put together: a copy only where memory order asks for one.

What is copied stays in the order that memory has: the result of a channels-last image is channels-last.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpucnn import backend
from gpucnn.autograd import Function
from gpucnn.backend import Array, dtype_name, empty
from gpucnn.ops import compiled
from gpucnn.ops.elementwise import unbroadcast
from gpucnn.ops.memory import Axes, common_axes, converted, inverse, laid_out, memory_axes, reshape
from gpucnn.ops.reduction import sum_
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import shape as reference
from gpucnn.reference.shape import PadProblem, RollProblem, SplitProblem

# ------------------------------------------------------------------------------------------------ compiled kernels


def _concatenate(module: Any, axis: int, stream: int, *arrays: Array) -> Array:
    first, sizes = arrays[0], [array.shape[axis] for array in arrays]
    y = empty((*first.shape[:axis], sum(sizes), *first.shape[axis + 1 :]), first.dtype, first)
    for array, place in zip(arrays, reference.parts(y, axis, sizes), strict=True):
        module.copy(array, place, stream)
    return y


def _split(module: Any, p: SplitProblem, stream: int, x: Array) -> list[Array | None]:
    views = reference.parts(x, p.axis, p.sizes)
    return [
        (view if view.flags.c_contiguous else _copied(module, stream, view)) if wanted else None
        for view, wanted in zip(views, p.wanted, strict=True)
    ]


def _copied(module: Any, stream: int, view: Array) -> Array:
    y = empty(view.shape, view.dtype, view)
    module.copy(view, y, stream)
    return y


def _pad(module: Any, p: PadProblem, stream: int, x: Array) -> Array:
    y = empty(tuple([size + sum(amount) for size, amount in zip(x.shape, p.amounts, strict=True)]), x.dtype, x)
    before, after = [a for a, _ in p.amounts], [b for _, b in p.amounts]
    value = np.asarray(p.value if p.mode == "constant" else 0).astype(x.dtype).tobytes()
    module.pad(x, y, before, after, p.mode, value, stream)
    return y


def _pad_grad(module: Any, p: PadProblem, stream: int, dy: Array) -> Array:
    if p.mode == "constant":
        return _pad(module, PadProblem(tuple([(-a, -b) for a, b in p.amounts]), "constant"), stream, dy)
    dx = empty(tuple([size - sum(amount) for size, amount in zip(dy.shape, p.amounts, strict=True)]), dy.dtype, dy)
    before, after = [a for a, _ in p.amounts], [b for _, b in p.amounts]
    if not dy.flags.c_contiguous:
        dy = _copied(module, stream, dy)
    module.pad_grad(dtype_name(dy.dtype), dy, dx, before, after, p.mode, stream)
    return dx


def _few_axes(p: PadProblem) -> str | None:
    return None if len(p.amounts) <= 8 else f"pads arrays of at most 8 axes, got {len(p.amounts)}"


def _few_padded(p: PadProblem) -> str | None:
    count = sum([any(amount) for amount in p.amounts])
    return f"adds up {count} padded axes; at most 3" if p.mode != "constant" and count > 3 else _few_axes(p)


def _repeat(module: Any, counts: Axes, stream: int, x: Array) -> Array:
    if sum([count != 1 for count in counts]) > 3:  # more axes, half of them new ones, than a walk may have
        for axis, count in enumerate(counts):
            x = _repeat(module, tuple([count if i == axis else 1 for i in range(x.ndim)]), stream, x)
        return x
    new = tuple([size for count, kept in zip(counts, x.shape, strict=True) for size in (count, kept)])
    y = empty(tuple([count * size for count, size in zip(counts, x.shape, strict=True)]), x.dtype, x)
    spaced = x[tuple([part for _ in counts for part in (None, slice(None))])]
    module.copy(spaced, y.reshape(new), stream)
    return y


def _flip(module: Any, axes: Axes, stream: int, x: Array) -> Array:
    return _copied(module, stream, x[tuple([slice(None, None, -1 if i in axes else 1) for i in range(x.ndim)])])


def _roll(module: Any, p: RollProblem, stream: int, x: Array) -> Array:
    y = empty(x.shape, x.dtype, x)
    if not x.size:
        return y
    shifts = [0] * x.ndim
    for shift, axis in zip(p.shifts, p.axes, strict=True):
        shifts[axis] = (shifts[axis] + shift) % x.shape[axis]
    # Along each axis what stays in front of the end, and what comes in at the other.
    pieces = [
        [(slice(None, size - shift), slice(shift, None)), (slice(size - shift, None), slice(None, shift))]
        if shift
        else [(slice(None), slice(None))]
        for shift, size in zip(shifts, x.shape, strict=True)
    ]
    for piece in itertools.product(*pieces):
        module.copy(x[tuple([source for source, _ in piece])], y[tuple([place for _, place in piece])], stream)
    return y


# ---------------------------------------------------------------------------------------------------------- tables

concatenate = KernelTable("cat", "forward")
compiled.add(concatenate, "copies", _concatenate)
concatenate.add("parts", "reference", reference.concatenate, widens=False)

split = KernelTable("split", "forward")
compiled.add(split, "copies", _split)
split.add("parts", "reference", reference.split, widens=False)

pad = KernelTable("pad", "forward")
compiled.add(pad, "gather", _pad, _few_axes)
pad.add("edges", "reference", reference.pad, widens=False)

pad_grad = KernelTable("pad", "backward")
compiled.add(pad_grad, "gather", _pad_grad, _few_padded, dtypes=compiled.FLOATS)
pad_grad.add("edges", "reference", reference.pad_grad)

repeat = KernelTable("repeat", "forward")
compiled.add(repeat, "copies", _repeat)
repeat.add("array", "reference", reference.repeat, widens=False)

flip = KernelTable("flip", "forward")
compiled.add(flip, "copies", _flip)
flip.add("array", "reference", reference.flip, widens=False)

roll = KernelTable("roll", "forward")
compiled.add(roll, "copies", _roll)
roll.add("array", "reference", reference.roll, widens=False)


# --------------------------------------------------------------------------------------------------------- the ops


class Reshape(Function):
    """The same elements in logical (row-major) order under another shape."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, shape: tuple[int, ...]) -> Array:
        ctx.shape = x.shape
        return reshape(x, shape)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return reshape(dy, ctx.shape)


class Permute(Function):
    """Axes in another order; always a view."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, axes: tuple[int, ...]) -> Array:
        ctx.axes = axes
        return x.transpose(axes)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return dy.transpose(inverse(ctx.axes))


class GetItem(Function):
    """x[index] with numpy's indexing rules; where an element is picked twice its gradients add up."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, index: Any) -> Array:
        ctx.index, ctx.shape, ctx.axes = index, x.shape, memory_axes(x)
        return backend.namespace(x).asarray(x[index])

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        parts = ctx.index if isinstance(ctx.index, tuple) else (ctx.index,)
        plain = all(part is None or part is Ellipsis or isinstance(part, (int, slice, np.integer)) for part in parts)
        dtype = dy.dtype if plain else backend.accumulator(dy.dtype)
        dx = backend.zeros(tuple([ctx.shape[axis] for axis in ctx.axes]), dtype, dy).transpose(inverse(ctx.axes))
        if plain:
            dx[ctx.index] = dy
        else:
            with np.errstate(all="ignore"):
                backend.namespace(dy).add.at(dx, ctx.index, dy)
        return dx


class Cat(Function):
    """Arrays of one dtype, and one shape but along `axis`, in a row along it."""

    @staticmethod
    def forward(ctx: Any, *arrays: Array, axis: int) -> Array:
        ctx.axis, ctx.sizes = axis, tuple([array.shape[axis] for array in arrays])
        return _joined(arrays, axis)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array | None, ...]:
        axes = memory_axes(dy)
        problem = SplitProblem(axes.index(ctx.axis), ctx.sizes, ctx.needs_input_grad)
        parts = split(problem, dy.transpose(axes), like=dy)
        return tuple([None if part is None else part.transpose(inverse(axes)) for part in parts])


class Split(Function):
    """Consecutive parts of the given sizes along `axis`, as views."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, axis: int, sizes: tuple[int, ...]) -> tuple[Array, ...]:
        ctx.axis = axis
        return tuple(reference.parts(x, axis, sizes))

    @staticmethod
    def backward(ctx: Any, *gradients: Array) -> Array:
        return _joined(gradients, ctx.axis)


def _joined(arrays: Sequence[Array], axis: int) -> Array:
    axes = common_axes(arrays)
    views = [array.transpose(axes) for array in arrays]
    return concatenate(axes.index(axis), *views, like=views[0]).transpose(inverse(axes))


class Pad(Function):
    """`amounts` of cells before and after each axis, see `reference.shape.PadProblem`."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, problem: PadProblem) -> Array:
        ctx.problem = problem
        return _in_memory_order(pad, problem, x)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return _in_memory_order(pad_grad, ctx.problem, dy)


class Expand(Function):
    """Repeated along new axes in front and along axes of size 1, as a view."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, shape: Axes) -> Array:
        ctx.shape = x.shape
        return backend.namespace(x).broadcast_to(x, shape)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return unbroadcast(dy, ctx.shape)


class Repeat(Function):
    """`counts` copies in a row along each axis."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, counts: Axes) -> Array:
        ctx.counts, ctx.shape = counts, x.shape
        axes = memory_axes(x)
        y = repeat(tuple([counts[axis] for axis in axes]), x.transpose(axes), like=x)
        return y.transpose(inverse(axes))

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        axes = memory_axes(dy)
        copies = [size for axis in axes for size in (ctx.counts[axis], ctx.shape[axis])]
        view = dy.transpose(axes).reshape(copies)
        dx = sum_(tuple(range(0, view.ndim, 2)), view, like=dy)
        return dx.reshape(copies[1::2]).transpose(inverse(axes))


class Flip(Function):
    """A copy with the given axes in reverse."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, axes: Axes) -> Array:
        ctx.axes = axes
        return _flipped(x, axes)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return _flipped(dy, ctx.axes)


def _flipped(x: Array, flipped: Axes) -> Array:
    axes = memory_axes(x)
    return flip(tuple([axes.index(axis) for axis in flipped]), x.transpose(axes), like=x).transpose(inverse(axes))


class Roll(Function):
    """A copy with elements moved on along axes, those that leave one end coming in at the other."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, shifts: Axes, axes: Axes) -> Array:
        ctx.shifts, ctx.axes = shifts, axes
        return _rolled(x, shifts, axes)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return _rolled(dy, tuple([-shift for shift in ctx.shifts]), ctx.axes)


def _rolled(x: Array, shifts: Axes, rolled: Axes) -> Array:
    axes = memory_axes(x)
    problem = RollProblem(shifts, tuple([axes.index(axis) for axis in rolled]))
    return roll(problem, x.transpose(axes), like=x).transpose(inverse(axes))


def _in_memory_order(table: KernelTable, problem: PadProblem, x: Array) -> Array:
    axes = memory_axes(x)
    laid_out = problem._replace(amounts=tuple([problem.amounts[axis] for axis in axes]))
    return table(laid_out, x.transpose(axes), like=x).transpose(inverse(axes))


class Convert(Function):
    """Another dtype or device; with `copy` in memory of its own even where both stay."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, dtype: np.dtype[Any], device: str, copy: bool = False) -> Array:
        ctx.dtype, ctx.device = x.dtype, backend.device_of(x)
        with np.errstate(all="ignore"):  # what overflows in a narrower dtype is an infinity, no event to warn of
            y = converted(x, dtype)
        return backend.to_device(_cloned(y) if copy and y is x else y, device)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return converted(backend.to_device(dy, ctx.device), ctx.dtype)


def _cloned(x: Array) -> Array:
    """A copy that lies as x does, without its gaps."""
    axes = memory_axes(x)
    return laid_out(x.transpose(axes)).transpose(inverse(axes))

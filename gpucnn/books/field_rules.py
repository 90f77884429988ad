"""What each op does to receptive fields: a call, with the fields of its inputs -> what its results see.

Fields follow the windows, not the statistics: normalising by a mean over the image, which strictly lets each element
see all of it, leaves fields as they are. So do dropout and everything that works on single elements.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from gpucnn.books import fields
from gpucnn.books.fields import Extent, Field, Lost, Reach

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """One call of an op: shapes of its inputs (None for what is no array) and outputs, and its parameters.

    `fields` are those of the inputs, None where an input depends on no pixel; rules are asked where one does.
    """

    inputs: tuple[Shape | None, ...]
    outputs: tuple[Shape, ...]
    parameters: Mapping[str, Any]
    fields: tuple[Field | None, ...]

    @property
    def first(self) -> Shape:
        """The shape of the first input."""
        shape = self.inputs[0]
        assert shape is not None
        return shape

    @property
    def seen(self) -> Field:
        """What all inputs together see."""
        return fields.union([field for field in self.fields if field is not None])

    @property
    def problem(self) -> Any:
        """The description of its windows, or whatever it is that the op calls its problem."""
        problem = self.parameters["problem"]
        return getattr(problem, "windows", problem)


def elementwise(call: Call) -> Field:
    """Each result sees what the operands' elements at its place see; an operand that is repeated has no jump."""
    operands = zip(call.fields, call.inputs, strict=True)
    return fields.union(
        [_repeated(seen, shape, call.outputs[0]) for seen, shape in operands if seen is not None and shape is not None]
    )


def _repeated(seen: Field, shape: Shape, result: Shape) -> Field:
    return _lost(seen, [axis for axis in range(-len(shape), 0) if shape[axis] == 1 < result[axis]])


_ROWS, _COLUMNS, _CHANNELS = -2, -1, -3
"""Where (N,C,H,W) has its axes, counted from the end."""


def _along_image(field: Field, change: Callable[[Extent, int], Extent]) -> Field:
    """change(extent, direction) where an extent runs along rows (direction 0) or columns (1)."""
    return tuple(
        change(extent, extent.axis - _ROWS)
        if isinstance(extent, Reach) and extent.axis in (_ROWS, _COLUMNS)
        else extent
        for extent in field
    )


def _windows(call: Call, seen: Field) -> Field:
    """Of windows of taps that move over the image."""
    p = call.problem
    spans = [d * (taps - 1) + 1 for d, taps in zip(p.dilation, (p.R, p.S), strict=True)]
    return _along_image(seen, lambda e, i: fields.window(e, spans[i], p.stride[i], p.padding[i]))


def pool(call: Call) -> Field:
    """As windows; but a single one that is as large as its input, such as global pooling, sees the whole image."""
    p = call.problem
    axes = ((_ROWS, p.H, p.P, p.R), (_COLUMNS, p.W, p.Q, p.S))
    covered = [axis for axis, size, count, taps in axes if count == 1 and taps == size]
    return _windows(call, fields.mixed(call.seen, covered, call.first))


def conv(call: Call) -> Field:
    """Windows over all channels of a group."""
    return _windows(call, fields.mixed(call.seen, [_CHANNELS], call.first))


def conv_transpose(call: Call) -> Field:
    """Element o is the sum over taps t of input (o + padding - dilation * t) / stride, where that is whole."""
    p = call.problem

    def change(extent: Extent, i: int) -> Extent:
        span, stride = p.dilation[i] * ((p.R, p.S)[i] - 1), p.stride[i]
        shift = (p.padding[i] - Fraction(span, 2)) / stride
        return fields.resampled(extent, Fraction(1, stride), shift, span // stride + 1)

    return _along_image(fields.mixed(call.seen, [_CHANNELS], call.first), change)


def interpolate(call: Call) -> Field:
    """Nearest neighbours, the two around each position, or all under a tent that is as wide as images shrink."""
    p = call.problem

    def change(extent: Extent, i: int) -> Extent:
        size, count = ((p.H, p.P), (p.W, p.Q))[i]
        step = Fraction(size, count)
        if p.mode == "bilinear" and p.align_corners:
            step = Fraction(size - 1, count - 1) if count > 1 else Fraction(0)
        elif p.scale is not None and count != size and not (p.mode == "nearest" and count == 2 * size):
            step = Fraction(1 / p.scale[i]).limit_denominator(10_000)
        return fields.resampled(extent, step, *_interpolated(p, step))

    return _along_image(call.seen, change)


def _interpolated(p: Any, step: Fraction) -> tuple[Fraction, int]:
    """(shift, neighbours) along an axis; rounding down shifts a position by what that takes off on average."""
    if p.mode == "nearest":
        return -_rounded_off(step, Fraction(0)), 1
    if p.mode == "nearest-exact":
        return step / 2 - _rounded_off(step, step / 2), 1
    shift = Fraction(0) if p.align_corners and not p.antialias else (step - 1) / 2
    width = max(step, Fraction(1)) if p.antialias else Fraction(1)
    places = [shift + n * step for n in range(step.denominator)]
    return shift, max(math.ceil(place + width) - math.floor(place - width) - 1 for place in places)


def _rounded_off(step: Fraction, start: Fraction) -> Fraction:
    """The mean over all n of what floor(start + n * step) takes off."""
    period = step.denominator
    return sum(((start + n * step) % 1 for n in range(period)), Fraction(0)) / period


def adaptive_pool(call: Call) -> Field:
    """Windows that share the image out; unknown where they are not all of one size."""
    p = call.problem

    def change(extent: Extent, i: int) -> Extent:
        size, count = ((p.H, p.P), (p.W, p.Q))[i]
        return fields.lost(extent) if size % count else fields.window(extent, size // count, size // count, 0)

    covered = [axis for axis, count in ((_ROWS, p.P), (_COLUMNS, p.Q)) if count == 1]
    return _along_image(fields.mixed(call.seen, covered, call.first), change)


def unpool(call: Call) -> Field:
    """Each element is somewhere in a cell of as many elements as there are to one of the input."""
    p = call.problem

    def change(extent: Extent, i: int) -> Extent:
        cells, size = ((p.P, p.H), (p.Q, p.W))[i]
        return fields.lost(extent) if size % cells else _spread_evenly(extent, size // cells)

    return _along_image(call.seen, change)


def _spread_evenly(extent: Extent, factor: int) -> Extent:
    """Each element becomes `factor` in a row."""
    return fields.resampled(extent, Fraction(1, factor), Fraction(1 - factor, 2 * factor), 1)


def bed_of_nails(call: Call) -> Field:
    """The first element of each cell is one of the input, the others see nothing."""
    factor = call.problem.factor
    return _along_image(call.seen, lambda e, i: fields.resampled(e, Fraction(1, factor[i]), Fraction(0), 1))


def pixel_shuffle(call: Call) -> Field:
    """Channels become the elements of cells."""
    factor = call.problem.factor
    return _along_image(fields.mixed(call.seen, [_CHANNELS], call.first), lambda e, i: _spread_evenly(e, factor))


def pixel_unshuffle(call: Call) -> Field:
    """The elements of cells become channels."""
    factor = call.problem.factor
    return _along_image(
        fields.mixed(call.seen, [_CHANNELS], call.first), lambda e, i: fields.window(e, factor, factor, 0)
    )


def pad(call: Call) -> Field:
    """What is added continues the image."""
    amounts = call.problem.amounts
    return _moved(call.seen, {axis - len(amounts): (-before, 1) for axis, (before, _) in enumerate(amounts)})


def _moved(seen: Field, moves: Mapping[int, tuple[int, int]]) -> Field:
    """`moves` has (first, step) for each axis."""
    return tuple(
        extent if (axis := fields.axis_of(extent)) is None else fields.moved(extent, *moves[axis]) for extent in seen
    )


def along_axis(call: Call) -> Field:
    """Of ops that join or part arrays along an axis: along it elements are no longer evenly apart."""
    return _lost(call.seen, [call.parameters["axis"] - len(call.first)])


def running_axis(call: Call) -> Field:
    """Of ops that compare or add up all elements along an axis."""
    return fields.mixed(call.seen, [call.parameters["axis"] - len(call.first)], call.first)


def reordered(call: Call) -> Field:
    """Of ops that turn or roll elements along axes."""
    return _lost(call.seen, [axis - len(call.first) for axis in call.parameters["axes"]])


def repeated(call: Call) -> Field:
    """Copies in a row along axes."""
    counts = call.parameters["counts"]
    return _lost(call.seen, [axis - len(counts) for axis, count in enumerate(counts) if count != 1])


def halves(call: Call) -> Field:
    """Of ops that set one half of the last axis against the other."""
    return _lost(call.seen, [-1])


def rows_and_columns(call: Call) -> Field:
    """Of ops that pair the last two axes of one operand with those of another."""
    return _lost(call.seen, [-2, -1])


def positions_as_list(call: Call) -> Field:
    """Windows as a list: its elements are not evenly apart along any direction."""
    return tuple(extent if extent == fields.ALL else Lost() for extent in call.seen)


def _lost(seen: Field, axes: Iterable[int]) -> Field:
    gone = set(axes)
    return tuple(fields.lost(extent) if fields.axis_of(extent) in gone else extent for extent in seen)


def last_axis(call: Call) -> Field:
    """Of ops that make each result from all elements along the last axis."""
    return fields.mixed(call.seen, [-1], call.first)


def loss(call: Call) -> Field:
    """A single number sees all; the losses of single elements what these do, where they are as many as the inputs."""
    if call.outputs[0] == ():
        return (fields.ALL,) * len(call.seen)
    return elementwise(call) if call.outputs[0] == call.first else positions_as_list(call)


def reduction(call: Call) -> Field:
    """Sums and the like over axes."""
    ndim = len(call.first)
    gone = [axis - ndim for axis in call.parameters["axes"]]
    seen = fields.mixed(call.seen, gone, call.first)
    if call.parameters["keepdims"]:
        return seen
    left = [axis for axis in range(-ndim, 0) if axis not in gone]
    return fields.on_axes(seen, {axis: place - len(left) for place, axis in enumerate(left)})


def permute(call: Call) -> Field:
    """The same axes in another order."""
    axes = call.parameters["axes"]
    return fields.on_axes(call.seen, {axis - len(axes): place - len(axes) for place, axis in enumerate(axes)})


def reshape(call: Call) -> Field:
    """Axes that are still there keep their field."""
    old, new = call.first, call.outputs[0]
    return tuple(extent if isinstance(extent, str) else _reshaped(extent, old, new) for extent in call.seen)


def _reshaped(reach: Reach | Lost, old: Shape, new: Shape) -> Extent:
    """An axis is still there if one of its size has as many elements behind it; merged behind the batch it is ALL."""
    if reach.axis is None:
        return reach
    if old[reach.axis] == 1 and (len(old) != len(new) or new[reach.axis] != 1):
        return replace(reach, axis=None)
    inner = math.prod(old[len(old) + reach.axis + 1 :])
    for axis in range(-1, -len(new) - 1, -1):
        if new[axis] == old[reach.axis] and math.prod(new[len(new) + axis + 1 :]) == inner:
            return replace(reach, axis=axis)
    return fields.ALL if new[0] == old[0] and len(new) == 2 else Lost()


def getitem(call: Call) -> Field:
    """Slices and single positions; unknown after an index that picks freely."""
    index, shape = call.parameters["index"], call.first
    parts = list(index) if isinstance(index, tuple) else [index]
    simple = (int, np.integer, slice, type(None), type(Ellipsis))
    if not all(isinstance(part, simple) and not isinstance(part, bool) for part in parts):
        return (Lost(),) * len(call.seen)
    if Ellipsis not in parts:
        parts.append(Ellipsis)
    dots = parts.index(Ellipsis)
    parts[dots : dots + 1] = [slice(None)] * (len(shape) - sum(part is not None for part in parts) + 1)
    moves: dict[int, tuple[int, int]] = {}
    places: dict[int, int | None] = {}
    axis, place = -len(shape), -len(call.outputs[0])
    for part in parts:
        if part is None:
            place += 1
            continue
        if isinstance(part, slice):
            first, _, step = part.indices(shape[axis])
            moves[axis], places[axis] = (first, step), place
            place += 1
        else:
            moves[axis] = (int(part) % shape[axis], 1)
        axis += 1
    return fields.on_axes(_moved(call.seen, moves), places)

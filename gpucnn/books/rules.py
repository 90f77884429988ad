"""What each op costs and what it does to receptive fields: one table, a line an op.

Multiply-accumulates are counted as published figures count them: one for each product of an activation with a weight
(or, in `matmul`, of two activations) that is summed up, in convolutions and matrix products alone. Adding a bias,
normalising, pooling, activations and arithmetic between arrays count as none, though they take time and memory.

Receptive fields follow the windows, not the statistics: normalising by a mean over the image, which strictly lets each
element see all of it, leaves fields as they are. So do dropout and everything that works on single elements.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from gpucnn.autograd import Function
from gpucnn.books import fields
from gpucnn.books.fields import Extent, Field, Reach
from gpucnn.ops import _template, activation, conv2d, conv_transpose2d, dropout, elementwise, linear, loss, pool2d
from gpucnn.ops import reduction as reductions
from gpucnn.ops import shape as shapes

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """One call of an op: shapes of its inputs (None for what is no array) and outputs, and its parameters."""

    inputs: tuple[Shape | None, ...]
    outputs: tuple[Shape, ...]
    parameters: Mapping[str, Any]

    @property
    def first(self) -> Shape:
        """The shape of the first input."""
        shape = self.inputs[0]
        assert shape is not None
        return shape


def _no_macs(call: Call) -> int:
    return 0


def _elementwise(call: Call, seen: Field) -> Field:
    return seen


def _all_read(call: Call) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Rule:
    """`macs` of a call; its `field`, given what all its inputs together see; `unread`: rows and columns left out."""

    macs: Callable[[Call], int] = _no_macs
    field: Callable[[Call, Field], Field] = _elementwise
    unread: Callable[[Call], tuple[str, ...]] = _all_read


# -------------------------------------------------------------------------------------- multiply-accumulates


def _conv_macs(call: Call) -> int:
    p = call.parameters["problem"]
    return int(p.N * p.P * p.Q * p.K * (p.C // p.groups) * p.R * p.S)


def _linear_macs(call: Call) -> int:
    return math.prod(call.outputs[0]) * call.first[-1]


# ------------------------------------------------------------------------------------------- receptive fields

_ROWS, _COLUMNS, _CHANNELS = -2, -1, -3
"""Where (N,C,H,W) has its axes, counted from the end."""


def _along_image(field: Field, change: Callable[[Extent, int], Extent]) -> Field:
    """change(extent, direction) where an extent runs along rows (direction 0) or columns (1)."""
    return tuple(
        change(extent, extent.axis - _ROWS) if isinstance(extent, Reach) and extent.axis in (_ROWS, _COLUMNS) else extent
        for extent in field
    )


def _windows(call: Call, seen: Field) -> Field:
    p = call.parameters["problem"]
    spans = [d * (taps - 1) + 1 for d, taps in zip(p.dilation, (p.R, p.S), strict=True)]
    return _along_image(seen, lambda e, i: fields.window(e, spans[i], p.stride[i], p.padding[i]))


def _conv_field(call: Call, seen: Field) -> Field:
    return _windows(call, fields.mixed(seen, [_CHANNELS], call.first))


def _conv_transpose_field(call: Call, seen: Field) -> Field:
    # Element o is the sum over taps t of input (o + padding - dilation * t) / stride, where that is whole.
    p = call.parameters["problem"]

    def change(extent: Extent, i: int) -> Extent:
        span = p.dilation[i] * ((p.R, p.S)[i] - 1)
        shift = p.padding[i] - Fraction(span, 2)
        return fields.spread(extent, Fraction(p.stride[i]), span // p.stride[i] + 1, shift)

    return _along_image(fields.mixed(seen, [_CHANNELS], call.first), change)


def _last_axis(call: Call, seen: Field) -> Field:
    return fields.mixed(seen, [-1], call.first)


def _everything(call: Call, seen: Field) -> Field:
    return (fields.ALL,) * len(seen)


def _reduction(call: Call, seen: Field) -> Field:
    ndim = len(call.first)
    gone = [axis - ndim for axis in call.parameters["axes"]]
    seen = fields.mixed(seen, gone, call.first)
    if call.parameters["keepdims"]:
        return seen
    left = [axis for axis in range(-ndim, 0) if axis not in gone]
    return fields.on_axes(seen, {axis: place - len(left) for place, axis in enumerate(left)})


def _permute(call: Call, seen: Field) -> Field:
    axes = call.parameters["axes"]
    return fields.on_axes(seen, {axis - len(axes): place - len(axes) for place, axis in enumerate(axes)})


def _reshape(call: Call, seen: Field) -> Field:
    old, new = call.first, call.outputs[0]
    return tuple(_reshaped(extent, old, new) if isinstance(extent, Reach) else extent for extent in seen)


def _reshaped(reach: Reach, old: Shape, new: Shape) -> Extent:
    """An axis is still there if one of its size has as many elements behind it; merged behind the batch it is ALL."""
    if reach.axis is None:
        return reach
    inner = math.prod(old[len(old) + reach.axis + 1 :])
    for axis in range(-1, -len(new) - 1, -1):
        if new[axis] == old[reach.axis] and math.prod(new[len(new) + axis + 1 :]) == inner:
            return fields.on_axes((reach,), {reach.axis: axis})[0]
    if old[reach.axis] == 1:
        return fields.on_axes((reach,), {})[0]
    return fields.ALL if new[0] == old[0] and len(new) == 2 else fields.UNKNOWN


def _getitem(call: Call, seen: Field) -> Field:
    index, shape = call.parameters["index"], call.first
    parts = list(index) if isinstance(index, tuple) else [index]
    if not all(part is None or part is Ellipsis or isinstance(part, (int, np.integer, slice)) for part in parts):
        return (fields.UNKNOWN,) * len(seen)
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
    return fields.on_axes(
        tuple(
            fields.moved(extent, *moves[extent.axis]) if isinstance(extent, Reach) and extent.axis is not None else extent
            for extent in seen
        ),
        places,
    )


# --------------------------------------------------------------------------------------------- what is left out


def _unread(call: Call) -> tuple[str, ...]:
    p = call.parameters["problem"]
    found = (
        _skipped("row", p.H, p.P, p.R, p.stride[0], p.padding[0], p.dilation[0]),
        _skipped("column", p.W, p.Q, p.S, p.stride[1], p.padding[1], p.dilation[1]),
    )
    return tuple(text for text in found if text)


def _skipped(word: str, size: int, windows: int, taps: int, stride: int, padding: int, dilation: int) -> str:
    """In words, which of `size` rows or columns no window reads; '' if each is read."""
    starts = np.arange(windows) * stride - padding
    read = starts[:, None] + np.arange(taps) * dilation
    return in_words(word, np.setdiff1d(np.arange(size), read).tolist(), size)


def in_words(word: str, numbers: list[int], size: int) -> str:
    """'row 6 of 7', 'rows 5-6 of 7', 'rows 1, 3, 5, ..., 55 (28 of 56)'; '' for none."""
    if not numbers:
        return ""
    if len(numbers) == 1:
        return f"{word} {numbers[0]} of {size}"
    if numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{word}s {numbers[0]}-{numbers[-1]} of {size}"
    listed = ", ".join(map(str, numbers)) if len(numbers) <= 4 else f"{', '.join(map(str, numbers[:3]))}, ..., {numbers[-1]}"
    return f"{word}s {listed} ({len(numbers)} of {size})"


# ---------------------------------------------------------------------------------------------------- the table


def _like(rule: Rule, *functions: type[Function]) -> dict[type[Function], Rule]:
    return dict.fromkeys(functions, rule)


RULES: dict[type[Function], Rule] = {
    conv2d.Conv2d: Rule(_conv_macs, _conv_field, _unread),
    conv_transpose2d.ConvTranspose2d: Rule(_conv_macs, _conv_transpose_field),
    linear.Linear: Rule(_linear_macs, _last_axis),
    pool2d.MaxPool2d: Rule(field=_windows, unread=_unread),
    pool2d.AvgPool2d: Rule(field=_windows, unread=_unread),
    reductions.Sum: Rule(field=_reduction),
    reductions.Mean: Rule(field=_reduction),
    shapes.Reshape: Rule(field=_reshape),
    shapes.Permute: Rule(field=_permute),
    shapes.GetItem: Rule(field=_getitem),
    loss.CrossEntropy: Rule(field=_everything),
    loss.LogSoftmax: Rule(field=_last_axis),
    **_like(
        Rule(),
        _template.Scale,
        dropout.Dropout,
        elementwise.Add,
        elementwise.Subtract,
        elementwise.Multiply,
        elementwise.Divide,
        elementwise.Negative,
        elementwise.Power,
        elementwise.Exp,
        elementwise.Log,
        activation.ReLU,
        activation.Sigmoid,
        activation.Tanh,
        shapes.Convert,
    ),
}
"""By op. An op that is not here is shown with '?' and named, and no total pretends to include it."""

"""Receptive fields: which pixels of the image the elements of an array see.

Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks" (Distill, 2019). Along each
direction of the image an array has a field of `size` pixels for each element; neighbouring elements see fields `jump`
pixels apart, and the first one's field has its centre `offset` pixels from the centre of the image's first pixel:
negative where it reaches further into the padding than into the image. Where branches of different depth meet, the
field is the smallest that covers theirs, which is the largest one's.

Numbers are exact fractions: upsampling divides jumps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

ALL = "all"
"""Every element sees the whole image along this direction."""


@dataclass(frozen=True)
class Reach:
    """The field along one direction of the image.

    `axis` is the array's axis that runs along it, counted from the end (-1 is the last), None once there is none.
    """

    axis: int | None
    size: Fraction = Fraction(1)
    jump: Fraction = Fraction(1)
    offset: Fraction = Fraction(0)

    @property
    def pixels(self) -> int:
        """How many pixels a field has at most: `size`, or the next whole number where upsampling has divided it."""
        return math.ceil(self.size)

    @property
    def ends(self) -> tuple[Fraction, Fraction]:
        """Where the first element's field begins and ends, in pixels from the first pixel's centre."""
        half = (self.size - 1) / 2
        return self.offset - half, self.offset + half


@dataclass(frozen=True)
class Lost:
    """No statement: after an op without a rule, or what no such numbers describe. `axis` is as in Reach."""

    axis: int | None = None


Extent = Reach | Lost | str
"""What is known along one direction: a Reach, the word ALL, or nothing."""

Field = tuple[Extent, ...]
"""One extent for each direction of the image: vertical and horizontal of (C,H,W)."""


def of_image(shape: Sequence[int]) -> Field:
    """The field of the network's input of shape (C, ...): each pixel sees itself; of a plain vector there is none."""
    return tuple(Reach(axis) for axis in range(1 - len(shape), 0))


def union(fields: Sequence[Field]) -> Field:
    """The smallest field that covers all; there is at least one."""
    return tuple(_cover(extents) for extents in zip(*fields, strict=True))


def _cover(extents: Sequence[Extent]) -> Extent:
    if ALL in extents:
        return ALL
    first, reaches = extents[0], [extent for extent in extents if isinstance(extent, Reach)]
    if not isinstance(first, Reach) or len(reaches) < len(extents):
        return _lost_together(extents)
    if any((reach.axis, reach.jump) != (first.axis, first.jump) for reach in reaches):
        return _lost_together(extents)  # neighbours of one operand lie further apart than those of another
    begin, end = min(reach.ends[0] for reach in reaches), max(reach.ends[1] for reach in reaches)
    return replace(first, size=end - begin + 1, offset=(begin + end) / 2)


def _lost_together(extents: Sequence[Extent]) -> Lost:
    axes = {axis_of(extent) for extent in extents}
    return Lost(axes.pop() if len(axes) == 1 else None)


def axis_of(extent: Extent) -> int | None:
    """The axis that runs along the direction, if one does."""
    return None if isinstance(extent, str) else extent.axis


def lost(extent: Extent) -> Extent:
    """The same axis, and nothing known of it; ALL stays."""
    return extent if isinstance(extent, str) else Lost(extent.axis)


def window(extent: Extent, span: int, stride: int, padding: int) -> Extent:
    """Of a window of `span` elements (dilation included) that moves by `stride`."""
    return resampled(extent, Fraction(stride), Fraction(span - 1, 2) - padding, span)


def resampled(extent: Extent, step: Fraction, shift: Fraction, neighbours: int) -> Extent:
    """Of a result whose element o is made of that many neighbours around the element o * step + shift."""
    if not isinstance(extent, Reach):
        return extent
    return replace(
        extent,
        size=extent.size + (neighbours - 1) * extent.jump,
        jump=extent.jump * step,
        offset=extent.offset + shift * extent.jump,
    )


def moved(extent: Extent, first: int, step: int = 1) -> Extent:
    """Of every `step`-th element from `first` on; padding has a negative `first`, a mirrored order no such numbers."""
    return window(extent, 1, step, -first) if step > 0 else lost(extent)


def mixed(field: Field, axes: Iterable[int], shape: Sequence[int]) -> Field:
    """Of an op that makes each result from all elements along `axes` (counted from the end) of an array of `shape`."""
    mixing = set(axes)

    def change(extent: Extent) -> Extent:
        if isinstance(extent, str) or extent.axis is None or extent.axis not in mixing:
            return extent
        return ALL if shape[extent.axis] > 1 else replace(extent, axis=None)

    return tuple(map(change, field))


def on_axes(field: Field, places: dict[int, int | None]) -> Field:
    """With the axes renamed: `places` says which axis of the result an axis is; one that is not named is lost."""

    def change(extent: Extent) -> Extent:
        if isinstance(extent, str) or extent.axis is None:
            return extent
        return replace(extent, axis=places.get(extent.axis))

    return tuple(map(change, field))

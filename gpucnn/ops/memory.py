"""In which order the axes of an array lie in memory, for ops that keep it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from gpucnn.backend import NHWC, Array

Axes = tuple[int, ...]


def memory_axes(array: Array) -> Axes:
    """The axes from the slowest to the fastest in memory for an image, batched or not, that lies channels-last, be it
    with gaps; for any other array as they are.
    """
    order = {4: NHWC, 3: (1, 2, 0)}.get(array.ndim)
    if order is None or array.flags.c_contiguous or falling(array) or not falling(array.transpose(order)):
        return tuple(range(array.ndim))
    return order


def falling(array: Array) -> bool:
    """Whether the axes come from the slowest to the fastest in memory, be it with gaps."""
    steps = [abs(step) for step, size in zip(array.strides, array.shape, strict=True) if size != 1 and step]
    return all(a >= b for a, b in itertools.pairwise(steps))


def common_axes(arrays: Sequence[Array]) -> Axes:
    """`memory_axes` of the first of the arrays, which have as many axes, that does not lie as its axes are counted."""
    plain = tuple(range(arrays[0].ndim))
    return next((axes for array in arrays if (axes := memory_axes(array)) != plain), plain)


def inverse(axes: Axes) -> Axes:
    """The permutation that undoes `axes`."""
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))

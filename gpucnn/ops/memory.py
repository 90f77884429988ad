"""In which order the axes of an array lie in memory, for ops that keep it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

from gpucnn.backend import NHWC, Array

Axes = tuple[int, ...]

PLAIN: tuple[Axes, ...] = tuple([tuple(range(ndim)) for ndim in range(65)])
"""The axes in the order in which they are counted, by their number; numpy's arrays have 64 at most."""

_CHANNELS_LAST: dict[int, Axes] = {4: NHWC, 3: (1, 2, 0)}


def memory_axes(array: Array) -> Axes:
    """The axes from the slowest to the fastest in memory for an image, batched or not, that lies channels-last, be it
    with gaps; for any other array as they are: the very tuple PLAIN[ndim].
    """
    ndim = array.ndim
    if ndim not in _CHANNELS_LAST or array.flags.c_contiguous:
        return PLAIN[ndim]
    order = _CHANNELS_LAST[ndim]
    laid_out = array.transpose(order)
    if laid_out.flags.c_contiguous or (falling(laid_out) and not falling(array)):
        return order
    return PLAIN[ndim]


def falling(array: Array) -> bool:
    """Whether the axes come from the slowest to the fastest in memory, be it with gaps; repeated ones do not count."""
    steps = [abs(step) for step, size in zip(array.strides, array.shape, strict=True) if size != 1 and step]
    return all(a >= b for a, b in itertools.pairwise(steps))


def common_axes(arrays: Sequence[Array]) -> Axes:
    """`memory_axes` of the first of those arrays with the most axes that does not lie as its axes are counted."""
    ndim = max([array.ndim for array in arrays])
    if ndim in _CHANNELS_LAST:
        for array in arrays:
            if array.ndim == ndim and (axes := memory_axes(array)) is not PLAIN[ndim]:
                return axes
    return PLAIN[ndim]


@functools.cache
def inverse(axes: Axes) -> Axes:
    """The permutation that undoes `axes`."""
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))

"""In which order the axes of an array lie in memory, for ops that keep it; and copies that change it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpucnn.backend import NHWC, Array, dtype_name, empty, note_layout_copy
from gpucnn.ops import compiled
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import shape as reference

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


# ------------------------------------------------------------------------------------------------------------ copies


def _copy(module: Any, problem: None, stream: int, x: Array) -> Array:
    y = empty(x.shape, x.dtype, x)
    module.copy(x, y, stream)
    return y


def _convert(module: Any, dtype: np.dtype[Any], stream: int, x: Array) -> Array:
    y = empty(x.shape, dtype, x)
    if dtype == x.dtype:
        module.copy(x, y, stream)
    else:
        module.convert(dtype_name(x.dtype), dtype_name(dtype), x, y, stream)
    return y


def _converts(dtype: np.dtype[Any]) -> str | None:
    return None if dtype_name(dtype) in compiled.FLOATS else f"converts to {', '.join(compiled.FLOATS)}, not to {dtype}"


copy = KernelTable("copy", "forward")
compiled.add(copy, "any_order", _copy)
copy.add("array", "reference", reference.copy, widens=False)

convert = KernelTable("convert", "forward")
compiled.add(convert, "any_order", _convert, _converts, dtypes=compiled.FLOATS)
convert.add("array", "reference", reference.convert, widens=False)


def laid_out(array: Array) -> Array:
    """A C-contiguous copy of an array that may lie in any order; more axes than a kernel takes are the library's."""
    return copy(None, array, like=array) if array.ndim <= _MOST_AXES else reference.copy(None, array)


_MOST_AXES = 8


def contiguous(array: Array) -> Array:
    """`array` itself if C-contiguous, else a counted copy."""
    if array.flags.c_contiguous:
        return array
    note_layout_copy()
    return laid_out(array)


def to_nhwc(array: Array) -> Array:
    """Logical N,C,H,W -> C-contiguous N,H,W,C: a free view where memory is channels-last, else a counted copy."""
    laid_out = array.transpose(NHWC)
    return laid_out if laid_out.flags.c_contiguous else contiguous(laid_out)


def converted(array: Array, dtype: np.dtype[Any]) -> Array:
    """`array` in another dtype, itself if it has that; the order of axes in memory is kept."""
    if array.dtype == dtype:
        return array
    if dtype_name(array.dtype) not in compiled.FLOATS or dtype_name(dtype) not in compiled.FLOATS:
        return array.astype(dtype)
    order = memory_axes(array)
    view = array.transpose(order)
    return convert(dtype, view, like=view).transpose(inverse(order))


def reshape(array: Array, shape: Axes) -> Array:
    """`array` in logical order under another shape of as many elements: a view if it can be, else a counted copy."""
    if array.size and not _is_view(array, shape):
        array = contiguous(array)
    return array.reshape(shape)


def _is_view(array: Array, shape: Axes) -> bool:
    """Whether `shape` cuts axes and merges only those that go on in memory from one to the next."""
    if array.flags.c_contiguous:
        return True
    old = [(size, step) for size, step in zip(array.shape, array.strides, strict=True) if size != 1]
    new = [size for size in shape if size != 1]
    i = j = 0
    while i < len(old):  # groups of axes, old and new, of as many elements each
        first, have, want = i, old[i][0], new[j]
        i, j = i + 1, j + 1
        while have != want:
            if have < want:
                have *= old[i][0]
                i += 1
            else:
                want *= new[j]
                j += 1
        if any(old[k][1] != old[k + 1][0] * old[k + 1][1] for k in range(first, i - 1)):
            return False
    return True

"""What the methods of a Tensor are given, made plain: axes counted from the front, sizes without -1, one dtype of two.

Functions of shapes and dtypes alone. What does not fit raises ValueError or TypeError in the user's terms.
"""

from __future__ import annotations

import math
import operator
from typing import Any, SupportsIndex, cast

import numpy as np

from gpucnn import backend

Shape = tuple[int, ...]


def whole(value: Any, what: str) -> int:
    """`value` as an int; TypeError for anything that is none."""
    try:
        return operator.index(cast(SupportsIndex, value))
    except TypeError:
        raise TypeError(f"{what} must be an integer, got {value!r}") from None


def normalize_axis(axis: Any, ndim: int) -> int:
    """A negative axis counted from the end; ValueError if there is no such axis."""
    number = whole(axis, "an axis")
    if not -ndim <= number < ndim:
        raise ValueError(f"axis {number} is out of range for {ndim} axes")
    return number % ndim


def several(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of f(1, 2) and of f((1, 2)) alike."""
    return tuple(values[0]) if len(values) == 1 and isinstance(values[0], (tuple, list)) else values


def reduced_axes(dim: Any, ndim: int) -> Shape:
    """The axes that `dim` (None for all, an axis, or several) names; 0 and -1 are none of a tensor without axes."""
    if dim is None:
        return tuple(range(ndim))
    named = dim if isinstance(dim, (tuple, list)) else (dim,)
    axes = tuple([normalize_axis(axis, max(1, ndim)) for axis in named])
    if not ndim:
        return ()
    if len(set(axes)) < len(axes):
        raise ValueError(f"dim={dim!r} names an axis twice")
    return axes


def permutation(dims: tuple[Any, ...], ndim: int) -> Shape:
    """An order of all axes, given as permute(0, 2, 1) or permute((0, 2, 1))."""
    axes = tuple([normalize_axis(axis, ndim) for axis in several(dims)])
    if sorted(axes) != list(range(ndim)):
        raise ValueError(f"permute: {dims} is no permutation of the {ndim} axes")
    return axes


def new_shape(shape: Shape, sizes: tuple[Any, ...]) -> Shape:
    """`sizes` with their -1 replaced, for a reshape of `shape`."""
    wanted = tuple([whole(size, "reshape: a size") for size in several(sizes)])
    elements, unknown = math.prod(shape), wanted.count(-1)
    known = math.prod([size for size in wanted if size != -1])
    if unknown > 1 or min(wanted, default=0) < -1:
        raise ValueError(f"reshape: sizes must be 0 or more, and one at most -1, got {wanted}")
    if (elements % known if known else elements) if unknown else known != elements:
        raise ValueError(f"reshape: shape {shape} has {elements} elements, {wanted} does not")
    if unknown and not known:
        raise ValueError(f"reshape: -1 in {wanted} is ambiguous for a tensor without elements")
    return tuple([elements // known if size == -1 else size for size in wanted])


def flat_shape(shape: Shape, start_dim: int, end_dim: int) -> Shape:
    """`shape` with its axes start_dim to end_dim as one; a shape without axes is seen as (1,)."""
    seen = shape or (1,)
    start, end = normalize_axis(start_dim, len(seen)), normalize_axis(end_dim, len(seen))
    if start > end:
        raise ValueError(f"flatten: start_dim={start_dim} comes after end_dim={end_dim}")
    return (*seen[:start], math.prod(seen[start : end + 1]), *seen[end + 1 :])


def unflat_shape(shape: Shape, dim: Any, sizes: Any) -> Shape:
    """`shape` with its axis `dim` as several of the given sizes, of which one may be -1."""
    axis = normalize_axis(dim, len(shape))
    return (*shape[:axis], *new_shape((shape[axis],), (tuple(sizes),)), *shape[axis + 1 :])


def part_sizes(op: str, size: int, split: Any) -> Shape:
    """The sizes of the parts of an axis of `size`: of `split` each, the last what is left, or as `split` lists them."""
    if isinstance(split, (tuple, list)):
        sizes = tuple([whole(part, f"{op}: a size") for part in split])
        if sum(sizes) != size or min(sizes, default=0) < 0:
            raise ValueError(f"{op}: the sizes {sizes} do not add up to the size {size} of the axis")
        return sizes
    step = whole(split, f"{op}: the size of a part")
    if step < 0 or (step == 0 and size):
        raise ValueError(f"{op}: the size of a part must be at least 1, got {split}")
    return tuple([min(step, size - start) for start in range(0, size, step or 1)]) or (0,)


def expanded(shape: Shape, sizes: tuple[Any, ...]) -> Shape:
    """`sizes` with their -1 replaced, for a repetition of `shape` along new axes and along those of size 1."""
    wanted = tuple([whole(size, "expand: a size") for size in several(sizes)])
    new = len(wanted) - len(shape)
    fits = new >= 0 and all(size in (w, 1) or w == -1 for size, w in zip(shape, wanted[new:], strict=True))
    if not fits or min(wanted[:new], default=0) < 0 or min(wanted, default=0) < -1:
        raise ValueError(
            f"expand: shape {shape} can't be repeated to {wanted}: sizes of 1 can, and new axes in front; -1 leaves an "
            "axis as it is"
        )
    return (*wanted[:new], *[size if w == -1 else w for size, w in zip(shape, wanted[new:], strict=True)])


def check_broadcast(a: Shape, b: Shape, op: str) -> None:
    """ValueError if the shapes do not broadcast."""
    for m, n in zip(reversed(a), reversed(b), strict=False):
        if m != n and m != 1 and n != 1:
            raise ValueError(f"{op}: shapes {a} and {b} do not broadcast")


def conversion(targets: tuple[Any, ...], dtype: Any, device: str | None) -> tuple[np.dtype[Any] | None, str | None]:
    """(dtype or None, device or None) of to('cuda'), to('float16'), to(dtype=...): each may be named in any order."""
    for target in targets:
        if isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda"):
            device = target
        else:
            dtype = target
    return (
        None if dtype is None else backend.supported_dtype(dtype),
        None if device is None else backend.device_name(device),
    )


_KINDS = {"b": 0, "u": 1, "i": 1, "f": 2, "V": 2}


def common_dtype(a: np.dtype[Any], a_ndim: int, b: np.dtype[Any], b_ndim: int) -> np.dtype[Any]:
    """PyTorch's rule for two operands: floats win over integers and these over bools, whatever their widths; within a
    kind the wider wins, but an operand without axes does not widen one that has some.
    """
    if a == b:
        return a
    kind = _KINDS[a.kind] - _KINDS[b.kind]
    if kind == 0 and bool(a_ndim) == bool(b_ndim):
        if {a.name, b.name} == {"bfloat16", "float16"}:
            return np.dtype(np.float32)  # which holds both; numpy knows of none
        return np.promote_types(a, b)
    return a if kind > 0 or (kind == 0 and a_ndim) else b


def number_dtype(number: bool | int | float, beside: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of a Python number beside a tensor: the tensor's own unless the number is of a higher kind."""
    kind = 0 if isinstance(number, bool) else 1 if isinstance(number, int) else 2
    if kind <= _KINDS[beside.kind]:
        return beside
    return np.dtype(np.int64 if kind == 1 else np.float32)

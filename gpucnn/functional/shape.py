"""Changes of shape, parts, tensors put together, padding."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from gpucnn.arguments import common_dtype, normalize_axis, whole
from gpucnn.functional.checks import a_tensor
from gpucnn.ops import shape
from gpucnn.reference.shape import PadProblem
from gpucnn.tensor import Tensor, record


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Axes start_dim to end_dim as one, in logical (N,C,H,W) order; of any shape and dtype.

    Raises:
        ValueError: there is no such axis, or start_dim comes after end_dim.
        TypeError: not a tensor.
    """
    return a_tensor(input, "input", "flatten").flatten(start_dim, end_dim)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors in a row along `dim`; their other sizes are equal. Images stay channels-last.

    Different dtypes become their common one. A tensor of shape (0,) goes with any other, as in PyTorch.

    Raises:
        ValueError: no tensors, shapes that do not go together, different devices, no such axis.
        TypeError: something that is no tensor.
    """
    given = _tensors("cat", tensors)
    joined = [tensor for tensor in given if tensor.shape != (0,)] or given[:1]
    first = joined[0]
    if not first.ndim:
        raise ValueError("cat: tensors without axes can't be put in a row; stack gives them an axis")
    axis = normalize_axis(dim, first.ndim)
    for number, tensor in enumerate(joined):
        if tensor.ndim != first.ndim or _without(tensor, axis) != _without(first, axis):
            raise ValueError(
                f"cat: all sizes but that of axis {axis} must be equal, tensor 0 has shape {first.shape}, "
                f"tensor {number} {tensor.shape}"
            )
    dtype = functools.reduce(lambda a, b: common_dtype(a, 1, b, 1), [tensor.dtype for tensor in given])
    return record(shape.Cat, tuple([tensor.to(dtype) for tensor in joined]), {"axis": axis})  # type: ignore[no-any-return]


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape along a new axis at `dim`.

    Raises ValueError and TypeError as `cat`.
    """
    given = _tensors("stack", tensors)
    axis = normalize_axis(dim, given[0].ndim + 1)
    for number, tensor in enumerate(given):
        if tensor.shape != given[0].shape:
            raise ValueError(f"stack: tensor 0 has shape {given[0].shape}, but tensor {number} {tensor.shape}")
    return cat([tensor.unsqueeze(axis) for tensor in given], axis)


def _tensors(op: str, tensors: Sequence[Tensor]) -> list[Tensor]:
    if not isinstance(tensors, (list, tuple)):
        raise TypeError(f"{op} takes a list or tuple of tensors, got {type(tensors).__name__}")
    given = [a_tensor(tensor, f"tensors[{number}]", op) for number, tensor in enumerate(tensors)]
    if not given:
        raise ValueError(f"{op} needs at least one tensor")
    for number, tensor in enumerate(given):
        if tensor.device != given[0].device:
            raise ValueError(f"{op}: tensor 0 is on {given[0].device}, but tensor {number} on {tensor.device}")
    return given


def _without(tensor: Tensor, axis: int) -> tuple[int, ...]:
    return (*tensor.shape[:axis], *tensor.shape[axis + 1 :])


# ------------------------------------------------------------------------------------------------------ padding


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Cells added at the ends of the last axes: pad = (left, right, top, bottom, ...), the last axis first.

    Args:
        input: any shape in mode 'constant'; else (C,L) or (N,C,L) for two numbers, (C,H,W) or (N,C,H,W) for four,
            (C,D,H,W) or (N,C,D,H,W) for six.
        pad: how many cells; a negative number cuts as many off.
        mode: 'constant' (`value`), 'reflect' (the cells beyond the edge one, in reverse), 'replicate' (the edge cell)
            or 'circular' (the cells of the other end).
        value: of the cells that 'constant' adds, 0 by default; nothing that another mode takes.

    Raises:
        ValueError: an odd number of amounts, or too many; a size that would become negative; reflected amounts that
            are not less than the size, circular ones that are greater; a `value` beside another mode.
        TypeError: amounts that are no integers.
    """
    x = a_tensor(input, "input", "pad")
    if not isinstance(pad, (list, tuple)):
        raise TypeError(f"pad: pad must be a tuple of integers (left, right, top, bottom, ...), got {pad!r}")
    numbers = [whole(number, "pad: an amount") for number in pad]
    if len(numbers) % 2 or len(numbers) > 2 * x.ndim:
        raise ValueError(f"pad: pad has two numbers for each padded axis, got {len(numbers)} for shape {x.shape}")
    if mode not in ("constant", "reflect", "replicate", "circular"):
        raise ValueError(f"pad: mode must be 'constant', 'reflect', 'replicate' or 'circular', got {mode!r}")
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))[::-1]
    amounts = ((0, 0),) * (x.ndim - len(pairs)) + tuple(pairs)
    for size, amount in zip(x.shape, amounts, strict=True):
        if size + sum(amount) < 0 or size + sum(_cut(amount)) < 0:
            raise ValueError(f"pad: {amount} cuts more off than the {size} cells of an axis of shape {x.shape}")
    if mode != "constant":
        _check_copied(x.shape, pairs, mode)
        if value:
            raise ValueError(f"pad: mode {mode!r} takes no value, got {value}")
    if not any(numbers):
        return x.clone()
    if mode == "constant":
        return _padded(x, amounts, mode, 0.0 if value is None else value)
    cut, added = tuple(map(_cut, amounts)), tuple([(max(0, a), max(0, b)) for a, b in amounts])
    # What 'circular' repeats is what is left; the others look at the whole.
    for step, how in ((cut, "constant"), (added, mode))[:: 1 if mode == "circular" else -1]:
        x = _padded(x, step, how)
    return x


def _cut(amount: tuple[int, int]) -> tuple[int, int]:
    return min(0, amount[0]), min(0, amount[1])


def _padded(x: Tensor, amounts: tuple[tuple[int, int], ...], mode: str, value: float = 0.0) -> Tensor:
    if not any(map(any, amounts)):
        return x
    return record(shape.Pad, (x,), {"problem": PadProblem(amounts, mode, value)})  # type: ignore[no-any-return]


def _check_copied(sizes: tuple[int, ...], pairs: Sequence[tuple[int, int]], mode: str) -> None:
    """ValueError where there is nothing, or too little, to copy."""
    axes = len(pairs)
    if not (1 <= axes <= 3 and len(sizes) in (axes + 1, axes + 2)):
        raise ValueError(
            f"pad: mode {mode!r} takes 2, 4 or 6 amounts for the last 1, 2 or 3 axes of a tensor with one or two more "
            f"axes, got {2 * axes} for shape {sizes}"
        )
    if 0 in sizes[-axes - 1 :]:
        raise ValueError(f"pad: mode {mode!r} needs cells to copy, got shape {sizes}")
    for size, amount in zip(sizes[-axes:], pairs, strict=True):
        if mode == "reflect" and max(amount) >= size:
            raise ValueError(f"pad: mode 'reflect' takes amounts below the size {size} of an axis, got {amount}")
        if mode == "circular" and max(amount) > size + sum(_cut(amount)):
            raise ValueError(f"pad: mode 'circular' takes amounts up to what is left of the {size} cells, got {amount}")

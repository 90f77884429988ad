"""What every function asks of its arguments: tensors of one floating dtype on one device, batched or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpucnn import backend
from gpucnn.backend import FLOAT_KINDS, Array, are_together
from gpucnn.tensor import Tensor


def a_tensor(value: Any, name: str, op: str) -> Tensor:
    if not isinstance(value, Tensor):
        kind = type(value).__name__
        raise TypeError(f"{op}: {name} must be a gpucnn.Tensor, got {kind}; gpucnn.tensor(...) makes one")
    return value


def a_floating(value: Any, name: str, op: str) -> Array:
    """The array of what has to be a tensor of a floating dtype."""
    array = a_tensor(value, name, op).data
    if array.dtype.kind not in FLOAT_KINDS:
        raise TypeError(f"{op}: {name} must have a floating dtype, got {array.dtype}")
    return array


def floats_together(op: str, *optional: str, **operands: Tensor | None) -> None:
    """The operands are tensors of one floating dtype on one device; those named in `optional` may be None."""
    first_name, first = "", None
    for name, operand in operands.items():
        if operand is None and name in optional:
            continue
        if first is None:
            first_name, first = name, a_floating(operand, name, op)
            continue
        array = a_tensor(operand, name, op).data
        if array.dtype != first.dtype:
            raise TypeError(f"{op}: {first_name} has dtype {first.dtype}, but {name} has {array.dtype}")
        if not are_together(array, first):
            places = backend.device_of(first), backend.device_of(array)
            raise ValueError(f"{op}: {first_name} is on {places[0]}, but {name} on {places[1]}")


def hashable(op: str, **arguments: Any) -> tuple[Any, ...]:
    """The arguments as keys of a cache: lists as tuples."""
    values = tuple(arguments.values())
    try:
        hash(values)
    except TypeError:
        return _hashable_each(op, arguments)
    return values


def _hashable_each(op: str, arguments: dict[str, Any]) -> tuple[Any, ...]:
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}
    for name, value in plain.items():
        try:
            hash(value)
        except TypeError:
            raise TypeError(f"{op}: {name} takes an int or a tuple of ints, got {value!r}") from None
    return tuple(plain.values())


def batched(input: Tensor, run: Callable[[Tensor], Any]) -> Any:
    """Runs on (C,H,W) as on a batch of one."""
    if input.data.ndim != 3:
        return run(input)
    result = run(input.unsqueeze(0))
    return tuple(r.squeeze(0) for r in result) if isinstance(result, tuple) else result.squeeze(0)


def bias_fits(op: str, bias: Tensor | None, outputs: int) -> None:
    if bias is not None and bias.data.shape != (outputs,):
        raise ValueError(f"{op}: bias must have shape ({outputs},), one number an output channel, got {bias.shape}")


def axis_last(input: Tensor, axis: int) -> Tensor:
    """A view with `axis` last: for the channels of an image, the order in which memory has them already."""
    if axis == input.ndim - 1:
        return input
    return input.permute(*[i for i in range(input.ndim) if i != axis], axis)


def channels_fit(op: str, input: Tensor, shape: tuple[int, ...], meaning: str, **parameters: Tensor | None) -> None:
    """The parameters have `shape`, are where input is, and are all of its dtype or, beside 16 bits, of float32."""
    dtype, first_name, first = input.data.dtype, "", None
    for name, parameter in parameters.items():
        if parameter is None:
            continue
        array = a_tensor(parameter, name, op).data
        if array.shape != shape:
            raise ValueError(f"{op}: {name} must have shape {shape}, {meaning}, got {array.shape}")
        if not are_together(array, input.data):
            raise ValueError(f"{op}: input is on {input.device}, but {name} on {parameter.device}")
        if array.dtype != dtype and not (dtype.itemsize == 2 and array.dtype == np.float32):
            raise TypeError(f"{op}: input has dtype {dtype}, but {name} has {array.dtype}")
        if first is None:
            first_name, first = name, array.dtype
        elif array.dtype != first:
            raise TypeError(f"{op}: {first_name} has dtype {first}, but {name} has {array.dtype}")

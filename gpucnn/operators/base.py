"""What every family of operators builds on: the recorded call, and operands brought together."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from gpucnn import arguments, backend
from gpucnn.autograd import Function
from gpucnn.backend import Array
from gpucnn.graph import Node
from gpucnn.ops import shape

T = TypeVar("T", bound="Recorded")


class Recorded:
    """An array on which Functions are called and noted."""

    __slots__ = ()

    data: Array
    node: tuple[Node, int] | None
    _requires_grad: bool

    @staticmethod
    def __record__(function: type[Function], inputs: tuple[Any, ...], parameters: dict[str, Any]) -> Any:
        """Runs a Function on the arrays of `inputs` and notes it in the graph if any of them needs a gradient."""
        raise NotImplementedError

    def _call(self: T, function: type[Function], **parameters: Any) -> T:
        return self.__record__(function, (self,), parameters)  # type: ignore[no-any-return]

    def _floating(self: T) -> T:
        return self if self.data.dtype.kind in backend.FLOAT_KINDS else converted(self, np.dtype(np.float32))


def joined(tensor: Recorded, op: str, a: Any, b: Any, *, floating: bool = False) -> tuple[Any, Any]:
    """Operands a and b, of which one may be `tensor`, with one dtype, on its device; numbers and arrays join it.

    Args:
        op: what an error calls the operation.
        floating: integers become float32.

    Raises:
        TypeError: an operand that is neither tensor nor number nor array.
        ValueError: shapes that do not broadcast, different devices.
    """
    if isinstance(a, Recorded):
        m = a.data
    else:
        a = m = _beside(tensor.data, a)
    if isinstance(b, Recorded):
        n = b.data
    else:
        b = n = _beside(tensor.data, b)
    if m.dtype != n.dtype or (floating and m.dtype.kind not in backend.FLOAT_KINDS):
        dtype = arguments.common_dtype(m.dtype, m.ndim, n.dtype, n.ndim)
        if floating and dtype.kind not in backend.FLOAT_KINDS:
            dtype = np.dtype(np.float32)
        a, b = converted(a, dtype), converted(b, dtype)
    if m.shape != n.shape:
        arguments.check_broadcast(m.shape, n.shape, op)
    check_devices(op, m, n)
    return a, b


def check_devices(op: str, m: Array, n: Array) -> None:
    if not backend.are_together(m, n):
        where = f"{backend.device_of(m)} and {backend.device_of(n)}"
        raise ValueError(f"{op}: operands are on {where}; move one with to()")


def _beside(array: Array, value: Any) -> Array:
    """A number or array as an array where `array` lies; a number takes the dtype that it may."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (bool, int, float)):
        return backend.namespace(array).asarray(value, arguments.number_dtype(value, array.dtype))
    return backend.to_device(backend.as_array(value), backend.device_of(array))


def converted(value: Any, dtype: np.dtype[Any]) -> Any:
    if not isinstance(value, Recorded):
        return value.astype(dtype, copy=False)
    if value.data.dtype == dtype:
        return value
    return value._call(shape.Convert, dtype=dtype, device=backend.device_of(value.data))


def array_of(value: Any) -> Array:
    """The array of a tensor, or what backend.as_array makes of anything else."""
    return value.data if isinstance(value, Recorded) else backend.as_array(value)

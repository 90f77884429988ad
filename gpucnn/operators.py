"""What a Tensor can be asked for in one recorded call: arithmetic, comparisons, sums, other shapes.

`Operators` is the half of Tensor that needs no more of it than its array and `__record__`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from gpucnn import arguments, backend
from gpucnn.autograd import Function
from gpucnn.backend import Array
from gpucnn.ops import elementwise, rectifier, reduction, shape

T = TypeVar("T", bound="Operators")


class Operators:
    """The operators of a Tensor. Dtypes of arithmetic follow PyTorch's rule, see `arguments.common_dtype`."""

    __slots__ = ()
    __array_priority__ = 1000  # numpy_array * Tensor is the Tensor's to compute

    data: Array

    @staticmethod
    def __record__(function: type[Function], inputs: tuple[Any, ...], parameters: dict[str, Any]) -> Any:
        """Runs a Function on the arrays of `inputs` and notes it in the graph if any of them needs a gradient."""
        raise NotImplementedError

    def _call(self: T, function: type[Function], **parameters: Any) -> T:
        return self.__record__(function, (self,), parameters)  # type: ignore[no-any-return]

    # -- arithmetic

    def __add__(self: T, other: Any) -> T:
        return _arithmetic(elementwise.Add, self, self, other)

    def __sub__(self: T, other: Any) -> T:
        return _arithmetic(elementwise.Subtract, self, self, other)

    def __mul__(self: T, other: Any) -> T:
        return _arithmetic(elementwise.Multiply, self, self, other)

    def __truediv__(self: T, other: Any) -> T:
        return _arithmetic(elementwise.Divide, self, self, other)

    def __radd__(self: T, other: Any) -> T:
        return _arithmetic(elementwise.Add, self, other, self)

    def __rsub__(self: T, other: Any) -> T:
        return _arithmetic(elementwise.Subtract, self, other, self)

    def __rmul__(self: T, other: Any) -> T:
        return _arithmetic(elementwise.Multiply, self, other, self)

    def __rtruediv__(self: T, other: Any) -> T:
        return _arithmetic(elementwise.Divide, self, other, self)

    def __neg__(self: T) -> T:
        return self._call(elementwise.Negative)

    def __pow__(self: T, exponent: Any) -> T:
        if isinstance(exponent, np.generic):
            exponent = exponent.item()
        if not isinstance(exponent, (int, float)):
            return NotImplemented
        base = self._floating() if isinstance(exponent, float) else self
        return base._call(elementwise.Power, exponent=exponent)

    def exp(self: T) -> T:
        """e to the power of each element."""
        return self._floating()._call(elementwise.Exp)

    def log(self: T) -> T:
        """Natural logarithm of each element."""
        return self._floating()._call(elementwise.Log)

    def relu(self: T) -> T:
        """max(x, 0)."""
        return self._call(rectifier.ReLU)

    def _floating(self: T) -> T:
        return self if self.data.dtype.kind == "f" else _converted(self, np.dtype(np.float32))

    # -- comparisons: bool tensors without history

    def __eq__(self: T, other: object) -> T:  # type: ignore[override]
        return self._compared(operator.eq, other)

    def __ne__(self: T, other: object) -> T:  # type: ignore[override]
        return self._compared(operator.ne, other)

    def __lt__(self: T, other: Any) -> T:
        return self._compared(operator.lt, other)

    def __le__(self: T, other: Any) -> T:
        return self._compared(operator.le, other)

    def __gt__(self: T, other: Any) -> T:
        return self._compared(operator.gt, other)

    def __ge__(self: T, other: Any) -> T:
        return self._compared(operator.ge, other)

    __hash__ = object.__hash__

    def _compared(self: T, compare: Callable[[Any, Any], Any], other: Any) -> T:
        plain = other.item() if isinstance(other, np.generic) else other
        return self.__record__(_Compare, (self, plain), {"compare": compare})  # type: ignore[no-any-return]

    # -- reductions

    def sum(self: T, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> T:
        """Sum over all axes, or over those named; integers and bools are summed in int64."""
        return self._call(reduction.Sum, axes=arguments.reduced_axes(dim, self.data.ndim), keepdims=keepdim)

    def mean(self: T, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> T:
        """Mean over all axes, or over those named; TypeError for integers."""
        if self.data.dtype.kind != "f":
            raise TypeError(f"mean needs a floating dtype, got {self.data.dtype}; to('float32') gives one")
        return self._call(reduction.Mean, axes=arguments.reduced_axes(dim, self.data.ndim), keepdims=keepdim)

    def argmax(self: T, dim: int | None = None, keepdim: bool = False) -> T:
        """int64 position of the first maximum: over all elements in logical order, or along one axis."""
        axis = None if dim is None else arguments.normalize_axis(dim, self.data.ndim)
        return self._call(_Argmax, axis=axis, keepdims=keepdim)

    # -- shape

    def reshape(self: T, *sizes: Any) -> T:
        """The same elements in logical order under another shape; one size may be -1."""
        return self._call(shape.Reshape, shape=arguments.new_shape(self.data.shape, sizes))

    view = reshape

    def flatten(self: T, start_dim: int = 0, end_dim: int = -1) -> T:
        """Axes start_dim to end_dim as one, in logical order."""
        return self._call(shape.Reshape, shape=arguments.flat_shape(self.data.shape, start_dim, end_dim))

    def unsqueeze(self: T, dim: int) -> T:
        """With a new axis of size 1 at `dim`."""
        old, at = self.data.shape, arguments.normalize_axis(dim, self.data.ndim + 1)
        return self._call(shape.Reshape, shape=(*old[:at], 1, *old[at:]))

    def squeeze(self: T, dim: int | None = None) -> T:
        """Without the axis `dim` if its size is 1; without all such axes for None."""
        axes = arguments.reduced_axes(dim, self.data.ndim)
        kept = tuple([size for axis, size in enumerate(self.data.shape) if size != 1 or axis not in axes])
        return self._call(shape.Reshape, shape=kept)

    def permute(self: T, *dims: Any) -> T:
        """Axes in another order: permute(0, 2, 3, 1). Always a view."""
        return self._call(shape.Permute, axes=arguments.permutation(dims, self.data.ndim))

    def transpose(self: T, dim0: int, dim1: int) -> T:
        """Two axes exchanged. Always a view."""
        axes = list(range(self.data.ndim))
        a, b = (arguments.normalize_axis(dim, self.data.ndim) for dim in (dim0, dim1))
        axes[a], axes[b] = axes[b], axes[a]
        return self._call(shape.Permute, axes=tuple(axes))

    def __getitem__(self: T, index: Any) -> T:
        kept = tuple(map(_kept_index, index)) if isinstance(index, tuple) else _kept_index(index)
        return self._call(shape.GetItem, index=kept)


def _kept_index(part: Any) -> Any:
    """An index for backward to find as it was: arrays and lists are copied, for their owner may write into them."""
    array = part.data if isinstance(part, Operators) else part
    return array.copy() if hasattr(array, "copy") else array


class _Compare(Function):
    @staticmethod
    def forward(ctx: Any, a: Array, b: Any, *, compare: Callable[[Any, Any], Any]) -> Array:
        return backend.namespace(a).asarray(compare(a, b))


class _Argmax(Function):
    @staticmethod
    def forward(ctx: Any, a: Array, *, axis: int | None, keepdims: bool) -> Array:
        if not a.size:
            raise ValueError(f"argmax: a tensor of shape {a.shape} has no largest element")
        return backend.namespace(a).asarray(a.argmax(axis=axis, keepdims=keepdims))


def _arithmetic(function: type[Function], tensor: T, a: Any, b: Any) -> T:
    """`function` of a and b, of which one is `tensor`; numbers and arrays join it on its device."""
    if isinstance(a, Operators):
        m = a.data
    else:
        a = m = _beside(tensor.data, a)
    if isinstance(b, Operators):
        n = b.data
    else:
        b = n = _beside(tensor.data, b)
    if m.dtype != n.dtype or (m.dtype.kind != "f" and function is elementwise.Divide):
        dtype = arguments.common_dtype(m.dtype, m.ndim, n.dtype, n.ndim)
        if dtype.kind != "f" and function is elementwise.Divide:
            dtype = np.dtype(np.float32)
        a, b = _converted(a, dtype), _converted(b, dtype)
    if m.shape != n.shape:
        arguments.check_broadcast(m.shape, n.shape, function.__name__)
    if not (type(m) is type(n) is np.ndarray) and backend.device_of(m) != backend.device_of(n):
        where = f"{backend.device_of(m)} and {backend.device_of(n)}"
        raise ValueError(f"{function.__name__}: operands are on {where}; move one with to()")
    return tensor.__record__(function, (a, b), {})  # type: ignore[no-any-return]


def _beside(array: Array, value: Any) -> Array:
    """A number or array as an array where `array` lies; a number takes the dtype that it may."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (bool, int, float)):
        return backend.namespace(array).asarray(value, arguments.number_dtype(value, array.dtype))
    return backend.to_device(backend.as_array(value), backend.device_of(array))


def _converted(value: Any, dtype: np.dtype[Any]) -> Any:
    if not isinstance(value, Operators):
        return value.astype(dtype, copy=False)
    if value.data.dtype == dtype:
        return value
    return value._call(shape.Convert, dtype=dtype, device=backend.device_of(value.data))

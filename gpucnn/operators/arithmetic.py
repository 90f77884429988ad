"""Arithmetic and functions of single elements."""

from __future__ import annotations

import operator
from typing import Any, TypeVar

import numpy as np

from gpucnn.arguments import check_broadcast
from gpucnn.autograd import Function
from gpucnn.operators.base import Recorded, array_of, check_devices, joined
from gpucnn.operators.casts import lowered, widened
from gpucnn.operators.logic import Logic
from gpucnn.ops import elementwise, matmul, rectifier

T = TypeVar("T", bound="Arithmetic")


class Arithmetic(Logic):
    """Two operands broadcast; numbers, arrays and nested lists are operands too."""

    __slots__ = ()

    def __add__(self: T, other: Any) -> T:
        return _arithmetic(elementwise.Add, self, self, other)

    def __sub__(self: T, other: Any) -> T:
        return _arithmetic(elementwise.Subtract, self, self, other)

    def __mul__(self: T, other: Any) -> T:
        return _arithmetic(elementwise.Multiply, self, self, other)

    def __truediv__(self: T, other: Any) -> T:
        return _arithmetic(elementwise.Divide, self, self, other, floating=True)

    def __radd__(self: T, other: Any) -> T:
        return _arithmetic(elementwise.Add, self, other, self)

    def __rsub__(self: T, other: Any) -> T:
        return _arithmetic(elementwise.Subtract, self, other, self)

    def __rmul__(self: T, other: Any) -> T:
        return _arithmetic(elementwise.Multiply, self, other, self)

    def __rtruediv__(self: T, other: Any) -> T:
        divisor = widened(self)
        return _arithmetic(elementwise.Divide, divisor, other, divisor, floating=True)

    def __neg__(self: T) -> T:
        return self._call(elementwise.Negative)

    def __abs__(self: T) -> T:
        """Each element without its sign; the gradient at 0 is 0."""
        return self._call(elementwise.Absolute)

    def __pow__(self: T, exponent: Any) -> T:
        if isinstance(exponent, np.generic):
            exponent = exponent.item()
        if not isinstance(exponent, (int, float)):
            return NotImplemented
        base = self._floating() if isinstance(exponent, float) else self
        return widened(base)._call(elementwise.Power, exponent=exponent)

    def pow(self: T, exponent: float) -> T:
        """Each element to the power of a number."""
        return operator.pow(self, exponent)  # type: ignore[no-any-return]

    def square(self: T) -> T:
        """Each element times itself."""
        return self**2

    def exp(self: T) -> T:
        """e to the power of each element."""
        return widened(self._floating())._call(elementwise.Exp)

    def log(self: T) -> T:
        """Natural logarithm of each element."""
        return widened(self._floating())._call(elementwise.Log)

    def sqrt(self: T) -> T:
        """Square root of each element; NaN for a negative one."""
        return self._floating()._call(elementwise.SquareRoot)

    abs = __abs__

    def sign(self: T) -> T:
        """-1, 0 or 1 for each element; 0 for NaN. Its gradient is 0."""
        return self._call(elementwise.Sign)

    def relu(self: T) -> T:
        """max(x, 0)."""
        return self._call(rectifier.ReLU)

    def maximum(self: T, other: Any) -> T:
        """The greater of two elements, NaN if one is; the gradient of equal ones is halved between them."""
        return _arithmetic(elementwise.Maximum, self, self, other)

    def minimum(self: T, other: Any) -> T:
        """The lesser of two elements, NaN if one is; the gradient of equal ones is halved between them."""
        return _arithmetic(elementwise.Minimum, self, self, other)

    def clamp(self: T, min: Any = None, max: Any = None) -> T:
        """Each element, but `min` where it is less and `max` where it is greater, or where min is greater than max.

        Args:
            min, max: numbers or tensors that broadcast with this one; None for no bound. The gradient goes to the
                element where it lies between the bounds or on one, else to the bound.

        Raises:
            ValueError: neither is given, or shapes do not broadcast.
        """
        if min is None and max is None:
            raise ValueError("clamp needs min, max or both")
        least, greatest = (bound.item() if isinstance(bound, np.generic) else bound for bound in (min, max))
        x = self
        if all(bound is None or isinstance(bound, (bool, int, float)) for bound in (least, greatest)):
            for bound in (least, greatest):
                x = x if bound is None else joined(x, "clamp", x, bound)[0]
            return x._call(elementwise.Clamp, bounds=(least, greatest))
        if least is not None:
            x = choose("clamp", (x >= least) | (x != x), x, least)
        if greatest is not None:
            x = choose("clamp", (x <= greatest) | (x != x), x, greatest)
        return x

    def where(self: T, condition: Any, other: Any) -> T:
        """The element where `condition` (bool) is true, else that of `other`; all three broadcast."""
        return choose("where", condition, self, other)  # type: ignore[no-any-return]

    def masked_fill(self: T, mask: Any, value: Any) -> T:
        """`value`, a number or a tensor without axes, where `mask` (bool) is true, else the element."""
        return choose("masked_fill", mask, value, self)  # type: ignore[no-any-return]

    def __matmul__(self: T, other: Any) -> T:
        return _product(self, self, other)

    def __rmatmul__(self: T, other: Any) -> T:
        return _product(self, other, self)

    def matmul(self: T, other: Any) -> T:
        """The product of matrices (..., M, K) and (..., K, N); the axes before the last two broadcast.

        A vector (K,) is a row on the left, a column on the right, and the result lacks that axis.

        Raises:
            ValueError: an operand without axes, shapes that do not go together, different devices.
            TypeError: operands of different dtypes, or of bools.
        """
        return _product(self, self, other)


def _arithmetic(function: type[Function], tensor: T, a: Any, b: Any, *, floating: bool = False) -> T:
    """`function` of a and b, of which one is `tensor`."""
    inputs = joined(tensor, function.__name__, a, b, floating=floating)
    return tensor.__record__(function, inputs, {})  # type: ignore[no-any-return]


def choose(op: str, condition: Any, a: Any, b: Any) -> Any:
    """a where `condition` is true, else b; one of the three at least is a tensor."""
    mask = array_of(condition)
    if mask.dtype.kind != "b":
        raise TypeError(f"{op}: the condition must hold bools, got {mask.dtype}")
    tensor = next(operand for operand in (a, b, condition) if isinstance(operand, Recorded))
    a, b = joined(tensor, op, a, b)
    shape = np.broadcast_shapes(array_of(a).shape, array_of(b).shape)
    check_broadcast(mask.shape, shape, op)
    check_devices(op, mask, array_of(a))
    return tensor.__record__(elementwise.Where, (mask, a, b), {})


def _product(tensor: T, a: Any, b: Any) -> T:
    """a times b as matrices, of which one is `tensor`."""
    a, b = lowered(*[operand if isinstance(operand, Recorded) else array_of(operand) for operand in (a, b)])
    m, n = array_of(a), array_of(b)
    if m.dtype != n.dtype or m.dtype.kind == "b":
        raise TypeError(f"matmul: the operands must have one dtype of numbers, got {m.dtype} and {n.dtype}")
    if not m.ndim or not n.ndim or m.shape[-1] != n.shape[-2:][0]:
        raise ValueError(f"matmul: shapes {m.shape} and {n.shape} do not go together")
    check_broadcast(m.shape[:-2], n.shape[:-2], "matmul, axes before the last two")
    check_devices("matmul", m, n)
    return tensor.__record__(matmul.Matmul, (a, b), {})  # type: ignore[no-any-return]

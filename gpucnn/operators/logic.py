"""Comparisons and logic: tensors without history."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from gpucnn import backend
from gpucnn.arguments import check_broadcast
from gpucnn.autograd import Function
from gpucnn.backend import Array
from gpucnn.operators.base import Recorded, joined

T = TypeVar("T", bound="Logic")


class Logic(Recorded):
    """Comparisons answer with bool tensors; & | ^ ~ take bools, and integers bit by bit."""

    __slots__ = ()

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
        if isinstance(plain, Recorded):
            check_broadcast(self.data.shape, plain.data.shape, compare.__name__)
        return self.__record__(_Apply, (self, plain), {"run": compare})  # type: ignore[no-any-return]

    def __and__(self: T, other: Any) -> T:
        return self._combined(operator.and_, "&", other)

    def __or__(self: T, other: Any) -> T:
        return self._combined(operator.or_, "|", other)

    def __xor__(self: T, other: Any) -> T:
        return self._combined(operator.xor, "^", other)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def _combined(self: T, combine: Callable[[Any, Any], Any], sign: str, other: Any) -> T:
        a, b = joined(self, sign, self, other)
        _check_bits(sign, a)
        return self.__record__(_Apply, (a, b), {"run": combine})  # type: ignore[no-any-return]

    def __invert__(self: T) -> T:
        _check_bits("~", self)
        return self._call(_Apply, run=operator.invert)


class _Apply(Function):
    @staticmethod
    def forward(ctx: Any, a: Array, *others: Any, run: Callable[..., Any]) -> Array:
        return backend.namespace(a).asarray(run(a, *others))


def _check_bits(sign: str, operand: Recorded) -> None:
    if operand.data.dtype.kind in backend.FLOAT_KINDS:
        raise TypeError(f"{sign} takes bools and integers, got {operand.data.dtype}")

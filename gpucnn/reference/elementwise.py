"""Arithmetic and activations over arrays of one shape or of shapes that broadcast, in whatever order memory has.

`problem` is None for all of them, and for `power` the exponent. Gradients are functions of what the forward saves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from gpucnn.backend import Array, namespace
from gpucnn.reference.common import select

F = TypeVar("F", bound=Callable[..., Any])


def _quiet(function: F) -> F:
    """Infinities and NaN are results here, as IEEE 754 has them, not events to warn of."""

    @functools.wraps(function)
    def wrapped(*arguments: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*arguments)

    return wrapped  # type: ignore[return-value]


@_quiet
def add(problem: None, a: Array, b: Array) -> Array:
    return a + b


@_quiet
def subtract(problem: None, a: Array, b: Array) -> Array:
    return a - b


@_quiet
def multiply(problem: None, a: Array, b: Array) -> Array:
    return a * b


@_quiet
def divide(problem: None, a: Array, b: Array) -> Array:
    return a / b


def negative(problem: None, a: Array) -> Array:
    return -a


@_quiet
def power(exponent: float, a: Array) -> Array:
    return a**exponent


@_quiet
def exp(problem: None, a: Array) -> Array:
    return namespace(a).exp(a)


@_quiet
def log(problem: None, a: Array) -> Array:
    return namespace(a).log(a)


def relu(problem: None, x: Array) -> Array:
    return namespace(x).maximum(x, x.dtype.type(0))


def relu_grad(problem: None, dy: Array, y: Array) -> Array:
    return select(dy, y > 0)


@_quiet
def sigmoid(problem: None, x: Array) -> Array:
    """1 / (1 + exp(-x)), from exp(-|x|) so that neither tail overflows or loses its digits."""
    xp = namespace(x)
    small = xp.exp(-xp.abs(x))
    one = x.dtype.type(1)
    return xp.where(x >= 0, one, small) / (one + small)


def sigmoid_grad(problem: None, dy: Array, y: Array) -> Array:
    return dy * y * (1 - y)


def tanh(problem: None, x: Array) -> Array:
    return namespace(x).tanh(x)


def tanh_grad(problem: None, dy: Array, y: Array) -> Array:
    return dy * (1 - y * y)

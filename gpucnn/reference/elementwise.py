"""Arithmetic and activations over arrays of one shape or of shapes that broadcast, in whatever order memory has.

`problem` is None for all of them, and for `power` the exponent. Gradients are functions of what the forward saves.
Infinities and NaN come and go as in IEEE 754; the registry runs kernels without numpy's warnings of them.
"""

from __future__ import annotations

from gpucnn.backend import Array, namespace
from gpucnn.reference.common import select


def add(problem: None, a: Array, b: Array) -> Array:
    return a + b


def subtract(problem: None, a: Array, b: Array) -> Array:
    return a - b


def multiply(problem: None, a: Array, b: Array) -> Array:
    return a * b


def divide(problem: None, a: Array, b: Array) -> Array:
    return a / b


def negative(problem: None, a: Array) -> Array:
    return -a


def power(exponent: float, a: Array) -> Array:
    return a**exponent


def exp(problem: None, a: Array) -> Array:
    return namespace(a).exp(a)


def log(problem: None, a: Array) -> Array:
    return namespace(a).log(a)


def relu(problem: None, x: Array) -> Array:
    return namespace(x).maximum(x, x.dtype.type(0))


def relu_grad(problem: None, dy: Array, y: Array) -> Array:
    """dy where y is not 0: y is no less, and a NaN in it lets dy pass, as in PyTorch."""
    return select(dy, y != 0)


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

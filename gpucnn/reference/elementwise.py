"""Arithmetic over arrays of one shape or of shapes that broadcast, in whatever order memory has.

`problem` is None for all of them, and for `power` the exponent.
Infinities and NaN come and go as in IEEE 754; the registry runs kernels without numpy's warnings of them.
"""

from __future__ import annotations

from gpucnn.backend import Array, namespace


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

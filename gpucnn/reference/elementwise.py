"""Arithmetic over arrays of one shape or of shapes that broadcast, in whatever order memory has.

`problem` is None for most of them. Infinities and NaN come and go as in IEEE 754; the registry runs kernels without
numpy's warnings of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpucnn.backend import Array, empty, namespace
from gpucnn.reference.common import LARGE_BYTES, blocks
from gpucnn.reference.parallel import for_each

Bounds = tuple["float | None", "float | None"]

_PIECE_BYTES = 1 << 21  # of the result, that one thread computes at a time


def _shared(function: Callable[..., Array], *operands: Array) -> Array:
    """function(*operands), a ufunc that keeps their dtype: on several threads where arrays are large and of one shape.

    Operands of one element go with any.
    """
    like = operands[0]
    for operand in operands[1:]:
        if operand.size > like.size:
            like = operand
    if like.nbytes <= LARGE_BYTES or not all([_same_or_single(operand, like) for operand in operands]):
        return function(*operands)
    out = empty(like.shape, like.dtype, like)
    flat_out = out.reshape(-1)
    flat = [operand.reshape(-1 if operand.size > 1 else ()) for operand in operands]

    def run(piece: slice) -> None:
        function(*[operand[piece] if operand.ndim else operand for operand in flat], out=flat_out[piece])

    for_each(run, blocks(like.size, like.itemsize, _PIECE_BYTES), like)
    return out


def _same_or_single(operand: Array, like: Array) -> bool:
    if type(operand) is not np.ndarray or operand.dtype != like.dtype or not operand.flags.c_contiguous:
        return False
    return operand.shape == like.shape or (operand.size == 1 and operand.ndim <= like.ndim)


def add(problem: None, a: Array, b: Array) -> Array:
    return _shared(namespace(a).add, a, b)


def subtract(problem: None, a: Array, b: Array) -> Array:
    return _shared(namespace(a).subtract, a, b)


def multiply(problem: None, a: Array, b: Array) -> Array:
    return _shared(namespace(a).multiply, a, b)


def divide(problem: None, a: Array, b: Array) -> Array:
    return _shared(namespace(a).divide, a, b)


def negative(problem: None, a: Array) -> Array:
    return _shared(namespace(a).negative, a)


def power(exponent: float, a: Array) -> Array:
    if exponent == 2:
        return multiply(None, a, a)
    return a**exponent


def exp(problem: None, a: Array) -> Array:
    return _shared(namespace(a).exp, a)


def log(problem: None, a: Array) -> Array:
    return _shared(namespace(a).log, a)


def absolute(problem: None, a: Array) -> Array:
    return _shared(namespace(a).absolute, a)


def square_root(problem: None, a: Array) -> Array:
    return _shared(namespace(a).sqrt, a)


def sign(problem: None, a: Array) -> Array:
    """0 for NaN, as in PyTorch."""
    xp = namespace(a)
    if a.dtype.kind == "b":
        return a.copy()
    signs = xp.sign(a)
    return xp.where(a == a, signs, a.dtype.type(0)) if a.dtype.kind == "f" else signs


def maximum(problem: None, a: Array, b: Array) -> Array:
    return _shared(namespace(a).maximum, a, b)


def minimum(problem: None, a: Array, b: Array) -> Array:
    return _shared(namespace(a).minimum, a, b)


def maximum_grad(problem: None, dy: Array, a: Array, b: Array) -> Array:
    """What of dy goes to a in the maximum of a and b: all, half where they are equal, none where it is less."""
    xp = namespace(dy)
    return xp.where(a < b, dy.dtype.type(0), xp.where(a == b, dy / 2, dy))


def clamp(bounds: Bounds, a: Array) -> Array:
    xp = namespace(a)
    return _shared(lambda x, out=None: xp.clip(x, *bounds, out=out), a)


def clamp_grad(bounds: Bounds, dy: Array, a: Array) -> Array:
    """dy where a lies between the bounds or on one, else 0."""
    least, greatest = bounds
    inside: Any = (a == a) if least is None else a >= least
    if greatest is not None:
        inside = inside & (a <= greatest)
    return namespace(dy).where(inside, dy, dy.dtype.type(0))


def where(problem: None, condition: Array, a: Array, b: Array) -> Array:
    return namespace(condition).where(condition, a, b)

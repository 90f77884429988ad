"""Softmax and its logarithm over the last axis, from x - max(x), so that no exponential overflows."""

from __future__ import annotations

from gpucnn.backend import Array, namespace
from gpucnn.reference.pointwise import rowwise, scratch


@rowwise
def softmax(problem: None, x: Array, *, out: Array) -> None:
    xp = namespace(x)
    xp.subtract(x, x.max(axis=-1, keepdims=True), out=out)
    xp.exp(out, out=out)
    out /= out.sum(axis=-1, keepdims=True)


@rowwise
def softmax_grad(problem: None, dy: Array, y: Array, *, out: Array) -> None:
    """dx = y * (dy - sum(y * dy))."""
    xp = namespace(y)
    xp.multiply(y, dy, out=out)
    xp.subtract(dy, out.sum(axis=-1, keepdims=True), out=out)
    out *= y


@rowwise
def log_softmax(problem: None, x: Array, *, out: Array) -> None:
    xp = namespace(x)
    (exponentials,) = scratch(1, x)
    xp.subtract(x, x.max(axis=-1, keepdims=True), out=out)
    xp.exp(out, out=exponentials)
    out -= xp.log(exponentials.sum(axis=-1, keepdims=True))


@rowwise
def log_softmax_grad(problem: None, dy: Array, y: Array, *, out: Array) -> None:
    """dx = dy - softmax * sum(dy)."""
    xp = namespace(y)
    xp.exp(y, out=out)
    out *= dy.sum(axis=-1, keepdims=True)
    xp.subtract(dy, out, out=out)

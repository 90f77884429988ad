"""Activations and softmax."""

from __future__ import annotations

from gpucnn.arguments import normalize_axis
from gpucnn.functional.checks import axis_last, floats_together
from gpucnn.ops import activation, loss
from gpucnn.tensor import Tensor, record


def relu(input: Tensor) -> Tensor:
    """max(x, 0); the gradient at 0 is 0."""
    floats_together("relu", input=input)
    return record(activation.ReLU, (input,), {})  # type: ignore[no-any-return]


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    floats_together("sigmoid", input=input)
    return record(activation.Sigmoid, (input,), {})  # type: ignore[no-any-return]


def tanh(input: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    floats_together("tanh", input=input)
    return record(activation.Tanh, (input,), {})  # type: ignore[no-any-return]


def log_softmax(input: Tensor, dim: int) -> Tensor:
    """log(exp(x) / sum(exp(x))) along `dim`, without overflow."""
    floats_together("log_softmax", input=input)
    axis = normalize_axis(dim, input.ndim)
    rows: Tensor = record(loss.LogSoftmax, (axis_last(input, axis),), {})
    if axis == input.ndim - 1:
        return rows
    return rows.permute(*range(axis), input.ndim - 1, *range(axis, input.ndim - 1))


def softmax(input: Tensor, dim: int) -> Tensor:
    """exp(x) / sum(exp(x)) along `dim`, without overflow."""
    floats_together("softmax", input=input)
    return log_softmax(input, dim).exp()

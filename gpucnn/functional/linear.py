"""Fully connected layers."""

from __future__ import annotations

import numpy as np

from gpucnn.autograd import Function
from gpucnn.functional.checks import bias_fits, floats_together
from gpucnn.operators.casts import lowered
from gpucnn.ops import linear as linear_ops
from gpucnn.tensor import Tensor, record


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input (..., I) times weight (O,I) transposed, plus bias (O,): (..., O).

    Raises:
        ValueError: shapes that do not fit together, different devices.
        TypeError: not tensors of one floating dtype.
    """
    return _linear("linear", linear_ops.Linear, input, weight, bias)


def linear_relu(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """relu(linear(input, weight, bias)), of the same shapes, in one pass: the sum before the ReLU is never in memory.

    Raises:
        ValueError, TypeError: as linear().
    """
    return _linear("linear_relu", linear_ops.LinearReLU, input, weight, bias)


def _linear(name: str, op: type[Function], input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    input, weight, bias = lowered(input, weight, bias)
    floats_together(name, "bias", input=input, weight=weight, bias=bias)
    if weight.ndim != 2:
        raise ValueError(f"{name}: weight must have shape (out_features, in_features), got {weight.shape}")
    outputs, inputs = weight.shape
    if not input.ndim or input.shape[-1] != inputs:
        raise ValueError(f"{name}: input {input.shape} must end in the {inputs} features of weight {weight.shape}")
    bias_fits(name, bias, outputs)
    rows = input if input.ndim == 2 else input.reshape(int(np.prod(input.shape[:-1], dtype=np.int64)), inputs)
    y: Tensor = record(op, (rows, weight, bias), {})
    return y if input.ndim == 2 else y.reshape(*input.shape[:-1], outputs)

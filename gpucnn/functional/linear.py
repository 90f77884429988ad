"""Fully connected layers."""

from __future__ import annotations

import numpy as np

from gpucnn.functional.checks import bias_fits, floats_together
from gpucnn.ops import linear as linear_ops
from gpucnn.tensor import Tensor, record


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input (..., I) times weight (O,I) transposed, plus bias (O,): (..., O).

    Raises:
        ValueError: shapes that do not fit together, different devices.
        TypeError: not tensors of one floating dtype.
    """
    floats_together("linear", "bias", input=input, weight=weight, bias=bias)
    if weight.ndim != 2:
        raise ValueError(f"linear: weight must have shape (out_features, in_features), got {weight.shape}")
    outputs, inputs = weight.shape
    if not input.ndim or input.shape[-1] != inputs:
        raise ValueError(f"linear: input {input.shape} must end in the {inputs} features of weight {weight.shape}")
    bias_fits("linear", bias, outputs)
    rows = input if input.ndim == 2 else input.reshape(int(np.prod(input.shape[:-1], dtype=np.int64)), inputs)
    y: Tensor = record(linear_ops.Linear, (rows, weight, bias), {})
    return y if input.ndim == 2 else y.reshape(*input.shape[:-1], outputs)

"""Normalisation."""

from __future__ import annotations

import math

import numpy as np

from gpucnn.functional.checks import floats_together
from gpucnn.graph import wrote
from gpucnn.ops import norm as ops
from gpucnn.reference.norm import NormProblem
from gpucnn.tensor import Tensor, record


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias, mean and variance being those of each channel of (N,C,...).

    Ioffe and Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate shift"
    (2015).

    Args:
        running_mean, running_var: (C,). In training they move towards the batch's statistics, in place (the variance
            towards the unbiased one), or are None; otherwise they are what is normalised by. An empty batch leaves
            them as they are.
        weight, bias: (C,) or None for 1 and 0. For an input of float16 they and the statistics may be float32.
        training: normalise by the batch's statistics.
        momentum: share of the batch's statistics in the new running ones.

    Raises:
        ValueError: shapes that do not fit, one value a channel in training, no statistics otherwise.
        TypeError: not tensors, dtypes that do not go together.
    """
    channels = _channels("batch_norm", input)
    _check_channels("batch_norm", input, channels, weight=weight, bias=bias)
    running = _running("batch_norm", input, channels, running_mean, running_var)
    if weight is not None or bias is not None:
        _same_dtype("batch_norm", weight=weight, bias=bias, running_mean=running_mean)
    if training:
        if math.prod(input.shape) == channels:
            raise ValueError(
                f"batch_norm: expected more than 1 value per channel when training, got input size {input.shape}"
            )
        if not eps > 0:
            raise ValueError(f"batch_norm: eps must be positive in training, got {eps}")
    elif running is None:
        raise ValueError("batch_norm: running_mean and running_var are needed where training is False")
    problem = NormProblem(1, math.prod(input.shape[:1] + input.shape[2:]), channels, channels)
    return _normalised(input, weight, bias, problem, eps, running, momentum if training else None)

"""Softmax, its logarithm, and the softmax of the negative."""

from __future__ import annotations

import warnings
from typing import Any

from gpucnn.arguments import normalize_axis
from gpucnn.functional.activation import axis_back
from gpucnn.functional.checks import a_tensor, axis_last, floats_together
from gpucnn.operators.casts import widened
from gpucnn.ops import softmax as ops
from gpucnn.tensor import Tensor, record


def softmax(input: Tensor, dim: int | None = None, *, dtype: Any = None) -> Tensor:
    """exp(x) / sum(exp(x)) along `dim`, without overflow; of any shape (Bridle, "Probabilistic interpretation of
    feedforward classification network outputs", 1990).

    Args:
        dim: the axis that sums to 1. None chooses 0 for tensors of 0, 1 and 3 axes and 1 for others, and warns.
        dtype: what the input is converted to first, if anything.

    Raises:
        ValueError: there is no axis `dim`.
        TypeError: not a floating tensor.
    """
    return _along(ops.Softmax, "softmax", input, dim, dtype)


def softmin(input: Tensor, dim: int | None = None, *, dtype: Any = None) -> Tensor:
    """softmax(-x) along `dim`; shapes, arguments and errors as of `softmax`."""
    return _along(ops.Softmax, "softmin", -a_tensor(input, "input", "softmin"), dim, dtype)


def log_softmax(input: Tensor, dim: int | None = None, *, dtype: Any = None) -> Tensor:
    """log(exp(x) / sum(exp(x))) along `dim`, without overflow; shapes, arguments and errors as of `softmax`."""
    return _along(ops.LogSoftmax, "log_softmax", input, dim, dtype)


def _along(function: Any, op: str, input: Tensor, dim: int | None, dtype: Any) -> Tensor:
    input = widened(input) if dtype is None else a_tensor(input, "input", op).to(dtype=dtype)
    floats_together(op, input=input)
    if dim is None:
        dim = 0 if input.ndim in (0, 1, 3) else 1
        warnings.warn(f"{op}: dim was not given, {dim} is used; say which axis is meant", stacklevel=3)
    if not input.ndim:
        normalize_axis(dim, 1)
        return record(function, (input.reshape(1),), {}).reshape()  # type: ignore[no-any-return]
    axis = normalize_axis(dim, input.ndim)
    return axis_back(record(function, (axis_last(input, axis),), {}), axis)

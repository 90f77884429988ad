"""Losses."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn import backend
from gpucnn.arguments import whole
from gpucnn.functional.checks import axis_last, floats_together
from gpucnn.ops import loss
from gpucnn.reference.loss import CrossEntropyProblem
from gpucnn.tensor import Tensor, record


def cross_entropy(
    input: Tensor,
    target: Any,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Softmax cross-entropy of logits (N,C), (C,) or (N,C,d1,...) with class indices (N,), () or (N,d1,...).

    Args:
        target: integer tensor or array; entries equal to `ignore_index` take no part.
        weight: (C,) factor of each class; the mean then divides by the sum of the factors of the targets.
        reduction: 'none', 'mean' or 'sum'.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1].

    Raises:
        ValueError: shapes that do not fit, a label outside [0, C).
        TypeError: logits not floating, labels not integers.
    """
    floats_together("cross_entropy", "weight", input=input, weight=weight)
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"cross_entropy: reduction must be 'none', 'mean' or 'sum', got {reduction!r}")
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"cross_entropy: label_smoothing must lie in [0, 1], got {label_smoothing}")
    if not input.ndim:
        raise ValueError("cross_entropy: input needs an axis of classes, got a tensor without axes")
    ignored = whole(ignore_index, "cross_entropy: ignore_index")
    axis = 0 if input.ndim == 1 else 1
    classes = input.shape[axis]
    if weight is not None and weight.shape != (classes,):
        raise ValueError(f"cross_entropy: weight must have shape ({classes},), one a class, got {weight.shape}")
    labels = target if isinstance(target, Tensor) else Tensor(target)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"cross_entropy: target must hold integer class indices, got {labels.dtype}")
    if labels.device != input.device:
        raise ValueError(f"cross_entropy: input is on {input.device}, but target on {labels.device}")
    expected = input.shape[:axis] + input.shape[axis + 1 :]
    if labels.shape != expected:
        raise ValueError(
            f"cross_entropy: target must have shape {expected} for input {input.shape}, got {labels.shape}"
        )
    flat = backend.contiguous(labels.data).reshape(-1).astype(np.int64, copy=False)
    _check_labels(flat, classes, ignored, expected)
    rows = input if input.ndim == 2 else axis_last(input, axis).reshape(flat.size, classes)
    problem = CrossEntropyProblem(ignored, float(label_smoothing), reduction)
    result: Tensor = record(loss.CrossEntropy, (rows, flat, weight), {"problem": problem})
    return result.reshape(*expected) if reduction == "none" else result


def _check_labels(labels: Any, classes: int, ignore_index: int, shape: tuple[int, ...]) -> None:
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        wrong = ((labels < 0) | (labels >= classes)) & (labels != ignore_index)
        if wrong.any():
            where = tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), shape))
            raise ValueError(
                f"cross_entropy: label {int(labels[int(wrong.argmax())])} at {where} is outside [0, {classes})"
            )


def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """(input - target)**2, for each element or reduced by 'mean' or 'sum'."""
    floats_together("mse_loss", input=input, target=target)
    if input.shape != target.shape:
        raise ValueError(f"mse_loss: input {input.shape} and target {target.shape} must have one shape")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"mse_loss: reduction must be 'none', 'mean' or 'sum', got {reduction!r}")
    squares = (input - target) ** 2
    return {"none": lambda: squares, "mean": squares.mean, "sum": squares.sum}[reduction]()

"""Cross-entropies: of logits, or of log-probabilities, with class indices or class probabilities."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from gpucnn import backend
from gpucnn.arguments import whole
from gpucnn.functional.checks import axis_last, floats_together
from gpucnn.functional.regression_loss import check_reduction, constant
from gpucnn.operators.casts import widened
from gpucnn.ops import compiled, loss
from gpucnn.reference.loss import CrossEntropyProblem, NLLProblem
from gpucnn.tensor import Tensor, record


def cross_entropy(
    input: Tensor,
    target: Any,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Softmax cross-entropy of logits (N,C), (C,) or (N,C,d1,...).

    Args:
        target: integer tensor or array of class indices (N,), () or (N,d1,...), where entries equal to `ignore_index`
            take no part; or floating tensor of class probabilities, of the shape of input, which gets a gradient.
        weight: (C,) factor of each class; the mean then divides by the sum of the factors of the class indices (with
            probabilities always by the number of rows).
        reduction: 'none', 'mean' or 'sum'.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1] (Szegedy et al., "Rethinking the
            Inception architecture for computer vision", 2016).

    Returns:
        A number (), or with 'none' the losses, in the shape of the class indices.

    Raises:
        ValueError: shapes that do not fit, a label outside [0, C) (of a compiled kernel not here, but where the loss is
            read: gpucnn.flags), an `ignore_index` beside probabilities.
        TypeError: logits not floating, targets of another dtype.
    """
    input, weight = widened(input), widened(weight)
    axis = _class_axis("cross_entropy", input, weight, reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"cross_entropy: label_smoothing must lie in [0, 1], got {label_smoothing}")
    ignored = whole(ignore_index, "cross_entropy: ignore_index")
    problem = _cross_entropy_problem(ignored, float(label_smoothing), reduction)
    targets = widened(target if isinstance(target, Tensor) else Tensor(target))
    if targets.dtype.kind not in backend.FLOAT_KINDS:
        return _by_class("cross_entropy", loss.CrossEntropy, input, targets, weight, axis, problem)
    if targets.shape != input.shape:
        raise TypeError(
            "cross_entropy: target must hold integer class indices, or probabilities in the shape of input, "
            f"{input.shape}; got {targets.dtype} of shape {targets.shape}"
        )
    floats_together("cross_entropy", input=input, target=targets)
    if ignored >= 0:
        raise ValueError(f"cross_entropy: ignore_index={ignored} is for class indices, target holds probabilities")
    rows, probabilities = (_rows(tensor, axis) for tensor in (input, targets))
    result: Tensor = record(loss.SoftCrossEntropy, (rows, probabilities, weight), {"problem": problem})
    return _as_places(result, input, axis, reduction)


_cross_entropy_problem = functools.lru_cache(maxsize=256)(CrossEntropyProblem)


def nll_loss(
    input: Tensor, target: Any, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """-input[target]: the negative log-likelihood, from log-probabilities (N,C), (C,) or (N,C,d1,...).

    Args:
        target: integer tensor or array (N,), () or (N,d1,...); entries equal to `ignore_index` take no part.
        weight: (C,) factor of each class; the mean then divides by the sum of the factors of the targets.
        reduction: 'none', 'mean' or 'sum'.

    Returns:
        A number (), or with 'none' the losses, in the shape of `target`.

    Raises:
        ValueError: shapes that do not fit, a label outside [0, C) (of a compiled kernel not here, but where the loss is
            read: gpucnn.flags).
        TypeError: input not floating, labels not integers.
    """
    input, weight = widened(input), widened(weight)
    axis = _class_axis("nll_loss", input, weight, reduction)
    problem = NLLProblem(whole(ignore_index, "nll_loss: ignore_index"), reduction)
    labels = target if isinstance(target, Tensor) else Tensor(target)
    return _by_class("nll_loss", loss.NLLLoss, input, labels, weight, axis, problem)


def _class_axis(op: str, input: Tensor, weight: Tensor | None, reduction: str) -> int:
    """Checks what does not depend on the target; the axis of classes."""
    floats_together(op, "weight", input=input, weight=weight)
    check_reduction(op, reduction)
    if not input.ndim:
        raise ValueError(f"{op}: input needs an axis of classes, got a tensor without axes")
    axis = 0 if input.ndim == 1 else 1
    if weight is not None:
        if weight.shape != (input.shape[axis],):
            raise ValueError(f"{op}: weight must have shape ({input.shape[axis]},), one a class, got {weight.shape}")
        constant(op, "weight", weight)
    return axis


def _by_class(
    op: str, function: Any, input: Tensor, labels: Tensor, weight: Tensor | None, axis: int, problem: Any
) -> Tensor:
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{op}: target must hold integer class indices, got {labels.dtype}")
    if not backend.are_together(labels.data, input.data):
        raise ValueError(f"{op}: input is on {input.device}, but target on {labels.device}")
    expected = input.shape[:axis] + input.shape[axis + 1 :]
    if labels.shape != expected:
        raise ValueError(f"{op}: target must have shape {expected} for input {input.shape}, got {labels.shape}")
    flat = backend.contiguous(labels.data).reshape(-1)
    if flat.dtype != np.int64:
        flat = flat.astype(np.int64)
    if not compiled.runs(function.table, problem, input.data):
        _check_labels(op, flat, input.shape[axis], problem.ignore_index, expected)
    result: Tensor = record(function, (_rows(input, axis), flat, weight), {"problem": problem})
    return _as_places(result, input, axis, problem.reduction)


def _check_labels(op: str, labels: Any, classes: int, ignore_index: int, shape: tuple[int, ...]) -> None:
    if labels.size and labels.view(np.uint64).max() >= classes:  # in which negative ones are the largest
        wrong = ((labels < 0) | (labels >= classes)) & (labels != ignore_index)
        if wrong.any():
            first = int(wrong.argmax())
            where = tuple(int(i) for i in np.unravel_index(first, shape))
            raise ValueError(f"{op}: label {int(labels[first])} at {where} is outside [0, {classes})")


def _rows(tensor: Tensor, axis: int) -> Tensor:
    """(N,C,d1,...) or (C,) as (M,C): a view of images that lie channels-last."""
    if tensor.ndim == 2:
        return tensor
    classes = tensor.shape[axis]
    return axis_last(tensor, axis).reshape(tensor.numel() // max(1, classes), classes)


def _as_places(result: Tensor, input: Tensor, axis: int, reduction: str) -> Tensor:
    return result.reshape(*input.shape[:axis], *input.shape[axis + 1 :]) if reduction == "none" else result

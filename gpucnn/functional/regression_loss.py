"""Losses between an input and a target of one shape, element by element.

All take `reduction`: 'none' for each element's loss, 'sum', or 'mean', which is NaN for no elements. Targets are not
broadcast: shapes that differ are refused. Gradients go to input and target.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.functional.activation import real
from gpucnn.functional.checks import floats_together
from gpucnn.operators.casts import widened
from gpucnn.ops import compiled
from gpucnn.ops import regression_loss as ops
from gpucnn.reference.regression_loss import HuberProblem, LossProblem
from gpucnn.tensor import Tensor, record


def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """(input - target)**2 of tensors of one shape.

    Args:
        reduction: 'none' for each element's loss, or one number (): 'sum', or 'mean', which is NaN for no elements.
        weight: factor of each element's loss, of their shape. The mean is then the sum over the sum of the weights.

    Raises:
        ValueError: shapes that differ, an unknown reduction.
        TypeError: dtypes that differ or are not floating.
    """
    loss = _loss("mse_loss", ops.MSE, input, target, reduction, weight=weight)
    return _by_sum_of_weights(loss, weight, reduction)


def l1_loss(input: Tensor, target: Tensor, reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """|input - target|, whose gradient is 0 where they are equal; shapes, arguments and errors as of `mse_loss`."""
    loss = _loss("l1_loss", ops.L1, input, target, reduction, weight=weight)
    return _by_sum_of_weights(loss, weight, reduction)


def smooth_l1_loss(input: Tensor, target: Tensor, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """d**2 / (2 * beta) where d = |input - target| is below beta, else d - beta / 2 (Girshick, "Fast R-CNN", 2015).

    Shapes and `reduction` as of `mse_loss`.

    Raises:
        ValueError: a negative beta (0 makes it `l1_loss`); and as `mse_loss`.
        TypeError: as `mse_loss`; beta no number.
    """
    width = real(beta, "smooth_l1_loss: beta")
    if not width >= 0:
        raise ValueError(f"smooth_l1_loss: beta must be at least 0, got {beta}")
    if width == 0:
        return _loss("smooth_l1_loss", ops.L1, input, target, reduction)
    return _loss("smooth_l1_loss", ops.Huber, input, target, reduction, delta=width, scale=1 / width)


def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """d**2 / 2 where d = |input - target| is below delta, else delta * (d - delta / 2) (Huber, "Robust estimation of a
    location parameter", 1964). Shapes and `reduction` as of `mse_loss`.

    Args:
        weight: factor of each element's loss, of their shape. Here, as in PyTorch, the mean stays one over the number
            of elements.

    Raises:
        ValueError: delta is not positive; and as `mse_loss`.
        TypeError: as `mse_loss`; delta no number.
    """
    width = real(delta, "huber_loss: delta")
    if not width > 0:
        raise ValueError(f"huber_loss: delta must be greater than 0, got {delta}")
    return _loss("huber_loss", ops.Huber, input, target, reduction, weight=weight, delta=width)


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """-(target * log(input) + (1 - target) * log(1 - input)), each logarithm being at least -100.

    Args:
        input: probabilities, in [0, 1], any shape.
        target: in [0, 1], of that shape.
        weight: factor of each element's loss, of a shape that broadcasts to theirs; a constant.
        reduction: as of `mse_loss`; the mean is over the number of elements.

    Raises:
        ValueError: a number outside [0, 1] (of a compiled kernel not here, but where the loss is read: gpucnn.flags);
            shapes that do not fit; an unknown reduction; a weight that requires a gradient.
        TypeError: dtypes that differ or are not floating.
    """
    op = "binary_cross_entropy"
    input, target, weight = widened(input), widened(target), widened(weight)
    _together(op, input, target, reduction)
    problem = LossProblem(weight is None and reduction != "none", _divisor(input, reduction))
    if not compiled.runs(ops.bce, problem, input.data):
        _check_probabilities(op, input=input, target=target)
    return _weighted(op, ops.BCE, (input, target), weight, reduction)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Binary cross-entropy of sigmoid(input), without overflow.

    Args:
        input: logits, any shape.
        target: of that shape, usually in [0, 1].
        weight: factor of each element's loss, of a shape that broadcasts to theirs; a constant.
        reduction: as of `mse_loss`; the mean is over the number of elements.
        pos_weight: factor of the positive part, target * log(sigmoid(input)), of a shape that broadcasts.

    Raises:
        ValueError: shapes that do not fit; an unknown reduction; weights that require gradients.
        TypeError: dtypes that differ or are not floating.
    """
    op = "binary_cross_entropy_with_logits"
    input, target, weight, pos_weight = widened(input), widened(target), widened(weight), widened(pos_weight)
    _together(op, input, target, reduction)
    if pos_weight is None:
        return _weighted(op, ops.BCEWithLogits, (input, target), weight, reduction)
    _factor_fits(op, "pos_weight", pos_weight, input)
    return _weighted(op, ops.BCEWithLogits, (input, target, pos_weight), weight, reduction)


def kl_div(input: Tensor, target: Tensor, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target * (log(target) - input): the Kullback-Leibler divergence of a distribution from `target`, pointwise
    (Kullback and Leibler, "On information and sufficiency", 1951).

    Args:
        input: logarithms of probabilities, any shape.
        target: probabilities of that shape, or their logarithms with `log_target`.
        reduction: as of `mse_loss`; also 'batchmean', the sum over the size of the first axis, which is the mean of
            divergences.

    Raises:
        ValueError: shapes that differ, an unknown reduction.
        TypeError: dtypes that differ or are not floating.
    """
    return _loss("kl_div", ops.KLDivLog if log_target else ops.KLDiv, input, target, reduction, ("batchmean",))


def _check_probabilities(op: str, **operands: Tensor) -> None:
    for name, tensor in operands.items():
        values = tensor.data
        if values.size and not (values.min() >= 0 and values.max() <= 1):
            wrong = ~((values >= 0) & (values <= 1))
            place = tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), values.shape))
            raise ValueError(f"{op}: {name} must lie in [0, 1], got {values[place]} at {place}")


def check_reduction(op: str, reduction: Any, more: tuple[str, ...] = ()) -> None:
    known = ("none", *more, "mean", "sum")
    if reduction not in known:
        listed = ", ".join(map(repr, known[:-1]))
        raise ValueError(f"{op}: reduction must be {listed} or 'sum', got {reduction!r}")


def constant(op: str, name: str, tensor: Tensor) -> None:
    """Refuses a tensor that wants the gradient which it would not get."""
    if tensor.requires_grad:
        raise ValueError(f"{op}: {name} is a constant and gets no gradient, but requires one: pass {name}.detach()")


def _together(op: str, input: Tensor, target: Tensor, reduction: Any, more: tuple[str, ...] = ()) -> None:
    floats_together(op, input=input, target=target)
    if input.shape != target.shape:
        raise ValueError(f"{op}: input {input.shape} and target {target.shape} must have one shape")
    check_reduction(op, reduction, more)


def _divisor(input: Tensor, reduction: str) -> float:
    if reduction == "batchmean" and input.ndim:
        return float(input.shape[0])
    return float(input.numel()) if reduction == "mean" else 1.0


def _loss(
    op: str,
    function: Any,
    input: Tensor,
    target: Tensor,
    reduction: str,
    more: tuple[str, ...] = (),
    weight: Tensor | None = None,
    **huber: float,
) -> Tensor:
    input, target, weight = widened(input), widened(target), widened(weight)
    _together(op, input, target, reduction, more)
    kind: Any = HuberProblem if huber else LossProblem
    if weight is None:
        problem = kind(reduction != "none", _divisor(input, reduction), **huber)
        return record(function, (input, target), {"problem": problem})  # type: ignore[no-any-return]
    floats_together(op, input=input, weight=weight)
    if weight.shape != input.shape:
        raise ValueError(f"{op}: weight {weight.shape} must have the shape of input, {input.shape}")
    return _reduced(record(function, (input, target), {"problem": kind(False, **huber)}) * weight, reduction)


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    return losses if reduction == "none" else losses.mean() if reduction == "mean" else losses.sum()


def _by_sum_of_weights(loss: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    """A mean over elements as one over their weights: of two means, because a sum may exceed float16."""
    return loss if weight is None or reduction != "mean" else loss / weight.mean()


def _factor_fits(op: str, name: str, factor: Tensor, input: Tensor) -> None:
    floats_together(op, **{"input": input, name: factor})
    constant(op, name, factor)
    sizes = zip(reversed(factor.shape), reversed(input.shape), strict=False)
    if factor.ndim > input.ndim or any(size not in (1, whole) for size, whole in sizes):
        raise ValueError(f"{op}: {name} {factor.shape} does not broadcast to the shape of input, {input.shape}")


def _weighted(op: str, function: Any, operands: tuple[Tensor, ...], weight: Tensor | None, reduction: str) -> Tensor:
    input = operands[0]
    if weight is None:
        problem = LossProblem(reduction != "none", _divisor(input, reduction))
        return record(function, operands, {"problem": problem})  # type: ignore[no-any-return]
    _factor_fits(op, "weight", weight, input)
    return _reduced(record(function, operands, {"problem": LossProblem(reduce=False)}) * weight, reduction)

"""Cross-entropies of rows (M,C) with class indices or class probabilities."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from gpucnn.autograd import Function
from gpucnn.backend import Array, dtype_name, empty, zeros
from gpucnn.flags import flag_of
from gpucnn.ops import compiled
from gpucnn.ops.memory import contiguous
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import loss as reference
from gpucnn.reference.loss import CrossEntropyProblem, NLLProblem

_FLOAT32, _INT32 = np.dtype(np.float32), np.dtype(np.int32)


def _outputs(module: Any, p: CrossEntropyProblem | NLLProblem, like: Array) -> tuple[Array, Array, Array]:
    """Memory for the loss () or (M,), for what a mean divides by, and to sum in."""
    loss = empty((len(like),) if p.reduction == "none" else (), like.dtype, like)
    return loss, zeros((), _FLOAT32, like), zeros((module.loss_words,), _INT32, like)


def _optional(array: Array | None) -> Array | None:
    return None if array is None else contiguous(array)


def _cross_entropy(
    module: Any, p: CrossEntropyProblem, stream: int, logits: Array, targets: Array, weight: Array | None
) -> tuple[Array, Array, Array]:
    loss, total, memory = _outputs(module, p, logits)
    soft = targets.dtype == logits.dtype
    statistics = empty((3 if soft else 2, len(logits)), _FLOAT32, logits)
    indices, probabilities = (None, targets) if soft else (targets, None)
    module.cross_entropy_fprop(
        *(dtype_name(logits.dtype), p, logits, indices, probabilities, _optional(weight), loss, statistics, total),
        *(memory, flag_of(logits), p.watched, stream),
    )
    return loss, statistics, total


def _gradient(by_probabilities: bool) -> Callable[..., Array]:
    def run(
        module: Any,
        p: CrossEntropyProblem,
        stream: int,
        dy: Array,
        logits: Array,
        statistics: Array,
        total: Array,
        targets: Array,
        weight: Array | None,
    ) -> Array:
        gradient = empty(logits.shape, logits.dtype, logits)
        soft = targets.dtype == logits.dtype
        indices, probabilities = (None, targets) if soft else (targets, None)
        module.cross_entropy_dgrad(
            *(dtype_name(logits.dtype), p, contiguous(dy), logits, statistics, total, indices, probabilities),
            *(_optional(weight), gradient, by_probabilities, stream),
        )
        return gradient

    return run


def _nll_loss(
    module: Any, p: NLLProblem, stream: int, log_p: Array, targets: Array, weight: Array | None
) -> tuple[Array, Array]:
    loss, total, memory = _outputs(module, p, log_p)
    module.nll_loss_fprop(
        *(dtype_name(log_p.dtype), p, log_p, targets, _optional(weight), loss, total, memory),
        *(flag_of(log_p), p.watched, stream),
    )
    return loss, total


def _nll_loss_grad(
    module: Any,
    p: NLLProblem,
    stream: int,
    dy: Array,
    total: Array,
    targets: Array,
    weight: Array | None,
    classes: int,
) -> Array:
    gradient = empty((len(targets), classes), dy.dtype, dy)
    module.nll_loss_dgrad(dtype_name(dy.dtype), p, contiguous(dy), total, targets, _optional(weight), gradient, stream)
    return gradient


def _table(op: str, direction: str, name: str, run: Callable[..., Any], array_code: Callable[..., Any]) -> KernelTable:
    table = KernelTable(op, direction)
    compiled.add(table, name, run, dtypes=compiled.FLOATS)
    table.add("array", "reference", array_code, widens=False)  # it computes 16-bit numbers in float32 by itself
    return table


cross_entropy = _table("cross_entropy", "forward", "rows", _cross_entropy, reference.cross_entropy)
cross_entropy_grad = _table("cross_entropy", "backward", "flat", _gradient(False), reference.cross_entropy_grad)
soft_cross_entropy = _table("soft_cross_entropy", "forward", "rows", _cross_entropy, reference.soft_cross_entropy)
soft_cross_entropy_grad = _table(
    "soft_cross_entropy", "backward", "flat", _gradient(False), reference.soft_cross_entropy_grad
)
soft_cross_entropy_target_grad = _table(
    "soft_cross_entropy", "target_grad", "flat", _gradient(True), reference.soft_cross_entropy_target_grad
)
nll_loss = _table("nll_loss", "forward", "rows", _nll_loss, reference.nll_loss)
nll_loss_grad = _table("nll_loss", "backward", "flat", _nll_loss_grad, reference.nll_loss_grad)


class CrossEntropy(Function):
    """logits (M,C), targets (M,) class indices, weight (C,) or None -> loss () or (M,)."""

    table = cross_entropy

    @staticmethod
    def forward(
        ctx: Any, logits: Array, targets: Array, weight: Array | None, *, problem: CrossEntropyProblem
    ) -> Array:
        logits = contiguous(logits)
        ctx.problem = _watched(ctx, problem)
        loss, statistics, total = cross_entropy(ctx.problem, logits, targets, weight, like=logits)
        ctx.save_for_backward(logits, statistics, total, targets, weight)
        return loss

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array, None, None]:
        return cross_entropy_grad(ctx.problem, dy, *ctx.saved, like=dy), None, None


class SoftCrossEntropy(Function):
    """logits (M,C), targets (M,C) class probabilities, weight (C,) or None -> loss () or (M,)."""

    @staticmethod
    def forward(
        ctx: Any, logits: Array, targets: Array, weight: Array | None, *, problem: CrossEntropyProblem
    ) -> Array:
        logits, targets = contiguous(logits), contiguous(targets)
        ctx.problem = _watched(ctx, problem)
        loss, statistics, total = soft_cross_entropy(ctx.problem, logits, targets, weight, like=logits)
        ctx.save_for_backward(logits, statistics, total, targets, weight)
        return loss

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array | None, Array | None, None]:
        by_logits, by_targets, _ = ctx.needs_input_grad
        return (
            soft_cross_entropy_grad(ctx.problem, dy, *ctx.saved, like=dy) if by_logits else None,
            soft_cross_entropy_target_grad(ctx.problem, dy, *ctx.saved, like=dy) if by_targets else None,
            None,
        )


class NLLLoss(Function):
    """log-probabilities (M,C), targets (M,) class indices, weight (C,) or None -> loss () or (M,)."""

    table = nll_loss

    @staticmethod
    def forward(ctx: Any, log_p: Array, targets: Array, weight: Array | None, *, problem: NLLProblem) -> Array:
        log_p = contiguous(log_p)
        ctx.problem, ctx.classes = _watched(ctx, problem), log_p.shape[1]
        loss, total = nll_loss(ctx.problem, log_p, targets, weight, like=log_p)
        ctx.save_for_backward(total, targets, weight)
        return loss

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array, None, None]:
        return nll_loss_grad(ctx.problem, dy, *ctx.saved, ctx.classes, like=dy), None, None


def _watched(ctx: Any, problem: Any) -> Any:
    """A loss that something will be learnt from has to be finite."""
    return _watched_form(problem) if True in ctx.needs_input_grad else problem


@functools.lru_cache(maxsize=256)
def _watched_form(problem: Any) -> Any:
    return replace(problem, watched=True)

"""Cross-entropies of rows (M,C) with class indices or class probabilities."""

from __future__ import annotations

from typing import Any

from gpucnn.autograd import Function
from gpucnn.backend import Array, contiguous
from gpucnn.ops.activation import tables
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import loss as reference
from gpucnn.reference.loss import CrossEntropyProblem, NLLProblem

cross_entropy, cross_entropy_grad = tables("cross_entropy", reference.cross_entropy, reference.cross_entropy_grad)
nll_loss, nll_loss_grad = tables("nll_loss", reference.nll_loss, reference.nll_loss_grad)
soft_cross_entropy, soft_cross_entropy_grad = tables(
    "soft_cross_entropy", reference.soft_cross_entropy, reference.soft_cross_entropy_grad
)
soft_cross_entropy_target_grad = KernelTable("soft_cross_entropy", "target_grad")
soft_cross_entropy_target_grad.add("array", "reference", reference.soft_cross_entropy_target_grad)


class CrossEntropy(Function):
    """logits (M,C), targets (M,) class indices, weight (C,) or None -> loss () or (M,)."""

    @staticmethod
    def forward(
        ctx: Any, logits: Array, targets: Array, weight: Array | None, *, problem: CrossEntropyProblem
    ) -> Array:
        logits = contiguous(logits)
        loss, log_p, scale = cross_entropy(problem, logits, targets, weight, like=logits)
        ctx.problem = problem
        ctx.save_for_backward(log_p, scale, targets, weight)
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
        loss, log_p = soft_cross_entropy(problem, logits, targets, weight, like=logits)
        ctx.problem = problem
        ctx.save_for_backward(log_p, targets, weight)
        return loss

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array | None, Array | None, None]:
        log_p, targets, weight = ctx.saved
        by_logits, by_targets, _ = ctx.needs_input_grad
        return (
            soft_cross_entropy_grad(ctx.problem, dy, log_p, targets, weight, like=dy) if by_logits else None,
            soft_cross_entropy_target_grad(ctx.problem, dy, log_p, weight, like=dy) if by_targets else None,
            None,
        )


class NLLLoss(Function):
    """log-probabilities (M,C), targets (M,) class indices, weight (C,) or None -> loss () or (M,)."""

    @staticmethod
    def forward(ctx: Any, log_p: Array, targets: Array, weight: Array | None, *, problem: NLLProblem) -> Array:
        log_p = contiguous(log_p)
        loss, scale = nll_loss(problem, log_p, targets, weight, like=log_p)
        ctx.problem, ctx.classes = problem, log_p.shape[1]
        ctx.save_for_backward(scale, targets)
        return loss

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array, None, None]:
        return nll_loss_grad(ctx.problem, dy, *ctx.saved, ctx.classes, like=dy), None, None

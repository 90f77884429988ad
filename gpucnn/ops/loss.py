"""Softmax losses."""

from __future__ import annotations

from typing import Any

from gpucnn.autograd import Function
from gpucnn.backend import Array, contiguous
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import loss as reference
from gpucnn.reference.loss import CrossEntropyProblem

cross_entropy = KernelTable("cross_entropy", "forward")
cross_entropy.add("array", "reference", reference.cross_entropy)

cross_entropy_grad = KernelTable("cross_entropy", "backward")
cross_entropy_grad.add("array", "reference", reference.cross_entropy_grad)


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

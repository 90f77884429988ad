"""Losses between an input and a target of one shape, element by element."""

from __future__ import annotations

from typing import Any

from gpucnn.autograd import Function
from gpucnn.backend import NHWC, Array, contiguous, memory_order
from gpucnn.ops.activation import tables
from gpucnn.ops.elementwise import in_memory_order, negative
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import regression_loss as reference
from gpucnn.reference.pointwise import Kernel
from gpucnn.reference.regression_loss import LossProblem


def _by_target(op: str, kernel: Kernel) -> KernelTable:
    table = KernelTable(op, "target_grad")
    table.add("array", "reference", kernel)
    return table


mse, mse_grad = tables("mse_loss", reference.mse, reference.mse_grad)
l1, l1_grad = tables("l1_loss", reference.l1, reference.l1_grad)
huber, huber_grad = tables("huber_loss", reference.huber, reference.huber_grad)
bce, bce_grad = tables("bce", reference.bce, reference.bce_grad)
bce_target_grad = _by_target("bce", reference.bce_target_grad)
bce_with_logits, bce_with_logits_grad = tables(
    "bce_with_logits", reference.bce_with_logits, reference.bce_with_logits_grad
)
bce_with_logits_target_grad = _by_target("bce_with_logits", reference.bce_with_logits_target_grad)
kl_div, kl_div_grad = tables("kl_div", reference.kl_div, reference.kl_div_grad)
kl_div_target_grad = _by_target("kl_div", reference.kl_div_target_grad)
kl_div_log, kl_div_log_grad = tables("kl_div_log", reference.kl_div_log, reference.kl_div_log_grad)
kl_div_log_target_grad = _by_target("kl_div_log", reference.kl_div_log_target_grad)


def _loss(name: str, run: KernelTable, gradient: KernelTable, target_gradient: KernelTable | None) -> type[Function]:
    """A Function of input and target, and of constants that broadcast to them; the loss is () or has their shape.

    Without a table of its own the target's gradient is the negative of the input's.
    """

    class Loss(Function):
        @staticmethod
        def forward(ctx: Any, x: Array, t: Array, *constants: Array, problem: LossProblem) -> Array:
            ctx.problem = problem
            ctx.save_for_backward(x, t, *constants)
            if not problem.reduce:
                return in_memory_order(run, problem, x, t, *constants)
            arrays = (x, t, *constants)
            if any([memory_order(array) for array in arrays]):
                arrays = tuple([contiguous(a.reshape((1,) * (4 - a.ndim) + a.shape).transpose(NHWC)) for a in arrays])
            return run(problem, *arrays, like=x)

        @staticmethod
        def backward(ctx: Any, dy: Array) -> tuple[Array | None, ...]:
            x, t, *constants = ctx.saved
            by_input, by_target, *_ = ctx.needs_input_grad
            dx = dt = None
            if by_input or target_gradient is None:
                dx = in_memory_order(gradient, ctx.problem, x, t, dy, *constants)
            if by_target:
                dt = (
                    in_memory_order(negative, None, dx)
                    if target_gradient is None
                    else in_memory_order(target_gradient, ctx.problem, x, t, dy, *constants)
                )
            return dx if by_input else None, dt, *[None for _ in constants]

    Loss.__name__ = Loss.__qualname__ = name
    return Loss


MSE = _loss("MSE", mse, mse_grad, None)
L1 = _loss("L1", l1, l1_grad, None)
Huber = _loss("Huber", huber, huber_grad, None)
BCE = _loss("BCE", bce, bce_grad, bce_target_grad)
BCEWithLogits = _loss("BCEWithLogits", bce_with_logits, bce_with_logits_grad, bce_with_logits_target_grad)
KLDiv = _loss("KLDiv", kl_div, kl_div_grad, kl_div_target_grad)
KLDivLog = _loss("KLDivLog", kl_div_log, kl_div_log_grad, kl_div_log_target_grad)

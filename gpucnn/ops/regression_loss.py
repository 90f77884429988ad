"""Losses between an input and a target of one shape, element by element."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from gpucnn.autograd import Function
from gpucnn.backend import NHWC, Array, dtype_name, empty, memory_order, namespace, zeros
from gpucnn.flags import flag_of
from gpucnn.ops import compiled
from gpucnn.ops.elementwise import in_memory_order, negative
from gpucnn.ops.memory import contiguous
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import regression_loss as reference
from gpucnn.reference.regression_loss import LossProblem


def _repeated(factors: tuple[Array, ...], x: Array) -> Array | None:
    """The factor that bce_with_logits may have, as the binding takes it: one that memory repeats, if need be a copy."""
    if not factors:
        return None
    factor = factors[0]
    shape = list(factor.shape)
    while shape and shape[0] == 1:
        del shape[0]
    if factor.size == 1 or tuple(shape) == x.shape[x.ndim - len(shape) :]:
        return contiguous(factor)
    return contiguous(namespace(x).broadcast_to(factor, x.shape))


def _elements(name: str) -> Callable[..., Array]:
    def run(module: Any, p: LossProblem, stream: int, x: Array, t: Array, *factors: Array) -> Array:
        x, t = contiguous(x), contiguous(t)
        loss = empty(() if p.reduce else x.shape, x.dtype, x)
        memory = zeros((module.loss_words,), np.dtype(np.int32), x) if p.reduce else None
        operands = (name, dtype_name(x.dtype), p, x, t, _repeated(factors, x))
        module.regression_loss_fprop(*operands, loss, memory, flag_of(x), p.watched, stream)
        return loss

    return run


def _slopes(name: str, by_target: bool) -> Callable[..., Array]:
    def run(module: Any, p: LossProblem, stream: int, x: Array, t: Array, dy: Array, *factors: Array) -> Array:
        x, t = contiguous(x), contiguous(t)
        gradient = empty(x.shape, x.dtype, x)
        operands = (name, dtype_name(x.dtype), p, x, t, _repeated(factors, x))
        module.regression_loss_dgrad(*operands, contiguous(dy), by_target, gradient, stream)
        return gradient

    return run


def _table(op: str, direction: str, name: str, call: Callable[..., Array], array_code: str) -> KernelTable:
    table = KernelTable(op, direction)
    compiled.add(table, name, call, dtypes=compiled.FLOATS)
    table.add("array", "reference", getattr(reference, array_code))
    return table


def _tables(op: str, name: str) -> tuple[KernelTable, KernelTable]:
    return (
        _table(op, "forward", "elements", _elements(name), name),
        _table(op, "backward", "elements", _slopes(name, by_target=False), f"{name}_grad"),
    )


def _by_target(op: str, name: str) -> KernelTable:
    return _table(op, "target_grad", "elements", _slopes(name, by_target=True), f"{name}_target_grad")


mse, mse_grad = _tables("mse_loss", "mse")
l1, l1_grad = _tables("l1_loss", "l1")
huber, huber_grad = _tables("huber_loss", "huber")
bce, bce_grad = _tables("bce", "bce")
bce_target_grad = _by_target("bce", "bce")
bce_with_logits, bce_with_logits_grad = _tables("bce_with_logits", "bce_with_logits")
bce_with_logits_target_grad = _by_target("bce_with_logits", "bce_with_logits")
kl_div, kl_div_grad = _tables("kl_div", "kl_div")
kl_div_target_grad = _by_target("kl_div", "kl_div")
kl_div_log, kl_div_log_grad = _tables("kl_div_log", "kl_div_log")
kl_div_log_target_grad = _by_target("kl_div_log", "kl_div_log")


def _loss(name: str, run: KernelTable, gradient: KernelTable, target_gradient: KernelTable | None) -> type[Function]:
    """A Function of input and target, and of constants that broadcast to them; the loss is () or has their shape.

    Without a table of its own the target's gradient is the negative of the input's.
    """

    class Loss(Function):
        table = run

        @staticmethod
        def forward(ctx: Any, x: Array, t: Array, *constants: Array, problem: LossProblem) -> Array:
            if problem.reduce and True in ctx.needs_input_grad:
                problem = replace(problem, watched=True)  # a loss that something will be learnt from has to be finite
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

"""Smooth activations, sigmoids and self-gated units; gated linear units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpucnn.autograd import Function
from gpucnn.backend import Array, contiguous
from gpucnn.ops.elementwise import unary
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import activation as reference


def tables(op: str, run: Callable[..., Array], gradient: Callable[..., Array]) -> tuple[KernelTable, KernelTable]:
    """The tables of an op's two passes, with a reference kernel in each."""
    forward, backward = KernelTable(op, "forward"), KernelTable(op, "backward")
    forward.add("array", "reference", run)
    backward.add("array", "reference", gradient)
    return forward, backward


def from_input(name: str, run: KernelTable, gradient: KernelTable) -> type[Function]:
    """A Function of one input whose gradient needs that input."""
    return unary(name, run, gradient, lambda problem: False)


sigmoid, sigmoid_grad = tables("sigmoid", reference.sigmoid, reference.sigmoid_grad)
tanh, tanh_grad = tables("tanh", reference.tanh, reference.tanh_grad)
tanhshrink, tanhshrink_grad = tables("tanhshrink", reference.tanhshrink, reference.tanhshrink_grad)
softsign, softsign_grad = tables("softsign", reference.softsign, reference.softsign_grad)
logsigmoid, logsigmoid_grad = tables("logsigmoid", reference.logsigmoid, reference.logsigmoid_grad)
hardsigmoid, hardsigmoid_grad = tables("hardsigmoid", reference.hardsigmoid, reference.hardsigmoid_grad)
softplus, softplus_grad = tables("softplus", reference.softplus, reference.softplus_grad)
silu, silu_grad = tables("silu", reference.silu, reference.silu_grad)
hardswish, hardswish_grad = tables("hardswish", reference.hardswish, reference.hardswish_grad)
mish, mish_grad = tables("mish", reference.mish, reference.mish_grad)
gelu, gelu_grad = tables("gelu", reference.gelu, reference.gelu_grad)
gelu_tanh, gelu_tanh_grad = tables("gelu_tanh", reference.gelu_tanh, reference.gelu_tanh_grad)
glu, glu_grad = tables("glu", reference.glu, reference.glu_grad)

Sigmoid = unary("Sigmoid", sigmoid, sigmoid_grad)
Tanh = unary("Tanh", tanh, tanh_grad)
Tanhshrink = from_input("Tanhshrink", tanhshrink, tanhshrink_grad)
Softsign = unary("Softsign", softsign, softsign_grad)
LogSigmoid = unary("LogSigmoid", logsigmoid, logsigmoid_grad)
Hardsigmoid = from_input("Hardsigmoid", hardsigmoid, hardsigmoid_grad)
Softplus = from_input("Softplus", softplus, softplus_grad)
SiLU = from_input("SiLU", silu, silu_grad)
Hardswish = from_input("Hardswish", hardswish, hardswish_grad)
Mish = from_input("Mish", mish, mish_grad)
GELU = from_input("GELU", gelu, gelu_grad)
GELUTanh = from_input("GELUTanh", gelu_tanh, gelu_tanh_grad)


class GLU(Function):
    """The first half of the last axis times the sigmoid of the second."""

    @staticmethod
    def forward(ctx: Any, x: Array) -> Array:
        x = contiguous(x)
        ctx.save_for_backward(x)
        return glu(None, x, like=x)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return glu_grad(None, contiguous(dy), ctx.saved[0], like=dy)

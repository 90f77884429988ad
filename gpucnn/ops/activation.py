"""Smooth activations, sigmoids and self-gated units; gated linear units."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from gpucnn.autograd import Function
from gpucnn.backend import Array, dtype_name, empty
from gpucnn.ops import compiled
from gpucnn.ops.elementwise import Parameters, mapped, no_parameters, unary
from gpucnn.ops.memory import contiguous
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import activation as reference


def tables(
    op: str,
    run: Callable[..., Array],
    gradient: Callable[..., Array],
    *,
    function: str | None = None,
    parameters: Parameters = no_parameters,
    gradient_function: str | Callable[[Any], str] | None = None,
    gradient_parameters: Parameters | None = None,
    walks: bool = False,
) -> tuple[KernelTable, KernelTable]:
    """The tables of an op's two passes, with a reference kernel in each.

    With the name of a `function` in csrc/activation each has a compiled kernel too, that of the gradient is called
    `<function>_grad` unless another name is given; see `ops.elementwise.mapped`.
    """
    forward, backward = KernelTable(op, "forward"), KernelTable(op, "backward")
    if function is not None:
        names: tuple[Any, Any] = (function, gradient_function or f"{function}_grad")
        needs = parameters, gradient_parameters or parameters
        for table, name, need in zip((forward, backward), names, needs, strict=True):
            compiled.add(table, "map", mapped(name, need, walks, "activation"), dtypes=compiled.FLOATS)
    forward.add("array", "reference", run)
    backward.add("array", "reference", gradient)
    return forward, backward


def _fields(problem: Any, like: Array) -> tuple[float, ...]:
    """Of a problem that is a dataclass of numbers."""
    return dataclasses.astuple(problem)


def _tables(name: str, parameters: Parameters = no_parameters) -> tuple[KernelTable, KernelTable]:
    run, gradient = getattr(reference, name), getattr(reference, f"{name}_grad")
    return tables(name, run, gradient, function=name, parameters=parameters)


def from_input(name: str, run: KernelTable, gradient: KernelTable) -> type[Function]:
    """A Function of one input whose gradient needs that input."""
    return unary(name, run, gradient, lambda problem: False)


def _halves(x: Array) -> tuple[Array, Array]:
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]


def _glu(module: Any, problem: None, stream: int, x: Array) -> Array:
    y = empty((*x.shape[:-1], x.shape[-1] // 2), x.dtype, x)
    module.activation("glu", dtype_name(x.dtype), _halves(x), y, (), stream)
    return y


def _glu_grad(module: Any, problem: None, stream: int, dy: Array, x: Array) -> Array:
    dx = empty(x.shape, x.dtype, x)
    (a, b), (da, db) = _halves(x), _halves(dx)
    module.activation("glu", dtype_name(x.dtype), (dy, b), da, (), stream)
    module.activation("gate_grad", dtype_name(x.dtype), (dy, a, b), db, (), stream)
    return dx


sigmoid, sigmoid_grad = _tables("sigmoid")
tanh, tanh_grad = _tables("tanh")
tanhshrink, tanhshrink_grad = _tables("tanhshrink")
softsign, softsign_grad = _tables("softsign")
logsigmoid, logsigmoid_grad = _tables("logsigmoid")
hardsigmoid, hardsigmoid_grad = _tables("hardsigmoid")
softplus, softplus_grad = _tables("softplus", _fields)
silu, silu_grad = _tables("silu")
hardswish, hardswish_grad = _tables("hardswish")
mish, mish_grad = _tables("mish")
gelu, gelu_grad = _tables("gelu")
gelu_tanh, gelu_tanh_grad = _tables("gelu_tanh")

glu, glu_grad = KernelTable("glu", "forward"), KernelTable("glu", "backward")
compiled.add(glu, "map", _glu, dtypes=compiled.FLOATS)
compiled.add(glu_grad, "map", _glu_grad, dtypes=compiled.FLOATS)
glu.add("array", "reference", reference.glu)
glu_grad.add("array", "reference", reference.glu_grad)

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

"""Rectifiers: piecewise linear activations and exponential linear units."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

from gpucnn.autograd import Function
from gpucnn.backend import Array, dtype_name, empty
from gpucnn.ops import compiled
from gpucnn.ops.activation import from_input, tables
from gpucnn.ops.dropout import places
from gpucnn.ops.elementwise import (
    Parameters,
    in_memory_order,
    mapped,
    multiply,
    no_parameters,
    unary,
    unbroadcast,
)
from gpucnn.ops.memory import contiguous, inverse, memory_axes
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import rectifier as reference
from gpucnn.reference.rectifier import EluProblem, RReluProblem


def _number(problem: float, like: Array) -> tuple[float, ...]:
    return (problem,)


def _fields(problem: Any, like: Array) -> tuple[float, ...]:
    return dataclasses.astuple(problem)


def _only_threshold(problem: Any, like: Array) -> tuple[float, ...]:
    return (problem.threshold,)


def _elu_grad(problem: EluProblem) -> str:
    return f"elu_grad_of_{'output' if problem.follows_from_output else 'input'}"


def _tables(name: str, parameters: Parameters = no_parameters, **options: Any) -> tuple[KernelTable, KernelTable]:
    run, gradient = getattr(reference, name), getattr(reference, f"{name}_grad")
    return tables(name, run, gradient, function=name, parameters=parameters, **options)


relu, relu_grad = _tables("relu")
hardtanh, hardtanh_grad = _tables("hardtanh", _fields)
leaky_relu, leaky_relu_grad = _tables("leaky_relu", _number)
threshold, threshold_grad = _tables("threshold", _fields, gradient_parameters=_only_threshold)
hardshrink, hardshrink_grad = _tables("hardshrink", _number)
softshrink, softshrink_grad = tables(
    "softshrink",
    reference.softshrink,
    reference.relu_grad,
    function="softshrink",
    parameters=_number,
    gradient_function="relu_grad",
    gradient_parameters=no_parameters,
)
elu, elu_grad = _tables("elu", _fields, gradient_function=_elu_grad)
prelu, prelu_grad = _tables("prelu", walks=True)

prelu_weight_grad = KernelTable("prelu", "weight_grad")
compiled.add(
    *(prelu_weight_grad, "map", mapped("prelu_weight_grad", walks=True, binding="activation")), dtypes=compiled.FLOATS
)
prelu_weight_grad.add("array", "reference", reference.prelu_weight_grad)


def _philox_slopes(module: Any, p: RReluProblem, stream: int, x: Array) -> Array:
    x = contiguous(x)
    slopes = empty(x.shape, x.dtype, x)
    where = places(p.shape, x.shape, p.order)
    module.rrelu_slopes(dtype_name(x.dtype), x, slopes, *where, p.lower, p.upper, p.seed, p.call, stream)
    return slopes


rrelu_slopes = KernelTable("rrelu", "slopes")
compiled.add(rrelu_slopes, "philox", _philox_slopes, dtypes=compiled.FLOATS)
rrelu_slopes.add("philox", "reference", reference.rrelu_slopes)

ReLU = unary("ReLU", relu, relu_grad)
Hardtanh = unary("Hardtanh", hardtanh, hardtanh_grad)
LeakyReLU = unary("LeakyReLU", leaky_relu, leaky_relu_grad, lambda slope: bool(slope >= 0))
Threshold = from_input("Threshold", threshold, threshold_grad)
Hardshrink = from_input("Hardshrink", hardshrink, hardshrink_grad)
Softshrink = unary("Softshrink", softshrink, softshrink_grad)
ELU = unary("ELU", elu, elu_grad, lambda problem: bool(problem.follows_from_output))


class PReLU(Function):
    """x, and its product with `weight`, which broadcasts to it, where x is not positive."""

    @staticmethod
    def forward(ctx: Any, x: Array, weight: Array) -> Array:
        ctx.save_for_backward(x, weight)
        return in_memory_order(prelu, None, x, weight)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array | None, Array | None]:
        x, weight = ctx.saved
        dx = in_memory_order(prelu_grad, None, dy, x, weight) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return dx, None
        return dx, unbroadcast(in_memory_order(prelu_weight_grad, None, dy, x), weight.shape)


class RReLU(Function):
    """x, times a random slope where x is not positive."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, problem: RReluProblem) -> Array:
        order = memory_axes(x)  # slopes are drawn in logical order and laid out like x
        slopes = rrelu_slopes(replace(problem, order=order), x.transpose(order), like=x).transpose(inverse(order))
        ctx.save_for_backward(slopes)
        return in_memory_order(multiply, None, x, slopes)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return in_memory_order(multiply, None, dy, ctx.saved[0])

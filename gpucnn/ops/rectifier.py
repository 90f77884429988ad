"""Rectifiers: piecewise linear activations and exponential linear units."""

from __future__ import annotations

from typing import Any

from gpucnn.autograd import Function
from gpucnn.backend import Array, from_nhwc, memory_order
from gpucnn.ops.activation import from_input, tables
from gpucnn.ops.elementwise import in_memory_order, multiply, unary, unbroadcast
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import rectifier as reference
from gpucnn.reference.rectifier import RReluProblem

relu, relu_grad = tables("relu", reference.relu, reference.relu_grad)
hardtanh, hardtanh_grad = tables("hardtanh", reference.hardtanh, reference.hardtanh_grad)
leaky_relu, leaky_relu_grad = tables("leaky_relu", reference.leaky_relu, reference.leaky_relu_grad)
threshold, threshold_grad = tables("threshold", reference.threshold, reference.threshold_grad)
hardshrink, hardshrink_grad = tables("hardshrink", reference.hardshrink, reference.hardshrink_grad)
softshrink, softshrink_grad = tables("softshrink", reference.softshrink, reference.relu_grad)
elu, elu_grad = tables("elu", reference.elu, reference.elu_grad)
prelu, prelu_grad = tables("prelu", reference.prelu, reference.prelu_grad)

prelu_weight_grad = KernelTable("prelu", "weight_grad")
prelu_weight_grad.add("array", "reference", reference.prelu_weight_grad)

rrelu_slopes = KernelTable("rrelu", "slopes")
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
        slopes = rrelu_slopes(problem, x, like=x)
        if order := memory_order(x):  # slopes are drawn in logical order and laid out like x
            slopes = from_nhwc(slopes.transpose(order).copy())
        ctx.save_for_backward(slopes)
        return in_memory_order(multiply, None, x, slopes)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return in_memory_order(multiply, None, dy, ctx.saved[0])

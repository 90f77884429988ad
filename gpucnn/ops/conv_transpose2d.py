"""Transposed 2-D convolution (Zeiler et al., "Deconvolutional networks", 2010; Dumoulin and Visin, 2016).

It is the transpose of a convolution as a linear map, so it runs on that convolution's own passes: forward is the
convolution's input gradient, the gradient of its input is the convolution's forward pass, and the gradient of the
filters is the convolution's, with x and dy exchanged. `problem` describes that convolution, from y to x.
"""

from __future__ import annotations

from typing import Any

from gpucnn.autograd import Function
from gpucnn.backend import Array, dtype_name, from_nhwc
from gpucnn.ops import compiled, conv2d
from gpucnn.ops.memory import contiguous, to_nhwc
from gpucnn.ops.registry import KernelTable
from gpucnn.problem import Conv2dProblem
from gpucnn.reference import conv_transpose2d as reference


def _add_bias(module: Any, problem: Conv2dProblem, stream: int, y: Array, bias: Array) -> Array:
    module.conv_transpose2d_add_bias(dtype_name(y.dtype), y, bias, stream)
    return y


add_bias = KernelTable("conv_transpose2d", "bias")
"""(problem, y, bias) -> y + bias, in y's memory."""
compiled.add(add_bias, "packs", _add_bias, dtypes=compiled.FLOATS)
add_bias.add("rows", "reference", reference.add_bias)


class ConvTranspose2d(Function):
    """x (N,C,H,W), w (C,K/groups,R,S), bias (K,) or None -> y (N,K,P,Q)."""

    @staticmethod
    def forward(
        ctx: Any, x: Array, w: Array, bias: Array | None, *, problem: Conv2dProblem, kernel: str | None = None
    ) -> Array:
        x, w = to_nhwc(x), to_nhwc(w)
        ctx.problem = problem
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, w if ctx.needs_input_grad[0] else None)
        y = conv2d.dgrad(problem, x, w, kernel=kernel, like=x)
        return from_nhwc(y if bias is None else add_bias(problem, y, contiguous(bias), like=y))

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array | None, ...]:
        x, w = ctx.saved
        p: Conv2dProblem = ctx.problem
        dy = to_nhwc(dy)
        return (
            from_nhwc(conv2d.fprop(p, dy, w, None, like=dy)) if ctx.needs_input_grad[0] else None,
            from_nhwc(conv2d.wgrad(p, dy, x, like=dy)) if ctx.needs_input_grad[1] else None,
            conv2d.bgrad(pointwise(p), dy, like=dy) if ctx.needs_input_grad[2] else None,
        )


def pointwise(p: Conv2dProblem) -> Conv2dProblem:
    """A convolution whose output, like p's input, is (N,H,W,C): a bias gradient asks no more of it than that."""
    return Conv2dProblem(p.N, p.H, p.W, p.C, 1, 1, p.H, p.W, (1, 1), (0, 0), (1, 1), p.C, 1)

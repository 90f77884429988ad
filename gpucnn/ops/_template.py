"""y = alpha * x, the op to copy for a new one: csrc/_template, reference/_template.py, this file and
tests/test_template.py."""

from __future__ import annotations

from typing import Any

from gpucnn.autograd import Function
from gpucnn.backend import Array, dtype_name, empty, from_nhwc, memory_order
from gpucnn.ops import compiled
from gpucnn.ops.memory import contiguous, to_nhwc
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import _template as reference


def _compiled(module: Any, problem: ScaleProblem, stream: int, x: Array) -> Array:
    y = empty(x.shape, x.dtype, x)
    module.scale(problem.dtype, x, y, problem.alpha, stream)
    return y


ScaleProblem = reference.ScaleProblem

forward = KernelTable("scale", "forward")
compiled.add(forward, "grid_stride", _compiled, dtypes=compiled.FLOATS)
forward.add("array", "reference", reference.scale)


class Scale(Function):
    """x of any shape -> alpha * x; the gradient is alpha * dy."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, alpha: float) -> Array:
        ctx.alpha = alpha
        return _scale(x, alpha)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return _scale(dy, ctx.alpha)


def _scale(x: Array, alpha: float) -> Array:
    problem = ScaleProblem(alpha, dtype_name(x.dtype))
    if memory_order(x):  # channels-last images are scaled as they lie, and stay so
        return from_nhwc(forward(problem, to_nhwc(x), like=x))
    x = contiguous(x)
    return forward(problem, x, like=x)

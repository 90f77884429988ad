"""What ops on images share."""

from __future__ import annotations

from typing import Any

from gpucnn.autograd import Function
from gpucnn.backend import Array, from_nhwc, to_nhwc
from gpucnn.ops.registry import KernelTable


def linear_map(name: str, run: KernelTable, transposed: KernelTable) -> type[Function]:
    """A Function of images (N,C,H,W) and a `problem` that is linear: its gradient is the transposed map of dy."""

    class LinearMap(Function):
        @staticmethod
        def forward(ctx: Any, x: Array, *, problem: Any) -> Array:
            ctx.problem = problem
            x = to_nhwc(x)
            return from_nhwc(run(problem, x, like=x))

        @staticmethod
        def backward(ctx: Any, dy: Array) -> Array:
            dy = to_nhwc(dy)
            return from_nhwc(transposed(ctx.problem, dy, like=dy))

    LinearMap.__name__ = LinearMap.__qualname__ = name
    return LinearMap

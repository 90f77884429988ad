"""Windows of images as columns (unfold, "im2col"), and columns summed into images (fold): each the other's gradient."""

from __future__ import annotations

from typing import Any

from gpucnn.autograd import Function
from gpucnn.backend import Array, dtype_name, empty, from_nhwc
from gpucnn.ops import compiled
from gpucnn.ops.memory import contiguous, to_nhwc
from gpucnn.ops.registry import KernelTable
from gpucnn.problem import Pool2dProblem
from gpucnn.reference import unfold as reference


def _unfold(module: Any, p: Pool2dProblem, stream: int, x: Array) -> Array:
    columns = empty((p.N, p.C * p.R * p.S, p.P * p.Q), x.dtype, x)
    module.unfold(p, dtype_name(x.dtype), x, columns, stream)
    return columns


def _fold(module: Any, p: Pool2dProblem, stream: int, columns: Array) -> Array:
    x = empty((p.N, p.H, p.W, p.C), columns.dtype, columns)
    module.fold(p, dtype_name(columns.dtype), columns, x, stream)
    return x


unfold = KernelTable("unfold", "fprop")
compiled.add(unfold, "turned", _unfold, dtypes=compiled.FLOATS)
unfold.add("planes", "reference", reference.unfold)

fold = KernelTable("fold", "fprop")
compiled.add(fold, "turned", _fold, dtypes=compiled.FLOATS)
fold.add("planes", "reference", reference.fold)


class Unfold(Function):
    """x (N,C,H,W) -> columns (N, C*R*S, P*Q)."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, problem: Pool2dProblem) -> Array:
        ctx.problem = problem
        x = to_nhwc(x)
        return unfold(problem, x, like=x)

    @staticmethod
    def backward(ctx: Any, d_columns: Array) -> Array:
        d_columns = contiguous(d_columns)
        return from_nhwc(fold(ctx.problem, d_columns, like=d_columns))


class Fold(Function):
    """columns (N, C*R*S, P*Q) -> x (N,C,H,W)."""

    @staticmethod
    def forward(ctx: Any, columns: Array, *, problem: Pool2dProblem) -> Array:
        ctx.problem = problem
        columns = contiguous(columns)
        return from_nhwc(fold(problem, columns, like=columns))

    @staticmethod
    def backward(ctx: Any, dx: Array) -> Array:
        dx = to_nhwc(dx)
        return unfold(ctx.problem, dx, like=dx)

"""Maximum unpooling, the partial inverse of maximum pooling."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gpucnn.autograd import Function
from gpucnn.backend import Array, dtype_name, empty, from_nhwc
from gpucnn.flags import flag_of
from gpucnn.ops import compiled
from gpucnn.ops.memory import to_nhwc
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import unpool2d as reference
from gpucnn.reference.unpool2d import Unpool2dProblem

_MOST_NUMBERS = 1 << 24
"""int32, that 16-bit values may be numbered in at a time: 64 MiB."""


def _in_place(module: Any, p: Unpool2dProblem, stream: int, x: Array, indices: Array) -> Array:
    y = empty((p.N, p.H, p.W, p.C), x.dtype, x)
    module.max_unpool2d_fprop(p, dtype_name(x.dtype), x, indices, None, y, stream, flag_of(x))
    return y


def _apart(module: Any, p: Unpool2dProblem, stream: int, x: Array, indices: Array) -> Array:
    y = empty((p.N, p.H, p.W, p.C), x.dtype, x)
    images = max(1, _MOST_NUMBERS // (p.H * p.W * p.C))
    numbers = empty((min(p.N, images), p.H, p.W, p.C), np.int32, x)
    for first in range(0, p.N, images):
        some = slice(first, min(p.N, first + images))
        part, scratch = replace(p, N=some.stop - first), numbers[: some.stop - first]
        module.max_unpool2d_fprop(
            part, dtype_name(x.dtype), x[some], indices[some], scratch, y[some], stream, flag_of(x)
        )
    return y


def _countable(p: Unpool2dProblem) -> str | None:
    if p.P * p.Q >= (1 << 31) - 1:
        return f"numbers values by int32, got {p.P} x {p.Q} of them"
    return None


def _small_image(p: Unpool2dProblem) -> str | None:
    if p.H * p.W * p.C > _MOST_NUMBERS:
        return f"numbers an image's places in 64 MiB at most, got {p.H} x {p.W} of {p.C} channels"
    return _countable(p)


def _dgrad(module: Any, p: Unpool2dProblem, stream: int, dy: Array, indices: Array) -> Array:
    dx = empty((p.N, p.P, p.Q, p.C), dy.dtype, dy)
    module.max_unpool2d_dgrad(p, dtype_name(dy.dtype), dy, indices, dx, stream)
    return dx


unpool_fprop = KernelTable("max_unpool2d", "fprop")
compiled.add(unpool_fprop, "numbered", _in_place, _countable, ("float32",))
compiled.add(unpool_fprop, "numbered_apart", _apart, _small_image, ("float16", "bfloat16"))
unpool_fprop.add("scatter", "reference", reference.unpool_fprop)

unpool_dgrad = KernelTable("max_unpool2d", "dgrad")
compiled.add(unpool_dgrad, "gather", _dgrad, _countable, compiled.FLOATS)
unpool_dgrad.add("gather", "reference", reference.unpool_dgrad)


class MaxUnpool2d(Function):
    """x (N,C,P,Q) and int64 indices of the same shape, all in range -> y (N,C,H,W)."""

    @staticmethod
    def forward(ctx: Any, x: Array, indices: Array, *, problem: Unpool2dProblem) -> Array:
        ctx.problem = problem
        x, indices = to_nhwc(x), to_nhwc(indices)
        ctx.save_for_backward(indices)
        return from_nhwc(unpool_fprop(problem, x, indices, like=x))

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array, None]:
        dy = to_nhwc(dy)
        return from_nhwc(unpool_dgrad(ctx.problem, dy, ctx.saved[0], like=dy)), None

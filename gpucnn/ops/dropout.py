"""Dropout, each element or each channel, and where in a mask the elements of memory lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gpucnn.autograd import Function
from gpucnn.backend import Array, dtype_name, empty
from gpucnn.ops import compiled
from gpucnn.ops.memory import contiguous, inverse, memory_axes
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import dropout as reference
from gpucnn.reference.dropout import DropoutProblem

Places = tuple[tuple[int, int], tuple[int, int, int]]


def places(mask: Sequence[int], shape: Sequence[int], order: Sequence[int] | None) -> Places:
    """((middle, inner), (outer step, middle step, inner step)), as the bindings of csrc/dropout take them.

    Args:
        mask: the shape in which random numbers are counted; what follows an entry, in axes that it lacks, shares its
            number.
        shape: of the array, its axes as they lie in memory.
        order: which of the logical axes they are; None is all in their order.
    """
    steps = [math.prod(mask[axis + 1 :]) if axis < len(mask) else 0 for axis in range(len(shape))]
    axes: list[tuple[int, int]] = []  # (size, step), neighbours that one number can walk through as one
    for size, axis in zip(shape, order or range(len(shape)), strict=True):
        if axes and axes[-1][1] == size * steps[axis]:
            axes[-1] = axes[-1][0] * size, steps[axis]
        elif size != 1:
            axes.append((size, steps[axis]))
    if len(axes) < 2:
        return (1, 1), (axes[0][1] if axes else 1, 0, 0)
    (_, outer), *middles, (inner, step) = axes
    assert len(middles) < 2, "an image has one row of pixels and one of channels"
    middle, middle_step = middles[0] if middles else (1, 0)
    return (middle, inner), (outer, middle_step, step)


def _philox_mask(module: Any, p: DropoutProblem, stream: int, like: Array) -> Array:
    keep = empty(p.shape, np.dtype(np.uint8), like)
    module.dropout_mask(keep, (1, 1), (1, 0, 0), p.p, p.seed, p.call, stream)
    return keep.view(np.dtype(bool))


def _redrawn(module: Any, p: DropoutProblem, stream: int, x: Array, keep: Array | None = None) -> Array:
    """Forward, and as well backward: what was kept is drawn again."""
    x = contiguous(x)
    y = empty(x.shape, x.dtype, x)
    scale = 0.0 if p.p == 1.0 else 1.0 / (1.0 - p.p)
    if x.dtype == np.float16:
        scale = float(np.float16(scale))  # as array code has it
    module.dropout_apply(
        dtype_name(x.dtype), x, y, *places(p.shape, x.shape, p.order), p.p, scale, p.seed, p.call, stream
    )
    return y


def _redrawn_later(module: Any, p: DropoutProblem, stream: int, x: Array) -> tuple[Array, None]:
    return _redrawn(module, p, stream, x), None


mask = KernelTable("dropout", "mask")
compiled.add(mask, "philox", _philox_mask)
mask.add("philox", "reference", reference.mask)

dropout = KernelTable("dropout", "forward")
compiled.add(dropout, "redrawn", _redrawn_later, dtypes=compiled.FLOATS)
dropout.add("kept", "reference", reference.forward)

dropout_grad = KernelTable("dropout", "backward")
compiled.add(dropout_grad, "redrawn", _redrawn, dtypes=compiled.FLOATS)
dropout_grad.add("kept", "reference", reference.backward)


class Dropout(Function):
    """x / (1 - p) where the mask keeps, else 0.

    A mask with fewer axes than x has (N,C): an entry stands for all that follows it.
    """

    @staticmethod
    def forward(ctx: Any, x: Array, *, problem: DropoutProblem) -> Array:
        order = memory_axes(x)
        ctx.problem = replace(problem, order=order)
        y, keep = dropout(ctx.problem, x.transpose(order), like=x)
        ctx.save_for_backward(keep)
        return y.transpose(inverse(order))

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        order = ctx.problem.order
        return dropout_grad(ctx.problem, dy.transpose(order), ctx.saved[0], like=dy).transpose(inverse(order))

"""Larger images: interpolation, bed of nails, pixel shuffle and its inverse."""

from __future__ import annotations

from typing import Any

from gpucnn.autograd import Function
from gpucnn.backend import Array, from_nhwc, to_nhwc
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import upsample as reference
from gpucnn.reference.upsample import InterpolateProblem, NailsProblem, ShuffleProblem

interpolate_fprop = KernelTable("interpolate", "fprop")
interpolate_fprop.add("separable", "reference", reference.interpolate_fprop)

interpolate_dgrad = KernelTable("interpolate", "dgrad")
interpolate_dgrad.add("separable", "reference", reference.interpolate_dgrad)

nails_fprop = KernelTable("bed_of_nails", "fprop")
nails_fprop.add("array", "reference", reference.nails_fprop)

nails_dgrad = KernelTable("bed_of_nails", "dgrad")
nails_dgrad.add("array", "reference", reference.nails_dgrad)

shuffle = KernelTable("pixel_shuffle", "forward")
shuffle.add("array", "reference", reference.shuffle)

unshuffle = KernelTable("pixel_unshuffle", "forward")
unshuffle.add("array", "reference", reference.unshuffle)


class Interpolate(Function):
    """x (N,C,H,W) -> y (N,C,P,Q)."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, problem: InterpolateProblem) -> Array:
        ctx.problem = problem
        x = to_nhwc(x)
        return from_nhwc(interpolate_fprop(problem, x, like=x))

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        dy = to_nhwc(dy)
        return from_nhwc(interpolate_dgrad(ctx.problem, dy, like=dy))


class BedOfNails(Function):
    """x (N,C,H,W) -> y (N,C,P,Q)."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, problem: NailsProblem) -> Array:
        ctx.problem = problem
        x = to_nhwc(x)
        return from_nhwc(nails_fprop(problem, x, like=x))

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        dy = to_nhwc(dy)
        return from_nhwc(nails_dgrad(ctx.problem, dy, like=dy))


class PixelShuffle(Function):
    """x (N,C*f*f,H,W) -> y (N,C,f*H,f*W); any dtype."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, problem: ShuffleProblem) -> Array:
        ctx.problem = problem
        x = to_nhwc(x)
        return from_nhwc(shuffle(problem, x, like=x))

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        dy = to_nhwc(dy)
        return from_nhwc(unshuffle(ctx.problem, dy, like=dy))


class PixelUnshuffle(Function):
    """y (N,C,f*H,f*W) -> x (N,C*f*f,H,W); any dtype."""

    @staticmethod
    def forward(ctx: Any, y: Array, *, problem: ShuffleProblem) -> Array:
        ctx.problem = problem
        y = to_nhwc(y)
        return from_nhwc(unshuffle(problem, y, like=y))

    @staticmethod
    def backward(ctx: Any, dx: Array) -> Array:
        dx = to_nhwc(dx)
        return from_nhwc(shuffle(ctx.problem, dx, like=dx))

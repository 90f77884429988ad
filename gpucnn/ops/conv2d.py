"""2-D convolution: forward (fprop), input gradient (dgrad), weight gradient (wgrad), bias gradient (bgrad)."""

from __future__ import annotations

from typing import Any

from gpucnn.autograd import Function
from gpucnn.backend import Array, empty, from_nhwc, to_nhwc
from gpucnn.ops import compiled
from gpucnn.ops.registry import KernelTable
from gpucnn.problem import Conv2dProblem
from gpucnn.reference import conv2d as reference
from gpucnn.reference import depthwise

_FLOAT32 = ("float32",)


def _direct_fprop(module: Any, p: Conv2dProblem, stream: int, x: Array, w: Array, bias: Array | None) -> Array:
    y = empty((p.N, p.P, p.Q, p.K), x.dtype, x)
    module.conv2d_direct_fprop(p, x, w, bias, y, stream)
    return y


def _direct_dgrad(module: Any, p: Conv2dProblem, stream: int, dy: Array, w: Array) -> Array:
    dx = empty((p.N, p.H, p.W, p.C), dy.dtype, dy)
    module.conv2d_direct_dgrad(p, dy, w, dx, stream)
    return dx


def _direct_wgrad(module: Any, p: Conv2dProblem, stream: int, x: Array, dy: Array) -> Array:
    dw = empty((p.K, p.R, p.S, p.C // p.groups), x.dtype, x)
    module.conv2d_direct_wgrad(p, x, dy, dw, _parts(module.conv2d_direct_wgrad_splits(p), dw), stream)
    return dw


def _direct_bgrad(module: Any, p: Conv2dProblem, stream: int, dy: Array) -> Array:
    db = empty((p.K,), dy.dtype, dy)
    module.conv2d_direct_bgrad(p, dy, db, _parts(module.conv2d_direct_bgrad_splits(p), db), stream)
    return db


def _parts(splits: int, sums: Array) -> Array | None:
    """Memory for the sums of each split, where there are several: less than 16 MiB, which the kernels see to."""
    return empty((splits, *sums.shape), sums.dtype, sums) if splits > 1 else None


fprop = KernelTable("conv2d", "fprop")
compiled.add(fprop, "direct", _direct_fprop, dtypes=_FLOAT32)
fprop.add("pointwise", "reference", reference.fprop_pointwise, reference.pointwise_only)
fprop.add("depthwise", "reference", depthwise.fprop, depthwise.depthwise_only)
fprop.add("im2col", "reference", reference.fprop_im2col)

dgrad = KernelTable("conv2d", "dgrad")
compiled.add(dgrad, "direct", _direct_dgrad, dtypes=_FLOAT32)
dgrad.add("pointwise", "reference", reference.dgrad_pointwise, reference.pointwise_only)
dgrad.add("depthwise", "reference", depthwise.dgrad, depthwise.depthwise_only)
dgrad.add("taps", "reference", reference.dgrad_taps, reference.few_channels_only)
dgrad.add("im2col", "reference", reference.dgrad_im2col)

wgrad = KernelTable("conv2d", "wgrad")
compiled.add(wgrad, "direct", _direct_wgrad, dtypes=_FLOAT32)
wgrad.add("depthwise", "reference", depthwise.wgrad, depthwise.depthwise_only)
wgrad.add("im2col", "reference", reference.wgrad_im2col, reference.narrow_only)
wgrad.add("taps", "reference", reference.wgrad_taps, reference.dense_only)

bgrad = KernelTable("conv2d", "bgrad")
compiled.add(bgrad, "direct", _direct_bgrad, dtypes=_FLOAT32)
bgrad.add("rows", "reference", reference.bgrad)


class Conv2d(Function):
    """x (N,C,H,W), w (K,C/groups,R,S), bias (K,) or None -> y (N,K,P,Q)."""

    @staticmethod
    def forward(
        ctx: Any, x: Array, w: Array, bias: Array | None, *, problem: Conv2dProblem, kernel: str | None = None
    ) -> Array:
        x, w = to_nhwc(x), to_nhwc(w)
        ctx.problem = problem
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, w if ctx.needs_input_grad[0] else None)
        return from_nhwc(fprop(problem, x, w, bias, kernel=kernel, like=x))

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array | None, ...]:
        x, w = ctx.saved
        p: Conv2dProblem = ctx.problem
        dy = to_nhwc(dy)
        return (
            from_nhwc(dgrad(p, dy, w, like=dy)) if ctx.needs_input_grad[0] else None,
            from_nhwc(wgrad(p, x, dy, like=dy)) if ctx.needs_input_grad[1] else None,
            bgrad(p, dy, like=dy) if ctx.needs_input_grad[2] else None,
        )

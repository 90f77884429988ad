"""2-D convolution: forward (fprop), input gradient (dgrad), weight gradient (wgrad), bias gradient (bgrad)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpucnn.autograd import Function
from gpucnn.backend import Array, dtype_name, empty, from_nhwc
from gpucnn.ops import compiled, epilogue, planned, products, tensor_core, tensor_core_cut
from gpucnn.ops.linear import column_sums
from gpucnn.ops.memory import contiguous, to_nhwc
from gpucnn.ops.rectifier import relu_grad
from gpucnn.ops.registry import KernelTable, Supports, always
from gpucnn.problem import Conv2dProblem
from gpucnn.reference import conv2d as reference
from gpucnn.reference import depthwise
from gpucnn.reference.epilogue import with_epilogue
from gpucnn.reference.norm_problem import Moments

# ------------------------------------------------------------------------------- kernels, by their bindings' names


def _fprop(kernel: str) -> Callable[..., Array]:
    name = f"conv2d_{kernel}_fprop"

    def call(
        module: Any,
        p: Conv2dProblem,
        stream: int,
        x: Array,
        w: Array,
        bias: Array | None,
        relu: bool = False,
        scale: Array | None = None,
        shift: Array | None = None,
        residual: Array | None = None,
    ) -> Array | tuple[Array, Moments]:
        y = empty((p.N, p.P, p.Q, p.K), x.dtype, x)
        if not p.epilogue:
            getattr(module, name)(p, dtype_name(x.dtype), x, w, bias, y, relu, stream)
            return y
        moments = None
        if "moments" in p.epilogue:
            rows = getattr(module, f"conv2d_{kernel}_moment_rows")(p, dtype_name(x.dtype))
            splits = -(-p.N * p.P * p.Q // rows)
            moments = Moments(empty((2 * splits + 1, p.K), np.dtype(np.float32), x), rows)
        partial = None if moments is None else moments.partial
        getattr(module, name)(p, dtype_name(x.dtype), x, w, bias, y, relu, stream, scale, shift, residual, partial)
        return y if moments is None else (y, moments)

    return call


def _dgrad(kernel: str) -> Callable[..., Array]:
    name = f"conv2d_{kernel}_dgrad"

    def call(module: Any, p: Conv2dProblem, stream: int, dy: Array, w: Array) -> Array:
        dx = empty((p.N, p.H, p.W, p.C), dy.dtype, dy)
        getattr(module, name)(p, dtype_name(dy.dtype), dy, w, dx, stream)
        return dx

    return call


def _wgrad(kernel: str) -> Callable[..., Array]:
    name = f"conv2d_{kernel}_wgrad"

    def call(module: Any, p: Conv2dProblem, stream: int, x: Array, dy: Array) -> Array:
        dw = empty((p.K, p.R, p.S, p.C // p.groups), x.dtype, x)
        partial = _parts(getattr(module, f"{name}_splits")(p), dw)
        getattr(module, name)(p, dtype_name(x.dtype), x, dy, dw, partial, stream)
        return dw

    return call


def _fprop_cut(kernel: str) -> Callable[..., Array]:
    name = f"conv2d_{kernel}_fprop"

    def call(
        module: Any,
        p: Conv2dProblem,
        stream: int,
        x: Array,
        w: Array,
        bias: Array | None,
        relu: bool = False,
        *epilogue: Array | None,
    ) -> Array:
        y = empty((p.N, p.P, p.Q, p.K), x.dtype, x)
        partial = empty((getattr(module, f"{name}_splits")(p), *y.shape), np.dtype(np.float32), x)
        getattr(module, name)(p, dtype_name(x.dtype), x, w, bias, y, relu, partial, stream, *epilogue)
        return y

    return call


def _dgrad_cut(kernel: str) -> Callable[..., Array]:
    name = f"conv2d_{kernel}_dgrad"

    def call(module: Any, p: Conv2dProblem, stream: int, dy: Array, w: Array) -> Array:
        dx = empty((p.N, p.H, p.W, p.C), dy.dtype, dy)
        partial = empty((getattr(module, f"{name}_splits")(p), *dx.shape), np.dtype(np.float32), dy)
        getattr(module, name)(p, dtype_name(dy.dtype), dy, w, dx, partial, stream)
        return dx

    return call


def _bgrad(kernel: str) -> Callable[..., Array]:
    name = f"conv2d_{kernel}_bgrad"

    def call(module: Any, p: Conv2dProblem, stream: int, dy: Array) -> Array:
        db = empty((p.K,), dy.dtype, dy)
        partial = _parts(getattr(module, f"{name}_splits")(p), db)
        getattr(module, name)(p, dtype_name(dy.dtype), dy, db, partial, stream)
        return db

    return call


def _bgrad_columns(module: Any, p: Conv2dProblem, stream: int, dy: Array) -> Array:
    return column_sums(module, p, stream, dy.reshape(p.N * p.P * p.Q, p.K))


def _parts(splits: int, sums: Array) -> Array | None:
    """Memory for the float32 sums of each split, where there are several: the kernels see to it that it is bounded."""
    return empty((splits, *sums.shape), np.dtype(np.float32), sums) if splits > 1 else None


# --------------------------------------------------------------------------------------------- what kernels can't run


def _pointwise_only(p: Conv2dProblem) -> str | None:
    return reference.pointwise_only(p) or _few_windows(p)


def _dense_only(p: Conv2dProblem) -> str | None:
    return reference.dense_only(p) or _few_windows(p)


def _few_windows(p: Conv2dProblem) -> str | None:
    count = p.N * p.P * p.Q
    return None if count <= 1 << 33 else f"needs at most 2^33 windows, got {count}"


def _depthwise_only(p: Conv2dProblem) -> str | None:
    if p.groups == p.C == p.K and p.C > 1:
        return None
    return f"needs groups=C of 2 or more and K=C, got groups={p.groups}, C={p.C} and K={p.K}"


def _grouped_only(p: Conv2dProblem) -> str | None:
    if p.groups == 1:
        return "needs groups"
    if p.groups == p.C:
        return "a group of one channel would leave three quarters of it idle"
    return _small_windows(p)


def _stem_only(p: Conv2dProblem) -> str | None:
    if p.groups > 1 or p.C > 4:
        return "needs 1 to 4 channels and one group"
    if p.dilation[1] > 1:
        return "needs filters without horizontal dilation"
    weights, run, rows = p.C * p.R * p.S, p.C * p.S, (p.R - 1) * p.dilation[0] + 1
    if weights <= 1024 and run <= 128 and rows <= 65:
        return None
    return f"needs filters of at most 1024 weights, 128 a row, over 65 rows, got {weights}, {run} and {rows}"


def _stem_gradient_only(p: Conv2dProblem) -> str | None:
    """The grouped kernel's, of which a group of 4 channels or fewer keeps all threads busy."""
    return _small_windows(p) if p.groups == 1 and p.C <= 4 else "needs 1 to 4 channels and one group"


def _odd_stem(p: Conv2dProblem) -> str | None:
    """Why a stem of float32 is not split."""
    if p.C % 4 == 0 or _stem_only(p):
        return None
    return f"finding pixels of C={p.C} one by one, to split them, takes longer than the stem kernel"


def _stem_gradient(p: Conv2dProblem) -> str | None:
    """Why the gradient of a few channels is not computed on tensor cores."""
    return None if _stem_gradient_only(p) else f"tiles of 64 columns would stay mostly empty, of {p.C}"


def _small_windows(p: Conv2dProblem) -> str | None:
    """Whether what is under one window, and a quad of weights for it, fit a block's shared memory."""
    (vertical, horizontal), taps = p.dilation, p.R * p.S
    cells = ((p.R - 1) * vertical + 1) * ((p.S - 1) * horizontal + 1)
    if cells <= 1024 and taps <= 121:
        return None
    return f"needs windows of at most 1024 cells and 121 taps, got {cells} and {taps}"


def _of_pixels(words: Callable[..., str]) -> compiled.Configuration:
    """Of a 1x1 convolution as a product."""
    return lambda module, p, dtype: words(module, p.N * p.P * p.Q, p.K, p.C, dtype)


def _add_products(
    table: KernelTable,
    name: str,
    call: Callable[..., Array],
    supports: Supports,
    words: compiled.Configuration,
    dtypes: tuple[str, ...] = compiled.FLOATS,
) -> None:
    """A kernel on the tiles of csrc/gemm."""
    expected = planned.in_float32(table.direction)
    compiled.add(table, name, call, supports, dtypes, words, products.configurations, expected=expected)


# ------------------------------------------------------------------------------------------------------------- tables

_FLOAT32 = ("float32",)
"""What kernels compute in that tensor cores leave nothing to do in 16 bits."""

fprop = KernelTable("conv2d", "fprop")
"""(problem, x, w, bias or None, relu=False, scale=None, shift=None, residual=None) -> y, max(y, 0) with `relu`; or
(y, Moments): what `problem.epilogue` says."""


def _add_fprop(
    name: str,
    supports: Supports = always,
    configuration: compiled.Configuration | None = None,
    dtypes: tuple[str, ...] = compiled.FLOATS,
) -> None:
    alone = epilogue.bias_and_relu_alone(supports)
    names = products.configurations if configuration else None
    expected = planned.in_float32("fprop") if configuration else None
    compiled.add(fprop, name, _fprop(name), alone, dtypes, configuration, names, expected=expected)


tensor_core_cut.add(fprop, _fprop_cut, "C", tensor_core_cut.fprop_sums)
tensor_core.add(fprop, _fprop, split_slower=_odd_stem)
_add_fprop("pointwise", _pointwise_only, _of_pixels(products.fprop))
_add_fprop("depthwise", _depthwise_only)
_add_fprop("grouped", _grouped_only)
_add_fprop("stem", _stem_only, dtypes=_FLOAT32)
_add_fprop("implicit_gemm", _dense_only, products.conv2d_fprop, _FLOAT32)
_add_fprop("direct")
fprop.add("pointwise", "reference", with_epilogue(reference.fprop_pointwise), reference.pointwise_only)
fprop.add("depthwise", "reference", with_epilogue(depthwise.fprop), depthwise.depthwise_only)
fprop.add("im2col", "reference", with_epilogue(reference.fprop_im2col))

dgrad = KernelTable("conv2d", "dgrad")
tensor_core_cut.add(dgrad, _dgrad_cut, "CK", tensor_core_cut.dgrad_sums)
tensor_core.add(dgrad, _dgrad, slower=_stem_gradient)
_add_products(dgrad, "pointwise", _dgrad("pointwise"), _pointwise_only, _of_pixels(products.dgrad))
compiled.add(dgrad, "depthwise", _dgrad("depthwise"), _depthwise_only, dtypes=compiled.FLOATS)
compiled.add(dgrad, "grouped", _dgrad("grouped"), _grouped_only, dtypes=compiled.FLOATS)
compiled.add(dgrad, "stem", _dgrad("stem"), _stem_gradient_only, dtypes=compiled.FLOATS)
_add_products(dgrad, "implicit_gemm", _dgrad("implicit_gemm"), _dense_only, products.conv2d_dgrad, _FLOAT32)
compiled.add(dgrad, "direct", _dgrad("direct"), dtypes=compiled.FLOATS)
dgrad.add("pointwise", "reference", reference.dgrad_pointwise, reference.pointwise_only)
dgrad.add("depthwise", "reference", depthwise.dgrad, depthwise.depthwise_only)
dgrad.add("taps", "reference", reference.dgrad_taps, reference.few_channels_only)
dgrad.add("im2col", "reference", reference.dgrad_im2col)

wgrad = KernelTable("conv2d", "wgrad")
tensor_core.add(wgrad, _wgrad, split_slower=_odd_stem)
_add_products(wgrad, "pointwise", _wgrad("pointwise"), _pointwise_only, _of_pixels(products.wgrad))
compiled.add(wgrad, "depthwise", _wgrad("depthwise"), _depthwise_only, dtypes=compiled.FLOATS)
compiled.add(wgrad, "grouped", _wgrad("grouped"), _grouped_only, dtypes=compiled.FLOATS)
compiled.add(wgrad, "stem", _wgrad("stem"), _stem_only, dtypes=_FLOAT32)
_add_products(wgrad, "implicit_gemm", _wgrad("implicit_gemm"), _dense_only, products.conv2d_wgrad, _FLOAT32)
compiled.add(wgrad, "direct", _wgrad("direct"), dtypes=compiled.FLOATS)
wgrad.add("depthwise", "reference", depthwise.wgrad, depthwise.depthwise_only)
wgrad.add("im2col", "reference", reference.wgrad_im2col, reference.narrow_only)
wgrad.add("taps", "reference", reference.wgrad_taps, reference.dense_only)

bgrad = KernelTable("conv2d", "bgrad")
compiled.add(bgrad, "columns", _bgrad_columns, dtypes=compiled.FLOATS)
compiled.add(bgrad, "direct", _bgrad("direct"), dtypes=compiled.FLOATS)
bgrad.add("rows", "reference", reference.bgrad)


class Conv2d(Function):
    """x (N,C,H,W), w (K,C/groups,R,S), bias (K,) or None -> y (N,K,P,Q); a fourth input is added to y.

    Parameters:
        scale, shift: (K,), constants that y is multiplied by and that are added, before that; or None.
        moments: a list that gets the Moments of y, if the kernel takes them; or None.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Array | None, **parameters: Any) -> Array:
        return _forward(ctx, False, *inputs, **parameters)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array | None, ...]:
        x, w, _ = ctx.saved
        return _gradients(ctx, to_nhwc(dy), x, w)


class Conv2dReLU(Function):
    """As Conv2d, of max(y, 0)."""

    @staticmethod
    def forward(ctx: Any, *inputs: Array | None, **parameters: Any) -> Array:
        return _forward(ctx, True, *inputs, **parameters)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array | None, ...]:
        x, w, y = ctx.saved
        dy = to_nhwc(dy)
        return _gradients(ctx, relu_grad(None, dy, to_nhwc(y), like=dy), x, w)


def _forward(
    ctx: Any,
    relu: bool,
    x: Array,
    w: Array,
    bias: Array | None,
    residual: Array | None = None,
    *,
    problem: Conv2dProblem,
    kernel: str | None = None,
    scale: Array | None = None,
    shift: Array | None = None,
    moments: list[Moments] | None = None,
) -> Array:
    """y; saves x and w in memory order, as far as backward needs them, and with `relu` y."""
    x, w, bias = to_nhwc(x), to_nhwc(w), None if bias is None else contiguous(bias)
    ctx.problem, ctx.scale = problem, scale
    if scale is None and residual is None and moments is None:
        y = fprop(problem, x, w, bias, relu, kernel=kernel, like=x)
    else:
        added = None if residual is None else to_nhwc(residual)
        wanted = epilogue.Epilogue(scale, shift, added, moments is not None)
        y, taken = epilogue.run(fprop, problem, x, w, bias, relu, wanted, kernel)
        if moments is not None and taken is not None:
            moments.append(taken)
    y = from_nhwc(y)
    needs_x, needs_w, *_ = ctx.needs_input_grad
    ctx.save_for_backward(x if needs_w else None, w if needs_x else None, y if relu else None)
    return y


def _gradients(ctx: Any, dy: Array, x: Array, w: Array) -> tuple[Array | None, ...]:
    """Of x, w, bias and what was added to y, where they are needed; dy and what forward saved are in memory order."""
    p: Conv2dProblem = ctx.problem
    wanted = ctx.needs_input_grad
    added = (from_nhwc(dy) if wanted[3] else None,) if len(wanted) > 3 else ()
    if ctx.scale is not None and True in wanted[:3]:
        dy = epilogue.passed(dy, False, ctx.scale, None, None)
    return (
        from_nhwc(dgrad(p, dy, w, like=dy)) if wanted[0] else None,
        from_nhwc(wgrad(p, x, dy, like=dy)) if wanted[1] else None,
        bgrad(p, dy, like=dy) if wanted[2] else None,
        *added,
    )

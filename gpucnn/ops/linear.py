"""Fully connected layers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from gpucnn.autograd import Function
from gpucnn.backend import Array, dtype_name, empty
from gpucnn.ops import compiled, planned, products, tensor_core
from gpucnn.ops.memory import contiguous
from gpucnn.ops.rectifier import relu_grad
from gpucnn.ops.registry import KernelTable
from gpucnn.precision import float32_precision
from gpucnn.reference import linear as reference

LinearProblem = reference.LinearProblem
_problem = functools.lru_cache(maxsize=4096)(LinearProblem)

_FLOAT32 = np.dtype(np.float32)

# -------------------------------------------------------------------------------------- kernels: products of matrices


def tiled_fprop(
    module: Any, p: Any, stream: int, x: Array, w: Array, bias: Array | None = None, relu: bool = False
) -> Array:
    """x (M,I) times w (O,I) transposed."""
    y = empty((x.shape[0], w.shape[0]), x.dtype, x)
    module.matmul_nt(dtype_name(x.dtype), x, w, bias, y, relu, stream)
    return y


def tiled_dgrad(module: Any, p: Any, stream: int, dy: Array, w: Array) -> Array:
    """dy (M,O) times w (O,I)."""
    dx = empty((dy.shape[0], w.shape[1]), dy.dtype, dy)
    module.matmul_nn(dtype_name(dy.dtype), dy, w, dx, stream)
    return dx


def tiled_wgrad(module: Any, p: Any, stream: int, x: Array, dy: Array) -> Array:
    """dy (M,O) transposed times x (M,I); the sum over M in parts, in at most 64 MiB of memory."""
    (M, I), O = x.shape, dy.shape[1]  # noqa: E741
    dw = empty((O, I), x.dtype, x)
    parts = module.matmul_tn_parts(M, O, I)
    partial = empty((parts, O, I), _FLOAT32, x) if parts > 1 else None
    module.matmul_tn(dtype_name(x.dtype), x, dy, dw, partial, stream)
    return dw


def split_fprop(
    module: Any, p: Any, stream: int, x: Array, w: Array, bias: Array | None = None, relu: bool = False
) -> Array:
    """As tiled_fprop() of few rows, the sums in parts, in at most 64 MiB of memory."""
    (M, I), O = x.shape, w.shape[0]  # noqa: E741
    y = empty((M, O), x.dtype, x)
    partial = empty((module.linear_split_parts(O, I), M, O), _FLOAT32, x)
    module.linear_split_fprop(dtype_name(x.dtype), x, w, bias, y, relu, partial, stream)
    return y


def split_dgrad(module: Any, p: Any, stream: int, dy: Array, w: Array) -> Array:
    """As tiled_dgrad() of few rows, the sums in parts, in at most 64 MiB of memory."""
    (M, O), I = dy.shape, w.shape[1]  # noqa: E741
    dx = empty((M, I), dy.dtype, dy)
    partial = empty((module.linear_split_parts(I, O), M, I), _FLOAT32, dy)
    module.linear_split_dgrad(dtype_name(dy.dtype), dy, w, dx, partial, stream)
    return dx


def column_sums(module: Any, p: Any, stream: int, x: Array) -> Array:
    """The sums of x (rows, columns) over its rows."""
    sums = empty((x.shape[1],), x.dtype, x)
    parts = module.column_sums_parts(*x.shape)
    partial = empty((parts, x.shape[1]), _FLOAT32, x) if parts > 1 else None
    module.column_sums(dtype_name(x.dtype), x, sums, partial, stream)
    return sums


def why_no_split(rows: int, width: int, depth: int) -> str | None:
    """Why sums over `depth`, `width` a row, are no better cut in depth: there are enough to do, or too few to cut."""
    if rows > 64:
        return f"needs at most 64 rows, got {rows}"
    if depth < 512:
        return f"needs sums of at least 512 products, got {depth}"
    if width > 1 << 18:
        return f"needs rows of at most 262144 sums, got {width}"
    return None


def _add_tiled(table: KernelTable, call: Callable[..., Array], words: Callable[..., str]) -> None:
    compiled.add(
        *(table, "tiled", call),
        dtypes=compiled.FLOATS,
        configuration=lambda module, p, dtype: words(module, p.M, p.O, p.I, dtype),
        configurations=products.configurations,
        expected=planned.in_float32(table.direction, tensor_core.as_convolution),
    )


def _pixels(array: Array) -> Array:
    """Rows as images of one pixel."""
    return array[:, None, None, :]


def _tensor_core_fprop(kernel: str) -> tensor_core.Call:
    name = f"conv2d_{kernel}_fprop"

    def call(
        module: Any, p: Any, stream: int, x: Array, w: Array, bias: Array | None = None, relu: bool = False
    ) -> Array:
        y, q = empty((p.M, p.O), x.dtype, x), tensor_core.as_convolution(p)
        getattr(module, name)(q, dtype_name(x.dtype), _pixels(x), _pixels(w), bias, _pixels(y), relu, stream)
        return y

    return call


def _tensor_core_dgrad(kernel: str) -> tensor_core.Call:
    name = f"conv2d_{kernel}_dgrad"

    def call(module: Any, p: Any, stream: int, dy: Array, w: Array) -> Array:
        dx, q = empty((p.M, p.I), dy.dtype, dy), tensor_core.as_convolution(p)
        getattr(module, name)(q, dtype_name(dy.dtype), _pixels(dy), _pixels(w), _pixels(dx), stream)
        return dx

    return call


def _tensor_core_wgrad(kernel: str) -> tensor_core.Call:
    name = f"conv2d_{kernel}_wgrad"

    def call(module: Any, p: Any, stream: int, x: Array, dy: Array) -> Array:
        dw, q = empty((p.O, p.I), x.dtype, x), tensor_core.as_convolution(p)
        splits = getattr(module, f"{name}_splits")(q)
        partial = empty((splits, p.O, 1, 1, p.I), _FLOAT32, x) if splits > 1 else None
        getattr(module, name)(q, dtype_name(x.dtype), _pixels(x), _pixels(dy), _pixels(dw), partial, stream)
        return dw

    return call


# ------------------------------------------------------------------------------------------------------------- tables

fprop = KernelTable("linear", "fprop")
"""(problem, x, w, bias or None, relu=False) -> y: with `relu`, max(y, 0)."""
compiled.add(fprop, "split", split_fprop, lambda p: why_no_split(p.M, p.O, p.I), dtypes=compiled.FLOATS)
tensor_core.add_linear(fprop, _tensor_core_fprop)
_add_tiled(fprop, tiled_fprop, products.fprop)
fprop.add("matmul", "reference", reference.fprop)

dgrad = KernelTable("linear", "dgrad")
compiled.add(dgrad, "split", split_dgrad, lambda p: why_no_split(p.M, p.I, p.O), dtypes=compiled.FLOATS)
tensor_core.add_linear(dgrad, _tensor_core_dgrad)
_add_tiled(dgrad, tiled_dgrad, products.dgrad)
dgrad.add("matmul", "reference", reference.dgrad)

wgrad = KernelTable("linear", "wgrad")
tensor_core.add_linear(wgrad, _tensor_core_wgrad)
_add_tiled(wgrad, tiled_wgrad, products.wgrad)
wgrad.add("matmul", "reference", reference.wgrad)

bgrad = KernelTable("linear", "bgrad")
compiled.add(bgrad, "columns", column_sums, dtypes=compiled.FLOATS)
bgrad.add("rows", "reference", reference.bgrad)


class Linear(Function):
    """x (M,I), w (O,I), bias (O,) or None -> y (M,O)."""

    @staticmethod
    def forward(ctx: Any, x: Array, w: Array, bias: Array | None) -> Array:
        x, w = contiguous(x), contiguous(w)
        ctx.problem = _problem(*x.shape, w.shape[0], float32_precision())
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, w if ctx.needs_input_grad[0] else None)
        return fprop(ctx.problem, x, w, bias, like=x)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array | None, ...]:
        x, w = ctx.saved
        return _gradients(ctx, contiguous(dy), x, w)


class LinearReLU(Function):
    """As Linear, of max(y, 0)."""

    @staticmethod
    def forward(ctx: Any, x: Array, w: Array, bias: Array | None) -> Array:
        x, w = contiguous(x), contiguous(w)
        ctx.problem = _problem(*x.shape, w.shape[0], float32_precision())
        y = fprop(ctx.problem, x, w, bias, True, like=x)
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, w if ctx.needs_input_grad[0] else None, y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array | None, ...]:
        x, w, y = ctx.saved
        dy = contiguous(dy)
        return _gradients(ctx, relu_grad(None, dy, y, like=dy), x, w)


def _gradients(ctx: Any, dy: Array, x: Array, w: Array) -> tuple[Array | None, ...]:
    """Of x, w and bias, where they are needed."""
    p: LinearProblem = ctx.problem
    return (
        dgrad(p, dy, w, like=dy) if ctx.needs_input_grad[0] else None,
        wgrad(p, x, dy, like=dy) if ctx.needs_input_grad[1] else None,
        bgrad(p, dy, like=dy) if ctx.needs_input_grad[2] else None,
    )

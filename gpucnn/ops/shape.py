"""Changes of shape: no arithmetic, and a copy only where memory order asks for one."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn import backend
from gpucnn.autograd import Function
from gpucnn.backend import Array


class Reshape(Function):
    """The same elements in logical (row-major) order under another shape."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, shape: tuple[int, ...]) -> Array:
        ctx.shape = x.shape
        return backend.reshape(x, shape)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return backend.reshape(dy, ctx.shape)


class Permute(Function):
    """Axes in another order; always a view."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, axes: tuple[int, ...]) -> Array:
        ctx.axes = axes
        return x.transpose(axes)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return dy.transpose(tuple(np.argsort(ctx.axes).tolist()))


class GetItem(Function):
    """x[index] with numpy's indexing rules; where an element is picked twice its gradients add up."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, index: Any) -> Array:
        ctx.index, ctx.shape = index, x.shape
        return backend.namespace(x).asarray(x[index])

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        xp = backend.namespace(dy)
        dx = backend.zeros(ctx.shape, dy.dtype, dy)
        parts = ctx.index if isinstance(ctx.index, tuple) else (ctx.index,)
        if all(part is None or part is Ellipsis or isinstance(part, (int, slice, np.integer)) for part in parts):
            dx[ctx.index] = dy
        else:
            with np.errstate(all="ignore"):
                xp.add.at(dx, ctx.index, dy)
        return dx


class Convert(Function):
    """Another dtype or device; with `copy` in memory of its own even where both stay."""

    @staticmethod
    def forward(ctx: Any, x: Array, *, dtype: np.dtype[Any], device: str, copy: bool = False) -> Array:
        ctx.dtype, ctx.device = x.dtype, backend.device_of(x)
        with np.errstate(all="ignore"):  # what overflows in a narrower dtype is an infinity, no event to warn of
            return backend.to_device(x.astype(dtype, copy=copy), device)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return backend.to_device(dy, ctx.device).astype(ctx.dtype, copy=False)

"""What ops on images share, and images of bytes made into numbers."""

from __future__ import annotations

from typing import Any

from gpucnn.autograd import Function
from gpucnn.backend import NHWC, Array, empty, from_nhwc, supported_dtype
from gpucnn.ops import compiled
from gpucnn.ops.memory import contiguous, memory_axes, to_nhwc
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import images as reference
from gpucnn.reference.images import NormalizeProblem


def _normalize(module: Any, p: NormalizeProblem, stream: int, x: Array, scale: Array, shift: Array) -> Array:
    N, H, W, C = [x.shape[axis] for axis in NHWC] if p.planar else x.shape
    y = empty((N, H, W, C), supported_dtype(p.dtype), x)
    module.normalize_images(p.dtype, x, scale, shift, y, p.planar, stream)
    return y


def _a_float(p: NormalizeProblem) -> str | None:
    return None if p.dtype in compiled.FLOATS else f"makes {' or '.join(compiled.FLOATS)}, not {p.dtype}"


normalize_images = KernelTable("normalize_images", "forward")
compiled.add(normalize_images, "pack", _normalize, _a_float, dtypes=("uint8",))
normalize_images.add("array", "reference", reference.normalize_images)


class NormalizeImages(Function):
    """x (N,C,H,W) of bytes, in either memory order -> x * scale + shift of each channel, which lies channels-last."""

    @staticmethod
    def forward(ctx: Any, x: Array, scale: Array, shift: Array, *, dtype: str) -> Array:
        laid_out = x.transpose(NHWC)
        planar = not laid_out.flags.c_contiguous and memory_axes(x) != NHWC
        given = contiguous(x if planar else laid_out)
        return from_nhwc(normalize_images(NormalizeProblem(dtype, planar), given, scale, shift, like=given))


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

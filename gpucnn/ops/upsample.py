"""Larger images: interpolation, bed of nails, pixel shuffle and its inverse."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.backend import Array, dtype_name, empty
from gpucnn.ops import compiled
from gpucnn.ops.images import linear_map
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import upsample as reference
from gpucnn.reference.upsample import InterpolateProblem, NailsProblem, ShuffleProblem


def _interpolate(module: Any, p: InterpolateProblem, stream: int, x: Array) -> Array:
    y = empty((p.N, p.P, p.Q, p.C), x.dtype, x)
    module.interpolate_fprop(p, dtype_name(x.dtype), x, y, stream)
    return y


def _interpolate_dgrad(module: Any, p: InterpolateProblem, stream: int, dy: Array) -> Array:
    dx = empty((p.N, p.H, p.W, p.C), dy.dtype, dy)
    module.interpolate_dgrad(p, dtype_name(dy.dtype), dy, dx, stream)
    return dx


def _short_axes(p: InterpolateProblem) -> str | None:
    longest = max(p.H, p.W, p.P, p.Q)
    return None if longest <= 1 << 29 else f"needs axes of at most 2^29 pixels, got one of {longest}"


def _nails(module: Any, p: NailsProblem, stream: int, x: Array) -> Array:
    y = empty((p.N, p.H * p.factor[0], p.W * p.factor[1], p.C), x.dtype, x)
    module.bed_of_nails_fprop(p, dtype_name(x.dtype), x, y, stream)
    return y


def _nails_dgrad(module: Any, p: NailsProblem, stream: int, dy: Array) -> Array:
    dx = empty((p.N, p.H, p.W, p.C), dy.dtype, dy)
    module.bed_of_nails_dgrad(p, dtype_name(dy.dtype), dy, dx, stream)
    return dx


_BY_BYTES: dict[int, Any] = {1: np.uint8, 2: np.float16, 4: np.int32, 8: np.int64}
"""As what elements of so many bytes are moved."""


def _shuffle(module: Any, p: ShuffleProblem, stream: int, x: Array) -> Array:
    y = empty((p.N, p.H * p.factor, p.W * p.factor, p.C), x.dtype, x)
    moved = _BY_BYTES[x.itemsize]
    module.pixel_shuffle(p, x.itemsize, x.view(moved), y.view(moved), stream)
    return y


def _unshuffle(module: Any, p: ShuffleProblem, stream: int, y: Array) -> Array:
    x = empty((p.N, p.H, p.W, p.C * p.factor**2), y.dtype, y)
    moved = _BY_BYTES[y.itemsize]
    module.pixel_unshuffle(p, y.itemsize, y.view(moved), x.view(moved), stream)
    return x


def _small_factor(p: ShuffleProblem) -> str | None:
    return None if p.factor <= 32 else f"needs a factor of at most 32, got {p.factor}"


interpolate_fprop = KernelTable("interpolate", "fprop")
compiled.add(interpolate_fprop, "direct", _interpolate, _short_axes, compiled.FLOATS)
interpolate_fprop.add("separable", "reference", reference.interpolate_fprop)

interpolate_dgrad = KernelTable("interpolate", "dgrad")
compiled.add(interpolate_dgrad, "direct", _interpolate_dgrad, _short_axes, compiled.FLOATS)
interpolate_dgrad.add("separable", "reference", reference.interpolate_dgrad)

nails_fprop = KernelTable("bed_of_nails", "fprop")
compiled.add(nails_fprop, "direct", _nails, dtypes=compiled.FLOATS)
nails_fprop.add("array", "reference", reference.nails_fprop)

nails_dgrad = KernelTable("bed_of_nails", "dgrad")
compiled.add(nails_dgrad, "direct", _nails_dgrad, dtypes=compiled.FLOATS)
nails_dgrad.add("array", "reference", reference.nails_dgrad)

shuffle = KernelTable("pixel_shuffle", "forward")
compiled.add(shuffle, "tiles", _shuffle, _small_factor)
shuffle.add("array", "reference", reference.shuffle)

unshuffle = KernelTable("pixel_unshuffle", "forward")
compiled.add(unshuffle, "tiles", _unshuffle, _small_factor)
unshuffle.add("array", "reference", reference.unshuffle)


Interpolate = linear_map("Interpolate", interpolate_fprop, interpolate_dgrad)
BedOfNails = linear_map("BedOfNails", nails_fprop, nails_dgrad)
PixelShuffle = linear_map("PixelShuffle", shuffle, unshuffle)
PixelUnshuffle = linear_map("PixelUnshuffle", unshuffle, shuffle)

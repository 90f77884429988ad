"""Bytes of images as the numbers that networks take."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gpucnn.backend import Array, accumulator, supported_dtype


class NormalizeProblem(NamedTuple):
    """The dtype of the result, and whether images come as planes (N,C,H,W) or pixels (N,H,W,C)."""

    dtype: str
    planar: bool


def normalize_images(p: NormalizeProblem, x: Array, scale: Array, shift: Array) -> Array:
    """x * scale + shift of each channel: uint8 to (N,H,W,C), computed in float32 or float64."""
    dtype = supported_dtype(p.dtype)
    work = np.dtype(np.float32) if dtype.kind == "V" else accumulator(dtype)
    pixels = x.transpose(0, 2, 3, 1) if p.planar else x
    y = pixels.astype(work, order="C")
    y *= scale
    y += shift
    return y.astype(dtype, copy=False)

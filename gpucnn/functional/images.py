"""Images of bytes made into what networks take."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpucnn import backend
from gpucnn.backend import FLOAT_KINDS, Array
from gpucnn.functional.checks import a_tensor
from gpucnn.ops.images import NormalizeImages
from gpucnn.tensor import Tensor, record


def normalize_images(
    input: Tensor, mean: float | Sequence[float], std: float | Sequence[float], dtype: str = "float32"
) -> Tensor:
    """(input / 255 - mean) / std for each channel, in one pass: bytes become floats that lie channels-last.

    Computed as input * (1 / (255 * std)) - mean / std with both constants rounded to float32, as `data.Normalize` does
    before images are moved; a fourth of the bytes are to be moved if it is done after.

    Args:
        input: uint8 images (N,C,H,W), in either memory order; loaded as N,H,W,C they are best wrapped as
            `Tensor(array.transpose(0, 3, 1, 2))`.
        mean: one number, or one for each channel, of images in 0..1.
        std: likewise; positive.
        dtype: of the result, a floating one.

    Raises:
        ValueError: not four axes, not as many numbers as channels, a number that is not finite or a std of 0 or less.
        TypeError: not a tensor of uint8, a dtype that is no floating one, numbers that are none.
    """
    x = a_tensor(input, "input", "normalize_images")
    if x.ndim != 4:
        raise ValueError(f"normalize_images: input must have shape (N, C, H, W), got {x.shape}")
    if x.dtype != np.uint8:
        raise TypeError(f"normalize_images: input must be uint8, got {x.dtype}")
    held = backend.supported_dtype(dtype)
    if held.kind not in FLOAT_KINDS:
        raise TypeError(f"normalize_images: dtype must be a floating one, got {held}")
    numbers = _numbers(mean, "mean", x.shape[1]), _numbers(std, "std", x.shape[1])
    if min(numbers[1], default=1.0) <= 0:
        raise ValueError(f"normalize_images: std must be positive, got {std!r}")
    scale, shift = _constants(*numbers, x.device)
    return record(NormalizeImages, (x, scale, shift), {"dtype": held.name})  # type: ignore[no-any-return]


def _numbers(value: Any, name: str, channels: int) -> tuple[float, ...]:
    """One for each channel."""
    try:
        given = np.atleast_1d(np.asarray(value, dtype=np.float64)).tolist()
    except (TypeError, ValueError):
        raise TypeError(f"normalize_images: {name} must be numbers, got {value!r}") from None
    numbers = tuple(given * channels if len(given) == 1 else given)
    if len(numbers) != channels or not all(isinstance(number, float) and math.isfinite(number) for number in numbers):
        raise ValueError(f"normalize_images: {name} must be finite, one or {channels} numbers, got {value!r}")
    return numbers


@functools.lru_cache(maxsize=64)
def _constants(mean: tuple[float, ...], std: tuple[float, ...], device: str) -> tuple[Array, Array]:
    scale = np.array([1 / (255 * s) for s in std], np.float32)
    shift = np.array([-m / s for m, s in zip(mean, std, strict=True)], np.float32)
    return backend.to_device(scale, device), backend.to_device(shift, device)

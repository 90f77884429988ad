"""Interpolation, bed of nails and pixel shuffle by their definitions, in float64; arguments mean what PyTorch's do."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucnn.testing.naive.sizes import IntPair, pair

Size = tuple[int, int]
Scale = tuple[float, float]


def interpolate(
    x: ArrayLike,
    size: Size,
    mode: str,
    scale: Scale | None = None,
    align_corners: bool = False,
    antialias: bool = False,
) -> NDArray[np.float64]:
    """y[n, c, p, q] = sum over h, w of a(p, h) * b(q, w) * x[n, c, h, w], (N, C, P, Q).

    a and b, the weights along the two axes, see `weight`.

    Args:
        size: (P, Q).
        mode: 'nearest', 'nearest-exact' or 'bilinear'.
        scale: what the sizes were multiplied by, where that decides instead of P/H and Q/W.
    """
    x = np.asarray(x, np.float64)
    a, b = (weights(*axis, mode, align_corners, antialias) for axis in _axes(x.shape[2:], size, scale))
    y = np.zeros((*x.shape[:2], *size))
    for p, q in np.ndindex(size):
        for h, w in np.ndindex(x.shape[2:]):
            if a[p, h] and b[q, w]:
                y[:, :, p, q] += a[p, h] * b[q, w] * x[:, :, h, w]
    return y


def interpolate_grad(
    dy: ArrayLike,
    image: Size,
    mode: str,
    scale: Scale | None = None,
    align_corners: bool = False,
    antialias: bool = False,
) -> NDArray[np.float64]:
    """dx[n, c, h, w] = sum over p, q of a(p, h) * b(q, w) * dy[n, c, p, q]; `image` is (H, W)."""
    dy = np.asarray(dy, np.float64)
    a, b = (weights(*axis, mode, align_corners, antialias) for axis in _axes(image, dy.shape[2:], scale))
    dx = np.zeros((*dy.shape[:2], *image))
    for p, q in np.ndindex(dy.shape[2:]):
        for h, w in np.ndindex(image):
            if a[p, h] and b[q, w]:
                dx[:, :, h, w] += a[p, h] * b[q, w] * dy[:, :, p, q]
    return dx


def weights(
    size: int, count: int, scale: float | None, mode: str, align_corners: bool, antialias: bool = False
) -> NDArray[np.float64]:
    """How much of each of `size` inputs is in each of `count` outputs along an axis, (count, size)."""
    found = np.zeros((count, size))
    for p, h in np.ndindex(count, size):
        if antialias:
            step = inputs_apart(size, count, scale, align_corners)
            found[p, h] = tent(p, h, step) / sum(tent(p, other, step) for other in range(size))
        elif mode == "bilinear":
            found[p, h] = max(0, 1 - abs(place(p, size, count, scale, align_corners) - h))
        else:
            found[p, h] = nearest(p, size, count, scale, exact=mode == "nearest-exact") == h
    return found


def tent(p: int, h: int, step: Fraction) -> Fraction:
    """How near input h is to output p: 1 where (p + 1/2) * step is h + 1/2, 0 from a distance of step, or 1, on."""
    half = Fraction(1, 2)
    return max(Fraction(0), 1 - abs((p + half) * step - (h + half)) / max(step, Fraction(1)))


def place(p: int, size: int, count: int, scale: float | None, align_corners: bool) -> Fraction:
    """Where among the inputs output p lies, exactly: bilinear weights fall to 0 at a distance of 1 from there."""
    step, half = inputs_apart(size, count, scale, align_corners), Fraction(1, 2)
    return p * step if align_corners else min(max((p + half) * step - half, Fraction(0)), Fraction(size - 1))


def inputs_apart(size: int, count: int, scale: float | None, align_corners: bool) -> Fraction:
    """By how many inputs two outputs beside each other lie apart."""
    if size == count:
        return Fraction(1)
    if align_corners:
        return Fraction(size - 1, count - 1) if count > 1 else Fraction(0)
    return Fraction(size, count) if scale is None else 1 / Fraction(scale)


def nearest(p: int, size: int, count: int, scale: float | None, exact: bool) -> int:
    """The input that output p repeats: floor(p * step) or, exact, floor((p + 1/2) * step), computed in float32.

    The rounding is part of the definition: it decides where p * step is a whole number. 'nearest' takes p itself where
    sizes are equal, and p // 2 where there are twice as many outputs, whatever the scale.
    """
    if not exact and count in (size, 2 * size):
        return p * size // count
    step = np.float32(size / count if scale is None else 1 / scale)
    return min(int(np.floor((np.float32(p) + np.float32(0.5 if exact else 0)) * step)), size - 1)


def _axes(image: tuple[int, ...], size: tuple[int, ...], scale: Scale | None) -> list[tuple[int, int, float | None]]:
    return [(image[axis], size[axis], None if scale is None else scale[axis]) for axis in (0, 1)]


def bed_of_nails(x: ArrayLike, factor: IntPair) -> NDArray[np.float64]:
    """y[n, c, h*factor, w*factor] = x[n, c, h, w], 0 elsewhere."""
    x = np.asarray(x, np.float64)
    down, right = pair(factor)
    y = np.zeros((*x.shape[:2], x.shape[2] * down, x.shape[3] * right))
    for h, w in np.ndindex(x.shape[2:]):
        y[:, :, h * down, w * right] = x[:, :, h, w]
    return y


def bed_of_nails_grad(dy: ArrayLike, factor: IntPair) -> NDArray[np.float64]:
    """dx[n, c, h, w] = dy[n, c, h*factor, w*factor]."""
    dy = np.asarray(dy, np.float64)
    down, right = pair(factor)
    dx = np.empty((*dy.shape[:2], dy.shape[2] // down, dy.shape[3] // right))
    for h, w in np.ndindex(dx.shape[2:]):
        dx[:, :, h, w] = dy[:, :, h * down, w * right]
    return dx


def pixel_shuffle(x: ArrayLike, factor: int) -> NDArray[np.float64]:
    """y[n, c, h*factor + i, w*factor + j] = x[n, (c*factor + i)*factor + j, h, w]; its gradient is the inverse."""
    x = np.asarray(x, np.float64)
    N, channels, H, W = x.shape
    y = np.empty((N, channels // factor**2, H * factor, W * factor))
    for c, P, Q in np.ndindex(y.shape[1:]):
        (h, i), (w, j) = divmod(P, factor), divmod(Q, factor)
        y[:, c, P, Q] = x[:, (c * factor + i) * factor + j, h, w]
    return y


def pixel_unshuffle(y: ArrayLike, factor: int) -> NDArray[np.float64]:
    """x[n, (c*factor + i)*factor + j, h, w] = y[n, c, h*factor + i, w*factor + j], the inverse of `pixel_shuffle`."""
    y = np.asarray(y, np.float64)
    N, C, P, Q = y.shape
    x = np.empty((N, C * factor**2, P // factor, Q // factor))
    for channel, h, w in np.ndindex(x.shape[1:]):
        c, i, j = channel // factor**2, channel // factor % factor, channel % factor
        x[:, channel, h, w] = y[:, c, h * factor + i, w * factor + j]
    return x

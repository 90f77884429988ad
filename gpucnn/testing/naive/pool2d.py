"""Pooling by its definition, in float64; meaning, indices and corners are PyTorch's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucnn.testing.naive.sizes import IntPair, pair, pool_output_size


def max_pool2d(
    x: ArrayLike,
    kernel: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The largest element of each window, and where it lies.

    y[n, c, p, q] = max over r, s of x[n, c, p*stride - padding + r*dilation, q*stride - padding + s*dilation]

    Only elements inside the image take part. The first of equal maxima is taken, in the order of r, then s; a NaN beats
    every number, and the last NaN of a window is the one pointed at. A window whose taps all fall outside the image
    (they can, with a dilation above the image's size) yields -inf and index -1.

    Args:
        x: images (N, C, H, W).
        stride: None for the kernel's size.

    Returns:
        Values and flat indices h*W + w, both (N, C, P, Q).
    """
    x = np.asarray(x, np.float64)
    N, C, H, W = _image_shape(x.shape)
    (R, S), (sh, sw) = pair(kernel), pair(kernel if stride is None else stride)
    (ph, pw), (dh, dw) = pair(padding), pair(dilation)
    P = pool_output_size(H, R, sh, ph, dh, ceil_mode)
    Q = pool_output_size(W, S, sw, pw, dw, ceil_mode)
    y, indices = np.empty((N, C, P, Q)), np.empty((N, C, P, Q), np.int64)
    for p, q in np.ndindex(P, Q):
        best, index = np.full((N, C), -np.inf), np.full((N, C), -1)
        for r, s in np.ndindex(R, S):
            h, w = p * sh - ph + r * dh, q * sw - pw + s * dw
            if 0 <= h < H and 0 <= w < W:
                value = x[:, :, h, w]
                wins = (value > best) | np.isnan(value) | (index < 0)
                best, index = np.where(wins, value, best), np.where(wins, h * W + w, index)
        y[:, :, p, q], indices[:, :, p, q] = best, index
    return y, indices


def max_pool2d_grad(dy: ArrayLike, indices: ArrayLike, x_shape: tuple[int, int, int, int]) -> NDArray[np.float64]:
    """Each dy[n, c, p, q] is added to the element that won its window; shape x_shape (N, C, H, W)."""
    dy, indices = np.asarray(dy, np.float64), np.asarray(indices)
    if dy.shape != indices.shape:
        raise ValueError(f"dy and indices must have one shape, got {dy.shape} and {indices.shape}")
    W = x_shape[3]
    dx = np.zeros(x_shape)
    for n, c, p, q in np.ndindex(dy.shape):
        index = indices[n, c, p, q]
        if index >= 0:
            dx[n, c, index // W, index % W] += dy[n, c, p, q]
    return dx


def avg_pool2d(
    x: ArrayLike,
    kernel: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> NDArray[np.float64]:
    """The sum of each window divided by its divisor, (N, C, P, Q).

    The divisor is `divisor_override` where given; else the number of the window's elements inside the image, and with
    `count_include_pad` those in the padding too. What a ceil_mode window has beyond the padding never counts.
    """
    x = np.asarray(x, np.float64)
    N, C, H, W = _image_shape(x.shape)
    windows = _Windows((H, W), kernel, stride, padding, ceil_mode, count_include_pad, divisor_override)
    y = np.empty((N, C, windows.P, windows.Q))
    for p, q, rows, columns, divisor in windows:
        y[:, :, p, q] = x[:, :, rows, columns].sum(axis=(2, 3)) / divisor
    return y


def avg_pool2d_grad(
    dy: ArrayLike,
    x_shape: tuple[int, int, int, int],
    kernel: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> NDArray[np.float64]:
    """Each dy[n, c, p, q] / divisor is added to every element of its window inside the image; shape x_shape."""
    dy = np.asarray(dy, np.float64)
    N, C, H, W = _image_shape(x_shape)
    windows = _Windows((H, W), kernel, stride, padding, ceil_mode, count_include_pad, divisor_override)
    if dy.shape != (N, C, windows.P, windows.Q):
        raise ValueError(f"dy must have the output's shape {(N, C, windows.P, windows.Q)}, got {dy.shape}")
    dx = np.zeros(x_shape)
    for p, q, rows, columns, divisor in windows:
        dx[:, :, rows, columns] += dy[:, :, p, q, None, None] / divisor
    return dx


class _Windows:
    """Iterates over (p, q, rows inside the image, columns inside the image, divisor) of average pooling."""

    def __init__(
        self,
        size: tuple[int, int],
        kernel: IntPair,
        stride: IntPair | None,
        padding: IntPair,
        ceil_mode: bool,
        count_include_pad: bool,
        divisor_override: int | None,
    ) -> None:
        if divisor_override == 0:
            raise ValueError("divisor_override must not be zero")
        self.size, self.kernel, self.padding = size, pair(kernel), pair(padding)
        self.stride = pair(kernel if stride is None else stride)
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override
        self.P, self.Q = (
            pool_output_size(*axis, ceil_mode=ceil_mode)
            for axis in zip(size, self.kernel, self.stride, self.padding, strict=True)
        )

    def __iter__(self) -> Iterator[tuple[int, int, slice, slice, int]]:
        for p, q in np.ndindex(self.P, self.Q):
            rows, height = self._span(0, p)
            columns, width = self._span(1, q)
            inside = (rows.stop - rows.start) * (columns.stop - columns.start)
            divisor = height * width if self.count_include_pad else inside
            yield p, q, rows, columns, self.divisor_override or divisor

    def _span(self, axis: int, position: int) -> tuple[slice, int]:
        """The window's part inside the image, and its length up to the end of the padding."""
        size, padding = self.size[axis], self.padding[axis]
        start = position * self.stride[axis] - padding
        stop = min(start + self.kernel[axis], size + padding)
        return slice(max(start, 0), min(stop, size)), stop - start


def _image_shape(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    if len(shape) != 4:
        raise ValueError(f"images must be 4-D (N, C, H, W), got shape {shape}")
    N, C, H, W = shape
    return N, C, H, W

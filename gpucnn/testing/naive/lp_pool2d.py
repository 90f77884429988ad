"""Power-average pooling by its definition, in float64; PyTorch's meaning of signs and of windows cut short."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucnn.testing.naive.sizes import IntPair, pair, pool_output_size


def lp_pool2d(
    x: ArrayLike, norm_type: float, kernel: IntPair, stride: IntPair | None = None, ceil_mode: bool = False
) -> NDArray[np.float64]:
    """(sum over the window of x**norm_type)**(1/norm_type), (N, C, P, Q).

    Of a window that reaches beyond the image the sum is that of its cells in the image times R*S over their number. An
    infinite norm_type is the largest |x| of the window, a negative infinite one the smallest.
    """
    x = np.asarray(x, np.float64)
    shape = _output_shape(x.shape, kernel, stride, ceil_mode)
    y = np.empty(shape)
    for p, q, cells in _windows(x.shape, shape, kernel, stride):
        values = [x[:, :, h, w] for h, w in cells]
        if np.isinf(norm_type):
            y[:, :, p, q] = (np.max if norm_type > 0 else np.min)(np.abs(values), axis=0)
        else:
            y[:, :, p, q] = _sum_of_powers(values, norm_type, kernel) ** (1 / norm_type)
    return y


def lp_pool2d_grad(
    dy: ArrayLike, x: ArrayLike, norm_type: float, kernel: IntPair, stride: IntPair | None = None
) -> NDArray[np.float64]:
    """dy/dx of a finite norm_type: R*S / cells * sum**(1/norm_type - 1) * x**(norm_type - 1), 0 where the sum is 0."""
    dy, x = np.asarray(dy, np.float64), np.asarray(x, np.float64)
    R, S = pair(kernel)
    dx = np.zeros(x.shape)
    for p, q, cells in _windows(x.shape, dy.shape, kernel, stride):
        total = _sum_of_powers([x[:, :, h, w] for h, w in cells], norm_type, kernel)
        some = total != 0
        outer = np.where(some, np.where(some, total, 1) ** (1 / norm_type - 1), 0) * dy[:, :, p, q]
        for h, w in cells:
            dx[:, :, h, w] += R * S / len(cells) * outer * x[:, :, h, w] ** (norm_type - 1)
    return dx


def _sum_of_powers(values: list[NDArray[np.float64]], norm_type: float, kernel: IntPair) -> NDArray[np.float64]:
    R, S = pair(kernel)
    return np.asarray(sum(value**norm_type for value in values) * R * S / len(values))


def _output_shape(
    x_shape: tuple[int, ...], kernel: IntPair, stride: IntPair | None, ceil_mode: bool
) -> tuple[int, ...]:
    steps = pair(kernel if stride is None else stride)
    sizes = (
        pool_output_size(size, taps, step, ceil_mode=ceil_mode)
        for size, taps, step in zip(x_shape[2:], pair(kernel), steps, strict=True)
    )
    return (*x_shape[:2], *sizes)


def _windows(
    x_shape: tuple[int, ...], y_shape: tuple[int, ...], kernel: IntPair, stride: IntPair | None
) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """(p, q, the cells (h, w) of that window in the image)."""
    (R, S), (down, right) = pair(kernel), pair(kernel if stride is None else stride)
    for p, q in np.ndindex(y_shape[2:]):
        cells = [(p * down + r, q * right + s) for r, s in np.ndindex(R, S)]
        yield p, q, [(h, w) for h, w in cells if h < x_shape[2] and w < x_shape[3]]

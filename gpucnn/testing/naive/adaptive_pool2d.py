"""Adaptive pooling by its definition, in float64; windows, indices and corners are PyTorch's."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def adaptive_avg_pool2d(x: ArrayLike, size: tuple[int, int]) -> NDArray[np.float64]:
    """The average of each of P x Q windows, (N, C, P, Q).

    Cut the axis of H positions, each of length 1, into P parts of length H/P: window p has every position of which some
    of its part p is made, however little.
    """
    x = np.asarray(x, np.float64)
    N, C, H, W = x.shape
    y = np.empty((N, C, *size))
    for p, q in np.ndindex(size):
        cells = [x[:, :, h, w] for h, w in np.ndindex(H, W) if _sees(p, h, H, size[0]) and _sees(q, w, W, size[1])]
        y[:, :, p, q] = sum(cells) / len(cells)
    return y


def adaptive_avg_pool2d_grad(dy: ArrayLike, x_shape: tuple[int, int, int, int]) -> NDArray[np.float64]:
    """Each dy[n, c, p, q] over the number of its window's cells is added to all of them; shape x_shape."""
    dy = np.asarray(dy, np.float64)
    H, W, P, Q = *x_shape[2:], *dy.shape[2:]
    dx = np.zeros(x_shape)
    for p, q in np.ndindex(P, Q):
        cells = [(h, w) for h, w in np.ndindex(H, W) if _sees(p, h, H, P) and _sees(q, w, W, Q)]
        for h, w in cells:
            dx[:, :, h, w] += dy[:, :, p, q] / len(cells)
    return dx


def adaptive_max_pool2d(x: ArrayLike, size: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The largest element of each window of `adaptive_avg_pool2d`, and its h*W + w, both (N, C, P, Q).

    The first of equal maxima in row-major order; a NaN beats every number, and the last of them is pointed at. The
    gradient is `max_pool2d_grad`.
    """
    x = np.asarray(x, np.float64)
    N, C, H, W = x.shape
    y, indices = np.full((N, C, *size), -np.inf), np.full((N, C, *size), -1)
    for n, c, p, q in np.ndindex(y.shape):
        for h, w in np.ndindex(H, W):
            if _sees(p, h, H, size[0]) and _sees(q, w, W, size[1]):
                value, first = x[n, c, h, w], indices[n, c, p, q] < 0
                if first or value > y[n, c, p, q] or np.isnan(value):
                    y[n, c, p, q], indices[n, c, p, q] = value, h * W + w
    return y, indices


def _sees(window: int, position: int, size: int, count: int) -> bool:
    """Whether [position, position + 1) and [window * size/count, (window + 1) * size/count) have a point in common."""
    return position * count < (window + 1) * size and window * size < (position + 1) * count

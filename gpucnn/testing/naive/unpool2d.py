"""Maximum unpooling by its definition, in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def max_unpool2d(x: ArrayLike, indices: ArrayLike, size: tuple[int, int]) -> NDArray[np.float64]:
    """y (N, C, H, W): each x[n, c, p, q] at the position h*W + w that its index names, 0 elsewhere.

    Values are put down in the order of p, then q; a later one replaces an earlier one.
    """
    x, indices = np.asarray(x, np.float64), np.asarray(indices)
    y = np.zeros((*x.shape[:2], *size))
    for n, c, p, q in np.ndindex(x.shape):
        h, w = divmod(int(indices[n, c, p, q]), size[1])
        y[n, c, h, w] = x[n, c, p, q]
    return y


def max_unpool2d_grad(dy: ArrayLike, indices: ArrayLike) -> NDArray[np.float64]:
    """What dy has at each index, also for values that were replaced, as PyTorch has it; the shape of indices."""
    dy, indices = np.asarray(dy, np.float64), np.asarray(indices)
    dx = np.empty(indices.shape)
    for n, c, p, q in np.ndindex(dx.shape):
        h, w = divmod(int(indices[n, c, p, q]), dy.shape[3])
        dx[n, c, p, q] = dy[n, c, h, w]
    return dx

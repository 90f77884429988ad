"""Maximum unpooling: pooled values (N,P,Q,C) go back to where their indices point in images (N,H,W,C)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gpucnn.backend import Array, empty, namespace, zeros
from gpucnn.reference.common import is_large
from gpucnn.reference.parallel import for_each


@dataclass(frozen=True)
class Unpool2dProblem:
    """N images of P x Q x C become H x W."""

    N: int
    P: int
    Q: int
    C: int
    H: int
    W: int


def unpool_fprop(p: Unpool2dProblem, x: Array, indices: Array) -> Array:
    """y: x at the flat positions `indices` (N,P,Q,C) of each channel, 0 elsewhere; the last of equal indices stays."""
    xp = namespace(x)
    y = zeros((p.N, p.H * p.W * p.C), x.dtype, x)
    number = np.int32 if p.P * p.Q * p.C < 1 << 31 else np.int64
    numbers = xp.arange(1, p.P * p.Q * p.C + 1, dtype=number)

    def run(image: int) -> None:
        places = _places(p, indices[image])
        # Neither numpy nor cupy says which of several writes to an element stays: let all of them write the last value.
        last = xp.zeros(p.H * p.W * p.C, number)
        xp.maximum.at(last, places, numbers)
        y[image][places] = x[image].reshape(-1)[last[places] - 1]

    _for_each_image(p, x, run)
    return y.reshape(p.N, p.H, p.W, p.C)


def unpool_dgrad(p: Unpool2dProblem, dy: Array, indices: Array) -> Array:
    """dx (N,P,Q,C): dy at the indices."""
    dx = empty((p.N, p.P, p.Q, p.C), dy.dtype, dy)

    def run(image: int) -> None:
        dx[image] = dy[image].reshape(-1)[_places(p, indices[image])].reshape(p.P, p.Q, p.C)

    _for_each_image(p, dy, run)
    return dx


def _places(p: Unpool2dProblem, indices: Array) -> Array:
    """Flat positions in an image (H,W,C) of what indices (P,Q,C) into its channels point at."""
    return (indices * p.C + namespace(indices).arange(p.C)).reshape(-1)


def _for_each_image(p: Unpool2dProblem, like: Array, run: Callable[[int], None]) -> None:
    scratch = p.N * (p.H * p.W + 3 * p.P * p.Q) * p.C * 8
    for_each(run, range(p.N), like, share=is_large(scratch))

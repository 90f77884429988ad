"""Power-average pooling: y = (sum of x**p over the window)**(1/p); x and dx (N,H,W,C), y and dy (N,P,Q,C)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpucnn.backend import Array, accumulator, empty, namespace
from gpucnn.problem import Pool2dProblem
from gpucnn.reference.common import blocks, is_large, padded, select
from gpucnn.reference.parallel import for_each
from gpucnn.reference.pool2d import divisors, max_dgrad, max_fprop_winners, scattered, spread, window_sums


@dataclass(frozen=True)
class LpPool2dProblem:
    """The windows, and the power p: any number but 0."""

    windows: Pool2dProblem
    norm_type: float


def finite(p: LpPool2dProblem) -> str | None:
    return None if math.isfinite(p.norm_type) else f"needs a finite norm_type, got {p.norm_type}"


def infinite(p: LpPool2dProblem) -> str | None:
    return None if math.isinf(p.norm_type) else f"needs an infinite norm_type, got {p.norm_type}"


def lp_fprop(p: LpPool2dProblem, x: Array) -> tuple[Array, Array]:
    """(y, sums): sums (N,P,Q,C) of x**p over each window, in the dtype that sums are kept in.

    PyTorch's rule: the average over the window's cells in the image times R * S, so that a window which `ceil_mode` let
    reach beyond the image counts as if it were full.
    """
    windows = p.windows
    y = empty((windows.N, windows.P, windows.Q, windows.C), x.dtype, x)
    sums = empty(y.shape, accumulator(x.dtype), x)
    scale = windows.R * windows.S / divisors(windows, True, None, x)

    def run(block: slice) -> None:
        powers = _power(x[block].astype(sums.dtype, copy=False), p.norm_type)
        sums[block] = window_sums(windows, padded(powers, windows)) * scale
        y[block] = _power(sums[block], 1 / p.norm_type)

    image_bytes = (windows.H * windows.W + 3 * windows.P * windows.Q) * windows.C * int(sums.itemsize)
    for_each(run, blocks(windows.N, image_bytes), x, share=is_large(windows.N * image_bytes))
    return y, sums


def lp_dgrad(p: LpPool2dProblem, dy: Array, x: Array, sums: Array) -> Array:
    """dx: each cell's x**(p-1) times the sum of sums**(1/p-1) * dy over its windows.

    A window whose sum is 0 hands nothing on, where that power would be infinite.
    """
    windows = p.windows
    scale = windows.R * windows.S / divisors(windows, True, None, dy)

    def scatter(full: Array, block: slice) -> None:
        share = _power(sums[block], 1 / p.norm_type - 1) * scale * dy[block]
        spread(windows, full, select(share, sums[block] != 0))
        full[:, : windows.H, : windows.W] *= _power(x[block].astype(sums.dtype, copy=False), p.norm_type - 1)

    return scattered(windows, dy, scatter)


def magnitude_fprop(p: LpPool2dProblem, x: Array) -> tuple[Array, Array]:
    """(y, winners): the largest |x| of each window (p = inf) or the smallest (-inf); winners as max_fprop_winners."""
    if p.norm_type > 0:
        return max_fprop_winners(p.windows, abs(x))
    y, winners = max_fprop_winners(p.windows, -abs(x))
    return -y, winners


def magnitude_dgrad(p: LpPool2dProblem, dy: Array, x: Array, winners: Array) -> Array:
    """dx: each window's gradient goes to its winner, with its sign."""
    return max_dgrad(p.windows, dy, winners) * namespace(x).sign(x)


def _power(a: Array, exponent: float) -> Array:
    """a**exponent; squares and roots are many times quicker than the general power."""
    if exponent == 1:
        return a
    if exponent == 2:
        return a * a
    if exponent == 0.5:
        return namespace(a).sqrt(a)
    if exponent == -0.5:
        return 1 / namespace(a).sqrt(a)
    return a**exponent

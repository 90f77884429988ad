"""Local response normalisation across channels: x, y, dx and dy (M,C)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gpucnn.backend import Array, accumulator, empty, zeros
from gpucnn.reference.common import blocks, is_large
from gpucnn.reference.parallel import for_each


@dataclass(frozen=True)
class LocalResponseProblem:
    """y[c] = x[c] / (k + alpha / size * sum of x[j]**2 over j in [c - size // 2, c + (size - 1) // 2])**beta."""

    size: int
    alpha: float
    beta: float
    k: float


def fprop(p: LocalResponseProblem, x: Array) -> Array:
    """y."""
    y = empty(x.shape, x.dtype, x)

    def run(rows: slice) -> None:
        cells = x[rows].astype(accumulator(x.dtype), copy=False)
        y[rows] = cells / _base(p, cells) ** p.beta

    _each_block(x, run)
    return y


def dgrad(p: LocalResponseProblem, dy: Array, x: Array) -> Array:
    """dx[c] = dy[c] / s[c]**beta - 2 alpha beta / size * x[c] * sum of dy[j] * x[j] / s[j]**(beta + 1).

    s is what y divides by, before the power; j are the channels whose windows hold c.
    """
    dx = empty(x.shape, x.dtype, x)
    work = accumulator(x.dtype)

    def run(rows: slice) -> None:
        cells = x[rows].astype(work, copy=False)
        base = _base(p, cells)
        direct = dy[rows] / base**p.beta
        through = _window_sums(direct * cells / base, (p.size - 1) // 2, p.size // 2)
        dx[rows] = direct - cells * through * (2.0 * p.alpha * p.beta / p.size)

    _each_block(x, run)
    return dx


def _base(p: LocalResponseProblem, x: Array) -> Array:
    """k + alpha / size * the sum of squares."""
    base = _window_sums(x * x, p.size // 2, (p.size - 1) // 2) * (p.alpha / p.size)
    base += p.k
    return base


def _window_sums(values: Array, before: int, after: int) -> Array:
    """For each channel the sum of values (M,C) from `before` channels ahead of it to `after` behind, none beyond ends.

    Rows with zeros at their ends, seen as one long row: as many additions of shifted memory as the window is wide.
    """
    M, C = values.shape
    before, after = min(before, C - 1), min(after, C - 1)
    padded = zeros((M, before + C + after), values.dtype, values)
    padded[:, before : before + C] = values
    flat = padded.reshape(-1)
    total = flat.copy()
    length = flat.size - before - after
    for shift in range(1, before + after + 1):
        total[:length] += flat[shift : shift + length]
    return total.reshape(padded.shape)[:, :C]


def _each_block(x: Array, run: Callable[[slice], None]) -> None:
    M, C = x.shape
    if x.size:
        for_each(run, blocks(M, 4 * C * accumulator(x.dtype).itemsize), x, share=is_large(4 * x.nbytes))

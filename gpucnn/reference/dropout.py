"""Dropout masks that are a function of seed, call and element alone: every backend draws the same."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn.backend import Array, empty, namespace
from gpucnn.random import philox4x32, split64
from gpucnn.reference.common import blocks, select
from gpucnn.reference.parallel import for_each

_DRAWN = 1 << 13  # numbers drawn at a time on the CPU: what ten rounds leave on the way stays in the cache
_SHARED = 1 << 16  # numbers that are worth several threads


@dataclass(frozen=True)
class DropoutProblem:
    """Element i, counted in the logical order of `shape`, is dropped if word 0 of Philox 4x32-10 at counter
    (i low, i high, call low, call high) under the key `seed` is below p * 2**32.

    `shape` is that of the mask: (N,C,H,W) to drop single elements, (N,C) to drop whole channels.
    """

    shape: tuple[int, ...]
    p: float
    seed: int
    call: int
    order: tuple[int, ...] | None = None
    """The axes of x as they lie in memory, which is how forward and backward get it; None is in their own order."""


def mask(problem: DropoutProblem, like: Array) -> Array:
    """Bool array of the problem's shape: True where an element is kept."""
    xp: Any = namespace(like)
    count = math.prod(problem.shape)
    kept = empty((count,), np.dtype(bool), like)
    call, seed, threshold = split64(problem.call), split64(problem.seed), np.uint64(int(problem.p * 2.0**32))

    def run(block: slice) -> None:
        index = xp.arange(block.start, block.stop, dtype=np.uint64)
        word = philox4x32((index & np.uint64(0xFFFFFFFF), index >> np.uint64(32), *call), seed)[0]
        kept[block] = word >= threshold

    together = _DRAWN if isinstance(like, np.ndarray) else max(1, count)
    for_each(run, blocks(count, 1, together), like, share=count > _SHARED)
    return kept.reshape(problem.shape)


def forward(problem: DropoutProblem, x: Array) -> tuple[Array, Array]:
    """(y, keep): x / (1 - p) where kept, else 0; and the mask, laid out like x, for `backward`."""
    keep = mask(problem, x)
    keep = keep.reshape(keep.shape + (1,) * (x.ndim - keep.ndim))
    if problem.order:
        keep = keep.transpose(problem.order)
        if keep.size == x.size and not keep.flags.c_contiguous:
            keep = keep.copy()  # drawn in logical order, read in that of memory
    return _apply(problem, x, keep), keep


def backward(problem: DropoutProblem, dy: Array, keep: Array | None) -> Array:
    """dy / (1 - p) where the mask kept, else 0; it is drawn again where forward has left none."""
    return forward(problem, dy)[0] if keep is None else _apply(problem, dy, keep)


def _apply(problem: DropoutProblem, x: Array, keep: Array) -> Array:
    """`keep` may broadcast."""
    if problem.p == 1.0:
        return namespace(x).zeros_like(x)
    return select(x, keep) * x.dtype.type(1.0 / (1.0 - problem.p))

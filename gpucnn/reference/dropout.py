"""Dropout masks that are a function of seed, call and element alone: every backend draws the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn.backend import Array, namespace
from gpucnn.random import philox4x32, split64
from gpucnn.reference.common import select


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


def mask(problem: DropoutProblem, like: Array) -> Array:
    """Bool array of the problem's shape: True where an element is kept."""
    xp: Any = namespace(like)
    index = xp.arange(int(np.prod(problem.shape, dtype=np.int64)), dtype=np.uint64)
    counter = (index & np.uint64(0xFFFFFFFF), index >> np.uint64(32), *split64(problem.call))
    word = philox4x32(counter, split64(problem.seed))[0]
    return (word >= np.uint64(int(problem.p * 2.0**32))).reshape(problem.shape)


def apply(problem: DropoutProblem, x: Array, keep: Array) -> Array:
    """x / (1 - p) where kept, else 0, `keep` broadcasting; forward and gradient are the same."""
    if problem.p == 1.0:
        return namespace(x).zeros_like(x)
    return select(x, keep) * x.dtype.type(1.0 / (1.0 - problem.p))

"""What a batch, instance or group normalisation is: one description for every kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from gpucnn.backend import Array


@dataclass(frozen=True)
class NormProblem:
    """Statistics over the M positions, and C/groups adjacent channels, of each of B sets."""

    B: int
    M: int
    C: int
    groups: int
    eps: float = 1e-5
    momentum: float | None = 0.0
    """None: by the running statistics. A number: by the sets' own, and move the running ones by it."""
    limit: float | None = None
    """Of y, which is cut to [0, limit]: inf makes a ReLU, 6 a ReLU6, None leaves it."""

    @property
    def own_statistics(self) -> bool:
        return self.momentum is not None


class Wanted(NamedTuple):
    """Which gradients a backward pass is to compute."""

    x: bool
    weight: bool
    bias: bool
    residual: bool = False


class Moments(NamedTuple):
    """Of an array (M,C) whose statistics a batch norm needs: what it would else read the array for."""

    partial: Array
    """(2 * splits + 1, C): for each split the mean of its rows' differences from the last line, and the sum of squared
    differences from that mean."""
    rows: int
    """Of each split, but the last, which has those that are left."""

    @property
    def splits(self) -> int:
        return len(self.partial) // 2

"""What a batch, instance or group normalisation is: one description for every kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


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

"""Adaptive poolings that the tests run: windows of several sizes and of one, and images full of ties or infinities."""

from __future__ import annotations

import math

import numpy as np
from op_checks import SEED

from gpucnn.testing import pairwise

INF, NAN = math.inf, math.nan
Case = tuple[int, int, int, int, int, int]
"""N, C, H, W, P, Q."""

UNEVEN: list[Case] = [
    (2, 3, 5, 7, 3, 3),
    (1, 1, 7, 5, 4, 4),
    (2, 2, 3, 2, 7, 5),  # more windows than positions
    (1, 3, 1, 1, 3, 2),
    (1, 2, 10, 1, 3, 1),
    (2, 2, 33, 4, 2, 3),
    (0, 2, 5, 5, 2, 2),
    (2, 33, 4, 6, 4, 5),
    (1, 2, 6, 6, 6, 4),  # windows of one row
    (1, 1, 20, 19, 2, 3),
]
EVEN: list[Case] = [(2, 3, 4, 6, 2, 3), (2, 3, 5, 4, 1, 1), (1, 2, 3, 3, 3, 3), (2, 2, 6, 5, 2, 1), (0, 2, 4, 4, 1, 1)]


def sampled(count: int) -> list[Case]:
    factors = {
        "N": (1, 2),
        "C": (1, 3, 8),
        "H": (1, 2, 5, 8, 13, 17),
        "W": (1, 3, 6, 7, 11, 16),
        "P": (1, 2, 3, 6, 7, 9),
        "Q": (1, 2, 3, 5, 8),
    }
    found = [tuple(case.values()) for case in pairwise(factors, SEED)]
    return [case for case in found if case[2] % case[4] or case[3] % case[5]][:count]  # type: ignore[misc]


UNEVEN += sampled(25)


def values(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Most windows hold their maximum twice ('ties'), are all -inf, or hold NaN beside infinities ('special')."""
    rng = np.random.default_rng([SEED, *shape])
    if kind == "special":
        return rng.choice([-INF, -INF, -INF, -1, 0, 1, INF, NAN], shape)
    return rng.integers(-2, 3, shape).astype(np.float64)

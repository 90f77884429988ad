"""Interpolations that the tests run, in every mode, and the truth of each."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from op_checks import SEED, draw

from gpucnn.reference.upsample import InterpolateProblem
from gpucnn.testing import naive, pairwise

MODES: dict[str, dict[str, Any]] = {
    "nearest": {"mode": "nearest"},
    "nearest-exact": {"mode": "nearest-exact"},
    "bilinear": {"mode": "bilinear"},
    "corners": {"mode": "bilinear", "align_corners": True},
    "antialias": {"mode": "bilinear", "antialias": True},
    "antialias corners": {"mode": "bilinear", "align_corners": True, "antialias": True},
}
Case = tuple[int, int, int, int, int, int, "tuple[float, float] | None"]
"""N, C, H, W, P, Q, the scale if it is what was given."""

CASES: list[Case] = [
    (2, 3, 4, 5, 8, 10, None),
    (1, 1, 1, 1, 4, 3, None),
    (2, 2, 5, 6, 1, 1, None),
    (1, 3, 4, 4, 4, 4, None),  # nothing to do
    (1, 3, 3, 5, 3, 10, None),  # along one axis alone
    (0, 3, 4, 5, 8, 10, None),
    (2, 1, 7, 9, 3, 4, (0.5, 0.5)),
    (1, 2, 5, 5, 5, 11, (1.1, 2.3)),  # as many rows as before, but not where they were
    (1, 33, 3, 2, 7, 5, (2.5, 2.5)),
    (1, 2, 2, 3, 9, 31, None),
    (1, 1, 33, 17, 4, 5, None),  # most of the input goes nowhere
    (3, 2, 6, 4, 18, 8, (3.0, 2.0)),
    (1, 520, 2, 3, 3, 4, None),  # more channels than weights are written out for
]


def sampled(count: int) -> list[Case]:
    factors = {
        "N": (1, 2),
        "C": (1, 3, 8),
        "H": (1, 2, 5, 8, 13),
        "W": (1, 3, 6, 7, 11),
        "scale": (None, 0.3, 0.7, 1.0, 1.5, 2.0, 2.6, 4.0),
        "P": (1, 2, 5, 9, 20),
        "Q": (1, 3, 7, 16),
    }
    found: list[Case] = []
    for case in pairwise(factors, SEED):
        N, C, H, W, scale, P, Q = case.values()
        if scale:
            P, Q = math.floor(H * scale), math.floor(W * 2 * scale)
        if min(P, Q) >= 1 and H * W * P * Q <= 40_000:
            found.append((N, C, H, W, P, Q, (scale, 2 * scale) if scale else None))
    return found[:count]


CASES += sampled(20)


def problem(case: Case, mode: str, align_corners: bool = False, antialias: bool = False) -> InterpolateProblem:
    N, C, H, W, P, Q, scale = case
    return InterpolateProblem(N, H, W, C, P, Q, mode, align_corners, scale, antialias)


@functools.cache
def truth(case: Case, mode: str, align_corners: bool = False, antialias: bool = False) -> tuple[np.ndarray, ...]:
    """x, y, dy, dx."""
    N, C, H, W, P, Q, scale = case
    x, dy = draw("normal", (N, C, H, W)), draw("normal", (N, C, P, Q), 1)
    how = (mode, scale, align_corners, antialias)
    return x, naive.interpolate(x, (P, Q), *how), dy, naive.interpolate_grad(dy, (H, W), *how)

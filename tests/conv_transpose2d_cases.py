"""Transposed convolutions that the tests run: corners, a pairwise sample, and the truth of each."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from op_checks import SEED, draw

from gpucnn.problem import Conv2dProblem, conv_transpose2d_problem
from gpucnn.testing import naive, pairwise

Pair = tuple[int, int]


@dataclass(frozen=True)
class Case:
    """N images of C channels, H x W; filters of R x S taps to K channels. Its str() is a pytest id."""

    N: int
    C: int
    H: int
    W: int
    K: int
    R: int
    S: int
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    output_padding: Pair = (0, 0)
    groups: int = 1
    dilation: Pair = (1, 1)
    bias: bool = True

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        return self.N, self.C, self.H, self.W

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        return self.C, self.K // self.groups, self.R, self.S

    @property
    def arguments(self) -> dict[str, Any]:
        names = ("stride", "padding", "output_padding", "groups", "dilation")
        return {name: getattr(self, name) for name in names}

    @property
    def problem(self) -> Conv2dProblem:
        return conv_transpose2d_problem(self.x_shape, self.weight_shape, *self.arguments.values())

    def __str__(self) -> str:
        shape = f"n{self.N}c{self.C}h{self.H}w{self.W}-k{self.K}r{self.R}s{self.S}"
        rest = (self.stride, self.padding, self.output_padding, self.dilation)
        text = "-".join(f"{name}{a}x{b}" for name, (a, b) in zip(("stride", "pad", "out", "dil"), rest, strict=True))
        return f"{shape}-{text}-groups{self.groups}" + "-nobias" * (not self.bias)


CORNERS = [
    Case(1, 1, 1, 1, 1, 1, 1),
    Case(2, 3, 4, 5, 4, 3, 3),
    Case(3, 5, 4, 3, 2, 1, 1),
    Case(1, 2, 6, 7, 3, 1, 1, bias=False),
    Case(1, 2, 3, 4, 2, 1, 1, output_padding=(1, 0), dilation=(2, 2)),  # a 1x1 whose output is larger than its input
    Case(2, 4, 5, 4, 3, 4, 4, (2, 2), (1, 1)),  # FCN's and DCGAN's upsampling by 2
    Case(1, 2, 3, 4, 2, 16, 16, (8, 8), (4, 4), groups=2, bias=False),  # FCN-8s, bilinear and depthwise
    Case(2, 3, 4, 4, 5, 2, 2, (2, 2)),  # U-Net's, without overlap
    Case(2, 3, 4, 3, 4, 3, 3, (2, 2), (1, 1), (1, 1)),  # the transpose of ResNet's 3x3 at stride 2
    Case(0, 3, 4, 4, 5, 3, 3, (2, 2), (1, 1), (1, 1)),
    Case(1, 3, 3, 4, 2, 2, 1, (3, 3)),  # gaps between the taps, filled with the bias alone
    Case(1, 2, 2, 3, 2, 2, 2, (3, 2), (0, 0), (2, 1)),  # rows and columns that nothing reaches
    Case(2, 2, 3, 3, 3, 2, 2, (1, 1), (0, 0), (2, 1), dilation=(3, 2)),  # the same at stride 1, allowed by dilation
    Case(2, 4, 5, 5, 4, 3, 3, (1, 1), (3, 3)),  # cropped beyond the kernel's span: part of x is read by nothing
    Case(1, 2, 3, 3, 2, 3, 3, (2, 2), (3, 3), (1, 1)),
    Case(2, 6, 3, 4, 6, 3, 2, (2, 1), (1, 0), (1, 0), groups=6),
    Case(2, 6, 3, 4, 3, 3, 2, (2, 1), (1, 0), groups=3, bias=False),
    Case(2, 4, 3, 3, 8, 3, 3, (2, 2), (1, 1), groups=4),
    Case(1, 3, 4, 4, 2, 3, 3, (2, 3), (2, 1), (1, 2), dilation=(2, 3)),
    Case(3, 33, 3, 2, 31, 2, 3, (2, 1), (0, 1)),
    Case(1, 129, 2, 2, 1, 3, 3, padding=(1, 1)),
    Case(1, 1, 2, 33, 129, 1, 3, (1, 2)),
]
FACTORS = {
    "N": (1, 2, 3),
    "channels": (1, 2, 3, 7, 31, 33),
    "filters": (1, 2, 3, 7, 31, 33),
    "H": (1, 2, 5, 7, 16, 17),
    "W": (1, 2, 5, 7, 16, 17),
    "R": (1, 2, 3, 4, 5),
    "S": (1, 2, 3, 4, 5),
    "stride": ((1, 1), (2, 2), (1, 2), (3, 1)),
    "padding": ((0, 0), (1, 1), (2, 0), (0, 1), (2, 3)),
    "output_padding": ((0, 0), (1, 1), (0, 1), (2, 0)),
    "dilation": ((1, 1), (2, 2), (1, 3), (2, 1)),
    "groups": (1, 2, 3),
    "bias": (True, False),
}


def sampled(factors: dict[str, Any]) -> Case | None:
    rest = dict(factors)
    channels, filters = rest.pop("channels"), rest.pop("filters")
    case = Case(C=channels * rest["groups"], K=filters * rest["groups"], **rest)
    try:
        p = case.problem
    except ValueError:
        return None
    small = case.H * case.W * case.R * case.S <= 800 and p.P * p.Q * p.K * p.R * p.S * p.C <= 200_000
    return case if small else None


CASES = CORNERS + [case for f in pairwise(FACTORS, SEED, lambda f: sampled(f) is not None) if (case := sampled(f))]


class Truth(NamedTuple):
    """Inputs and results of one case in float64, logical order."""

    x: np.ndarray
    w: np.ndarray
    b: np.ndarray
    dy: np.ndarray
    y: np.ndarray
    dx: np.ndarray
    dw: np.ndarray
    db: np.ndarray


@functools.cache
def truth(case: Case, kind: str) -> Truth:
    x, w, b = draw(kind, case.x_shape), draw(kind, case.weight_shape, 1), draw(kind, (case.K,), 2)
    y = naive.conv_transpose2d(x, w, b if case.bias else None, **case.arguments)
    dy = draw(kind, y.shape, 3)
    return Truth(
        *(x, w, b, dy, y),
        naive.conv_transpose2d_input_grad(dy, w, case.x_shape, **case.arguments),
        naive.conv_transpose2d_weight_grad(dy, x, case.weight_shape, **case.arguments),
        naive.conv2d_bias_grad(dy),
    )


def terms_of(case: Case) -> dict[str, int]:
    """How many products make an element of each result, at most."""
    p = case.problem
    return {
        "y": p.K // p.groups * p.R * p.S + 1,
        "dx": p.C // p.groups * p.R * p.S,
        "dw": p.N * p.P * p.Q,
        "db": p.N * p.H * p.W,
    }

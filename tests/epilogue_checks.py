"""What the tests of a convolution's epilogue share: cases, and their truth."""

from __future__ import annotations

import functools
from typing import Any

from op_checks import draw

from gpucnn.problem import Conv2dProblem, conv2d_problem
from gpucnn.testing import ConvCase, naive

CASES = [
    ConvCase(2, 8, 7, 6, 16, 3, 3, padding=(1, 1)),
    ConvCase(3, 16, 5, 5, 8, 1, 1),
    ConvCase(2, 6, 7, 6, 6, 3, 3, stride=(2, 1), padding=(1, 1), groups=6),
    ConvCase(1, 3, 9, 9, 5, 3, 2, bias=False),
    ConvCase(2, 4, 6, 5, 8, 3, 3, groups=2),
    ConvCase(70, 8, 2, 2, 24, 2, 2),  # one window an image
    ConvCase(3, 32, 7, 7, 64, 3, 3, padding=(1, 1), groups=4),
    ConvCase(2, 40, 9, 9, 40, 3, 3, stride=(2, 2), groups=5),
    ConvCase(1, 256, 4, 4, 16, 3, 3),  # few windows with long sums, which are cut
]


class Truth:
    """Inputs and results of one case in float64, logical order."""

    def __init__(self, case: ConvCase, kind: str) -> None:
        self.x, self.w = draw(kind, case.x_shape), draw(kind, case.weight_shape, 1)
        self.bias = draw(kind, (case.K,), 2) if case.bias else None
        self.residual = draw(kind, case.y_shape, 3)
        self.scale, self.shift = draw(kind, (case.K,), 4), draw(kind, (case.K,), 5)
        self.sums = naive.conv2d(self.x, self.w, self.bias, **case.arguments)

    def given(self, wish: tuple[str, ...]) -> dict[str, Any]:
        scaled = {"scale": self.scale, "shift": self.shift} if "scale" in wish else {}
        return scaled | ({"residual": self.residual} if "residual" in wish else {})


truth_of = functools.cache(Truth)


def problem_of(case: ConvCase) -> Conv2dProblem:
    return conv2d_problem(case.x_shape, case.weight_shape, case.stride, case.padding, case.dilation, case.groups)

"""Cases to test ops with: fixed corners always, then a pairwise sample of the product of everything else."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import count as count_up
from typing import Any, Literal, TypeVar

from gpucnn.testing.naive.sizes import conv_output_size, pool_output_size
from gpucnn.testing.pairwise import pairwise

SIZES = (1, 2, 7, 31, 32, 33, 127, 128, 129)
"""Sizes on, just below and just above the tiles that kernels are cut into, and the smallest."""

Pair = tuple[int, int]


@dataclass(frozen=True)
class ConvCase:
    """One convolution: N images of C channels, H x W; K filters of R x S taps. Its str() is a pytest id."""

    N: int
    C: int
    H: int
    W: int
    K: int
    R: int
    S: int
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = True

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return self.N, self.C, self.H, self.W

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(K, C/groups, R, S)."""
        return self.K, self.C // self.groups, self.R, self.S

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        """(N, K, P, Q); a ValueError where the kernel does not fit."""
        P = conv_output_size(self.H, self.R, self.stride[0], self.padding[0], self.dilation[0])
        Q = conv_output_size(self.W, self.S, self.stride[1], self.padding[1], self.dilation[1])
        return self.N, self.K, P, Q

    @property
    def arguments(self) -> dict[str, Any]:
        """stride, padding, dilation and groups, as keyword arguments."""
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    @property
    def terms(self) -> int:
        """How many products make one output: C/groups*R*S."""
        return self.C // self.groups * self.R * self.S

    def __str__(self) -> str:
        parts = [f"n{self.N}c{self.C}h{self.H}w{self.W}", f"k{self.K}r{self.R}s{self.S}"]
        parts += _non_default(stride=(self.stride, (1, 1)), pad=(self.padding, (0, 0)), dil=(self.dilation, (1, 1)))
        parts += [f"groups{self.groups}"] * (self.groups != 1) + ["nobias"] * (not self.bias)
        return "-".join(parts)


@dataclass(frozen=True)
class PoolCase:
    """One pooling; dilation is max pooling's, count_include_pad and divisor_override are average pooling's."""

    N: int
    C: int
    H: int
    W: int
    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: int | None = None

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return self.N, self.C, self.H, self.W

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        """(N, C, P, Q); a ValueError where no window fits."""
        P, Q = (
            pool_output_size(*axis, ceil_mode=self.ceil_mode)
            for axis in zip((self.H, self.W), self.kernel, self.stride, self.padding, self.dilation, strict=True)
        )
        return self.N, self.C, P, Q

    @property
    def max_arguments(self) -> dict[str, Any]:
        """What max pooling takes beside the images and the kernel, as keyword arguments."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "ceil_mode": self.ceil_mode,
        }

    @property
    def avg_arguments(self) -> dict[str, Any]:
        """What average pooling takes beside the images and the kernel, as keyword arguments."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "ceil_mode": self.ceil_mode,
            "count_include_pad": self.count_include_pad,
            "divisor_override": self.divisor_override,
        }

    def __str__(self) -> str:
        parts = [f"n{self.N}c{self.C}h{self.H}w{self.W}", f"k{_times(self.kernel)}", f"stride{_times(self.stride)}"]
        parts += _non_default(pad=(self.padding, (0, 0)), dil=(self.dilation, (1, 1)))
        parts += ["ceil"] * self.ceil_mode + ["nopad"] * (not self.count_include_pad)
        parts += [] if self.divisor_override is None else [f"div{self.divisor_override}"]
        return "-".join(parts)


CONV_CORNERS = (
    ConvCase(1, 1, 1, 1, 1, 1, 1),
    ConvCase(2, 1, 28, 28, 6, 5, 5, padding=(2, 2)),
    ConvCase(2, 3, 9, 11, 8, 3, 3, padding=(1, 1)),
    ConvCase(0, 3, 8, 8, 4, 3, 3, padding=(1, 1)),
    ConvCase(2, 33, 7, 5, 31, 1, 1),
    ConvCase(2, 16, 8, 8, 32, 1, 1, stride=(2, 2), bias=False),
    ConvCase(2, 4, 5, 7, 3, 5, 7),
    ConvCase(2, 8, 9, 9, 8, 3, 3, padding=(1, 1), groups=8),
    ConvCase(2, 4, 9, 7, 12, 3, 3, stride=(2, 2), padding=(1, 1), groups=4),
    ConvCase(2, 6, 7, 9, 4, 3, 2, groups=2, bias=False),
    ConvCase(2, 3, 11, 13, 4, 3, 3, padding=(2, 2), dilation=(2, 2)),
    ConvCase(1, 2, 13, 9, 3, 3, 2, padding=(0, 1), dilation=(3, 1)),
    ConvCase(2, 3, 12, 10, 5, 3, 4, stride=(3, 1), padding=(0, 2)),
    ConvCase(1, 3, 10, 10, 2, 2, 2, stride=(3, 3)),  # strides over pixels that no output sees
    ConvCase(1, 2, 3, 3, 2, 3, 3, padding=(4, 4)),  # outputs that see nothing but padding
    ConvCase(3, 129, 3, 3, 1, 3, 3, padding=(1, 1)),
    ConvCase(1, 2, 1, 33, 129, 1, 3),
    ConvCase(1, 3, 33, 1, 2, 5, 1, padding=(2, 0)),
)

POOL_CORNERS = (
    PoolCase(1, 1, 1, 1, (1, 1), (1, 1)),
    PoolCase(2, 3, 8, 8, (2, 2), (2, 2)),
    PoolCase(0, 3, 8, 8, (2, 2), (2, 2)),
    PoolCase(2, 3, 7, 9, (2, 2), (2, 2), ceil_mode=True),
    PoolCase(2, 2, 9, 9, (3, 3), (2, 2), padding=(1, 1)),
    PoolCase(2, 2, 8, 8, (3, 3), (2, 2), padding=(1, 1), ceil_mode=True, count_include_pad=False),
    PoolCase(2, 2, 5, 5, (1, 1), (3, 3), ceil_mode=True),  # a last window would start past the end: dropped
    PoolCase(2, 2, 3, 3, (3, 3), (4, 4), padding=(1, 1), ceil_mode=True),  # would start in the right padding: dropped
    PoolCase(1, 2, 2, 3, (3, 2), (2, 1), ceil_mode=True),  # kernel larger than the input, fits by ceil_mode
    PoolCase(2, 3, 6, 5, (6, 5), (6, 5)),
    PoolCase(1, 3, 10, 10, (2, 2), (3, 3)),
    PoolCase(1, 3, 9, 7, (3, 2), (1, 2), padding=(1, 0), count_include_pad=False),
    PoolCase(1, 2, 7, 7, (3, 3), (2, 2), padding=(1, 1), divisor_override=4),
    PoolCase(1, 1, 33, 31, (4, 3), (1, 1), padding=(2, 1)),
    PoolCase(1, 129, 4, 3, (2, 3), (2, 1), padding=(0, 1)),
)
MAX_POOL_CORNERS = (
    PoolCase(2, 3, 9, 8, (2, 3), (2, 1), padding=(1, 1), dilation=(2, 3)),
    PoolCase(1, 2, 11, 7, (3, 2), (1, 2), padding=(1, 1), dilation=(3, 2), ceil_mode=True),
)

_CONV_FACTORS = {
    "N": (1, 2, 3),
    "channels": (1, 2, 3, 7, 31, 32, 33, 127, 128, 129),  # in a group
    "filters": (1, 2, 3, 7, 31, 32, 33, 127, 128, 129),  # of a group
    "H": SIZES,
    "W": SIZES,
    "R": (1, 2, 3, 5, 7),
    "S": (1, 2, 3, 5, 7),
    "stride": ((1, 1), (2, 2), (1, 2), (3, 1)),
    "padding": ((0, 0), (1, 1), (2, 0), (0, 1), (3, 3)),
    "dilation": ((1, 1), (2, 2), (1, 2), (3, 1)),
    "groups": (1, 2, 3, 32),
    "bias": (True, False),
}

_POOL_FACTORS = {
    "N": (1, 2),
    "C": (1, 3, 7, 33),
    "H": SIZES,
    "W": SIZES,
    "kernel": ((2, 2), (3, 3), (1, 2), (3, 2), (5, 4)),
    "stride": ((1, 1), (2, 2), (3, 3), (1, 2), (4, 3)),
    "padding": ((0, 0), (1, 1), (0, 1), (2, 1)),
    "ceil_mode": (False, True),
}
_MAX_POOL_FACTORS = _POOL_FACTORS | {"dilation": ((1, 1), (2, 2), (1, 3))}
_AVG_POOL_FACTORS = _POOL_FACTORS | {"count_include_pad": (True, False), "divisor_override": (None, None, 1, 5)}


def conv_cases(seed: int, count: int, max_taps: int = 4096, max_products: int = 1_000_000) -> list[ConvCase]:
    """The fixed corners, then `count` different cases sampled pairwise from `seed`; every one is valid.

    The sample runs over batch, channels and filters a group, image, kernel, stride, padding, dilation, groups and bias.

    Args:
        max_taps: at most this many P*Q*R*S, the steps of the naive loops.
        max_products: at most this many multiplications, N*K*P*Q*C/groups*R*S.
    """
    _check_limits(max_taps, max_products)

    def make(factors: dict[str, Any]) -> ConvCase | None:
        rest = dict(factors)
        channels, filters = rest.pop("channels"), rest.pop("filters")
        case = ConvCase(C=channels * rest["groups"], K=filters * rest["groups"], **rest)
        try:
            N, K, P, Q = case.y_shape
        except ValueError:  # the kernel does not fit
            return None
        taps, products = P * Q * case.R * case.S, N * K * P * Q * case.terms
        return case if taps <= max_taps and products <= max_products else None

    return _corners_and_sample(CONV_CORNERS, _CONV_FACTORS, make, seed, count)


def pool_cases(kind: Literal["max", "avg"], seed: int, count: int, max_taps: int = 4096) -> list[PoolCase]:
    """The fixed corners, then `count` different cases sampled pairwise from `seed`; every one is valid.

    The sample runs over batch, channels, image, kernel, stride, padding and ceil_mode, with dilation for "max", and
    with count_include_pad and divisor_override for "avg". No window lies wholly outside its image.

    Args:
        max_taps: at most this many P*Q*R*S, the steps of the naive loops.
    """
    if kind not in ("max", "avg"):
        raise ValueError(f"kind must be 'max' or 'avg', got {kind!r}")
    _check_limits(max_taps)

    def make(factors: dict[str, Any]) -> PoolCase | None:
        case = PoolCase(**factors)
        try:
            _, _, P, Q = case.y_shape
        except ValueError:  # no window fits, or too much padding
            return None
        fits = P * Q * case.kernel[0] * case.kernel[1] <= max_taps
        return case if fits and _every_window_sees_the_image(case, (P, Q)) else None

    if kind == "max":
        return _corners_and_sample(POOL_CORNERS + MAX_POOL_CORNERS, _MAX_POOL_FACTORS, make, seed, count)
    return _corners_and_sample(POOL_CORNERS, _AVG_POOL_FACTORS, make, seed, count)


def rotating_seed(env: str = "GPUCNN_TEST_SEED") -> int:
    """The seed in the environment variable `env`, else today's date (UTC) as yyyymmdd; the caller prints it.

    All processes of a day agree, so that parallel test workers collect the same cases.
    """
    text = os.environ.get(env)
    if text is None:
        return int(datetime.now(timezone.utc).strftime("%Y%m%d"))
    if not text.strip().isdecimal():
        raise ValueError(f"{env} must be a non-negative integer, got {text!r}")
    return int(text)


_Made = TypeVar("_Made")


def _corners_and_sample(
    corners: tuple[_Made, ...],
    factors: dict[str, tuple[Any, ...]],
    make: Callable[[dict[str, Any]], _Made | None],
    seed: int,
    count: int,
) -> list[_Made]:
    cases = dict.fromkeys(corners)
    rounds = count_up()  # once all pairs are covered, they are covered again with other cases
    while len(cases) < len(corners) + count:
        before = len(cases)
        sample = pairwise(factors, f"{seed}/{next(rounds)}", lambda values: make(values) is not None)
        for case in map(make, sample):
            if case is not None:
                cases[case] = None
            if len(cases) == len(corners) + count:
                break
        if len(cases) == before:
            raise ValueError(f"the limits leave no {count} different cases, only {before - len(corners)}")
    return list(cases)


def _check_limits(*limits: int) -> None:
    if min(limits) < 1:
        raise ValueError(f"limits must be at least 1, got {min(limits)}")


def _every_window_sees_the_image(case: PoolCase, outputs: Pair) -> bool:
    return all(
        any(0 <= position * stride - padding + tap * dilation < size for tap in range(kernel))
        for size, count, kernel, stride, padding, dilation in zip(
            (case.H, case.W), outputs, case.kernel, case.stride, case.padding, case.dilation, strict=True
        )
        for position in range(count)
    )


def _times(two: Pair) -> str:
    return f"{two[0]}x{two[1]}"


def _non_default(**named: tuple[Pair, Pair]) -> list[str]:
    return [f"{name}{_times(value)}" for name, (value, default) in named.items() if value != default]

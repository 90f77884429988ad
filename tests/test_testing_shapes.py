"""The case generators: valid, varied, repeatable, and true to their promise that pairs meet."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest

from gpucnn.testing import SIZES, ConvCase, PoolCase, conv_cases, naive, pairwise, pool_cases, rotating_seed
from gpucnn.testing.shapes import (
    _CONV_FACTORS,
    _POOL_FACTORS,
    CONV_CORNERS,
    MAX_POOL_CORNERS,
    POOL_CORNERS,
    _corners_and_sample,
)

FACTORS = {"a": (1, 2, 3), "b": "wxyz", "c": (False, True), "d": (0.5, None, "s"), "e": range(5)}


def pairs_in(cases: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
    return {two for case in cases for two in combinations(sorted(case.items()), 2)}


@pytest.mark.parametrize("seed", [0, 1, 20240229])
def test_pairwise_covers_every_pair_in_few_cases(seed: int) -> None:
    cases = list(pairwise(FACTORS, seed))
    everything = [dict(zip(FACTORS, values, strict=True)) for values in product(*FACTORS.values())]
    assert pairs_in(cases) == pairs_in(everything)
    assert 20 <= len(cases) <= 30  # 4 * 5 at least; the full product is 360
    assert all(tuple(case) == tuple(FACTORS) for case in cases)


@pytest.mark.parametrize("seed", range(5))
def test_pairwise_under_a_constraint_covers_what_can_be(seed: int) -> None:
    def valid(case: dict[str, Any]) -> bool:
        return not (case["a"] == 1 and case["b"] in "wx") and case["e"] + 2 * case["c"] < 5

    feasible = [case for values in product(*FACTORS.values()) if valid(case := dict(zip(FACTORS, values, strict=True)))]
    cases = list(pairwise(FACTORS, seed, valid))
    assert all(map(valid, cases))
    assert pairs_in(cases) == pairs_in(feasible)


def test_pairwise_without_a_valid_case_ends() -> None:
    assert list(pairwise(FACTORS, 0, lambda case: False)) == []


def test_pairwise_depends_on_its_seed_alone() -> None:
    assert list(pairwise(FACTORS, 3)) == list(pairwise(FACTORS, 3))
    assert list(pairwise(FACTORS, 3)) != list(pairwise(FACTORS, 4))


@pytest.mark.parametrize("seed", range(4))
def test_conv_cases_are_valid_distinct_and_within_the_limits(seed: int) -> None:
    cases = conv_cases(seed, 60, max_taps=2000, max_products=300_000)
    assert tuple(cases[: len(CONV_CORNERS)]) == CONV_CORNERS
    assert len(cases) == len(CONV_CORNERS) + 60
    assert len({str(case) for case in cases}) == len(cases)
    for case in cases:
        N, K, P, Q = case.y_shape
        assert min(P, Q, K) >= 1
        assert case.C % case.groups == 0
        assert case.K % case.groups == 0
        assert case.x_shape == (case.N, case.C, case.H, case.W)
        assert case.weight_shape == (case.K, case.C // case.groups, case.R, case.S)
        assert case.terms == int(np.prod(case.weight_shape[1:]))
    for case in cases[len(CONV_CORNERS) :]:
        N, K, P, Q = case.y_shape
        assert P * Q * case.R * case.S <= 2000
        assert N * K * P * Q * case.terms <= 300_000


def test_conv_corners_hold_what_they_promise() -> None:
    def some(rule: Any) -> bool:
        return any(map(rule, CONV_CORNERS))

    assert some(lambda c: c.C == 1)
    assert some(lambda c: c.C == 3)
    assert some(lambda c: c.N == 0)
    assert some(lambda c: (c.R, c.S) == (1, 1) and c.stride == (1, 1))
    assert some(lambda c: (c.R, c.S) == (1, 1) and c.stride == (2, 2))
    assert some(lambda c: (c.R, c.S) == (c.H, c.W) != (1, 1))
    assert some(lambda c: c.groups == c.C == c.K > 1)
    assert some(lambda c: c.groups == c.C < c.K)
    assert some(lambda c: 1 < c.groups < c.C)
    assert some(lambda c: c.dilation == (2, 2))
    assert some(lambda c: c.dilation[0] != c.dilation[1])
    assert some(lambda c: c.stride[0] != c.stride[1] and c.padding[0] != c.padding[1])
    assert some(lambda c: c.K == 1 and c.C > 1)
    assert some(lambda c: c.H != c.W and c.R != c.S)
    assert some(lambda c: not c.bias)
    assert some(lambda c: c.stride[0] > c.R)
    assert some(lambda c: c.padding[0] > c.R)


def test_the_conv_sample_reaches_every_size_and_option() -> None:
    cases = conv_cases(0, 120)[len(CONV_CORNERS) :]
    for letter in "HW":
        assert {getattr(case, letter) for case in cases} == set(SIZES)
    assert {127, 128, 129} <= {case.C // case.groups for case in cases}
    assert {127, 128, 129} <= {case.K // case.groups for case in cases}
    for option in ("stride", "padding", "dilation", "groups", "bias"):
        counts = Counter(getattr(case, option) for case in cases)
        assert set(counts) == set(_CONV_FACTORS[option])
        assert min(counts.values()) >= 3, (option, counts)
    assert sum(case.groups == case.C > 1 for case in cases) >= 1  # depthwise


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize("seed", range(3))
def test_pool_cases_are_valid_and_varied(kind: Any, seed: int) -> None:
    cases = pool_cases(kind, seed, 60, max_taps=2000)
    corners = POOL_CORNERS + MAX_POOL_CORNERS if kind == "max" else POOL_CORNERS
    assert tuple(cases[: len(corners)]) == corners
    assert len(cases) == len(corners) + 60
    assert len({str(case) for case in cases}) == len(cases)
    for case in cases:
        P, Q = case.y_shape[2:]
        assert min(P, Q) >= 1
        if kind == "max":
            ones = np.ones((1, 1, case.H, case.W))
            y, indices = naive.max_pool2d(ones, case.kernel, **case.max_arguments)
            assert y.shape[2:] == (P, Q)
            assert indices.min() >= 0
        else:
            assert case.dilation == (1, 1)
    sample = cases[len(corners) :]
    assert {case.ceil_mode for case in sample} == {False, True}
    assert {case.padding for case in sample} == set(_POOL_FACTORS["padding"])
    assert {case.stride for case in sample} == set(_POOL_FACTORS["stride"])
    assert {case.kernel for case in sample} == set(_POOL_FACTORS["kernel"])
    if kind == "max":
        assert len({case.dilation for case in sample}) == 3
    else:
        assert {case.count_include_pad for case in sample} == {False, True}
        assert {case.divisor_override for case in sample} == {None, 1, 5}


def test_ceil_mode_matters_in_the_corners() -> None:
    dropped = added = 0
    for case in POOL_CORNERS:
        if case.ceil_mode:
            floor = naive.pool_output_size(max(case.H, case.kernel[0]), case.kernel[0], case.stride[0], case.padding[0])
            ceil = -(-(case.H + 2 * case.padding[0] - case.kernel[0]) // case.stride[0]) + 1
            dropped += case.y_shape[2] < ceil
            added += case.y_shape[2] > floor
    assert dropped >= 2
    assert added >= 2


def test_the_same_seed_gives_the_same_cases() -> None:
    assert conv_cases(5, 20) == conv_cases(5, 20)
    assert conv_cases(5, 20) != conv_cases(6, 20)
    assert conv_cases(5, 0) == list(CONV_CORNERS)
    assert pool_cases("max", 5, 20) == pool_cases("max", 5, 20)


def test_more_cases_than_pairs_can_be_had() -> None:
    cases = pool_cases("avg", 0, 400)
    assert len(set(cases)) == len(POOL_CORNERS) + 400


def test_limits_that_leave_nothing_are_refused() -> None:
    for limits in ({"max_taps": 0}, {"max_products": 0}):
        with pytest.raises(ValueError, match="limits must be at least 1"):
            conv_cases(0, 5, **limits)
    with pytest.raises(ValueError, match="limits must be at least 1"):
        pool_cases("max", 0, 5, max_taps=-1)
    with pytest.raises(ValueError, match="the limits leave no 5 different cases, only 4"):
        _corners_and_sample(("corner",), {"a": (1, 2), "b": (3, 4)}, str, seed=0, count=5)
    with pytest.raises(ValueError, match="kind must be 'max' or 'avg'"):
        pool_cases("median", 0, 5)  # type: ignore[arg-type]


def test_ids_are_readable() -> None:
    case = ConvCase(2, 4, 9, 7, 12, 3, 2, stride=(2, 1), padding=(1, 0), groups=4, bias=False)
    assert str(case) == "n2c4h9w7-k12r3s2-stride2x1-pad1x0-groups4-nobias"
    assert str(ConvCase(1, 1, 1, 1, 1, 1, 1)) == "n1c1h1w1-k1r1s1"
    pool = PoolCase(1, 2, 7, 7, (3, 2), (2, 2), (1, 1), ceil_mode=True, count_include_pad=False, divisor_override=4)
    assert str(pool) == "n1c2h7w7-k3x2-stride2x2-pad1x1-ceil-nopad-div4"


def test_rotating_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUCNN_TEST_SEED", raising=False)
    before = datetime.now(timezone.utc)
    seed = rotating_seed()
    after = datetime.now(timezone.utc)
    assert seed in {int(f"{day:%Y%m%d}") for day in (before, after)}
    monkeypatch.setenv("GPUCNN_TEST_SEED", "42")
    assert rotating_seed() == 42
    monkeypatch.setenv("OTHER_SEED", "7")
    assert rotating_seed("OTHER_SEED") == 7
    for text in ("", "today", "-1", "1.5"):
        monkeypatch.setenv("GPUCNN_TEST_SEED", text)
        with pytest.raises(ValueError, match="GPUCNN_TEST_SEED must be a non-negative integer"):
            rotating_seed()

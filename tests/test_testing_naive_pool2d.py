"""The truth for pooling: by hand and against PyTorch, in its corners above all."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest

from gpucnn.testing import PoolCase, assert_close, assert_equal, naive, pool_cases, rotating_seed

SEED = rotating_seed()
MAX_CASES = pool_cases("max", SEED, 40)
AVG_CASES = pool_cases("avg", SEED, 40)

INF, NAN = math.inf, math.nan


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch", reason="PyTorch, which the truth is compared with, is not installed")


def image(rows: list[list[float]]) -> np.ndarray:
    return np.array(rows, np.float64)[None, None]


def test_max_pool2d_by_hand() -> None:
    x = image([[1, 5, 2], [7, 3, 8], [4, 9, 6]])
    y, indices = naive.max_pool2d(x, 2, stride=1)
    assert y[0, 0].tolist() == [[7, 8], [9, 9]]
    assert indices[0, 0].tolist() == [[3, 5], [7, 7]]
    assert naive.max_pool2d_grad(image([[1, 2], [4, 8]]), indices, (1, 1, 3, 3))[0, 0].tolist() == [
        [0, 0, 0],
        [1, 0, 2],
        [0, 12, 0],
    ]
    y, indices = naive.max_pool2d(x, 2, ceil_mode=True)
    assert y[0, 0].tolist() == [[7, 8], [9, 6]]
    assert indices[0, 0].tolist() == [[3, 5], [7, 8]]
    assert naive.max_pool2d(x, 2, stride=2, padding=1)[0][0, 0].tolist() == [[1, 5], [7, 9]]
    assert naive.max_pool2d(x, (2, 1), stride=1, dilation=(2, 1))[0][0, 0].tolist() == [[4, 9, 6]]


@pytest.mark.parametrize(
    ("row", "value", "index"),
    [
        ([3, 3, 3], 3, 0),
        ([1, 3, 3], 3, 1),
        ([-INF, -INF, -INF], -INF, 0),
        ([-INF, -5, -INF], -5, 1),
        ([INF, 5, INF], INF, 0),
        ([5, NAN, 9], NAN, 1),
        ([NAN, 9, INF], NAN, 0),
        ([NAN, 9, NAN], NAN, 2),
        ([0.0, -0.0, 0.0], 0, 0),
    ],
)
def test_ties_infinities_and_nan(row: list[float], value: float, index: int) -> None:
    y, indices = naive.max_pool2d(image([row]), (1, 3))
    assert_equal(y.ravel(), [float(value)])
    assert indices.item() == index


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, [[3, 4.5], [7.5, 9]]),
        ({"padding": 1}, [[1 / 4, 5 / 4], [11 / 4, 7]]),
        ({"padding": 1, "count_include_pad": False}, [[1, 2.5], [5.5, 7]]),
        ({"divisor_override": 2}, [[6, 4.5], [7.5, 4.5]]),
    ],
)
def test_avg_pool2d_by_hand(arguments: dict[str, Any], expected: list[list[float]]) -> None:
    """[[1, 2, 3], [4, 5, 6], [7, 8, 9]] in windows of 2, stride 2; without padding, with ceil_mode."""
    x = image([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    y = naive.avg_pool2d(x, 2, stride=2, ceil_mode="padding" not in arguments, **arguments)
    assert_equal(y[0, 0], np.array(expected))


def test_avg_pool2d_grad_by_hand() -> None:
    dx = naive.avg_pool2d_grad(image([[4, 2], [6, 3]]), (1, 1, 3, 3), 2, stride=2, ceil_mode=True)
    assert dx[0, 0].tolist() == [[1, 1, 1], [1, 1, 1], [3, 3, 3]]
    dx = naive.avg_pool2d_grad(image([[4, 8], [12, 16]]), (1, 1, 3, 3), 2, stride=1)
    assert dx[0, 0].tolist() == [[1, 3, 2], [4, 10, 6], [3, 7, 4]]


def test_what_lies_beyond_the_padding_never_counts() -> None:
    """H = 4, kernel 3, stride 2, padding 1, ceil_mode: the last window covers rows 3, 4 (padding) and 5 (beyond)."""
    x = np.ones((1, 1, 4, 1))
    y = naive.avg_pool2d(x, (3, 1), stride=(2, 1), padding=(1, 0), ceil_mode=True)
    assert_equal(y.ravel(), np.array([2 / 3, 1, 1 / 2]))


def test_a_window_without_an_element_has_no_winner() -> None:
    y, indices = naive.max_pool2d(np.zeros((1, 1, 1, 1)), 2, stride=1, padding=1, dilation=2)
    assert (y.item(), indices.item()) == (-INF, -1)
    assert naive.max_pool2d_grad(np.ones_like(y), indices, (1, 1, 1, 1)).item() == 0


def test_pool_output_size_by_hand() -> None:
    assert naive.pool_output_size(112, 3, 2, padding=1) == 56
    assert naive.pool_output_size(7, 2, 2) == 3
    assert naive.pool_output_size(7, 2, 2, ceil_mode=True) == 4
    assert naive.pool_output_size(5, 1, 3, ceil_mode=True) == 2  # a third would start at 6
    assert naive.pool_output_size(3, 3, 4, padding=1, ceil_mode=True) == 1  # a second would start at 4 - 1 = 3
    assert naive.pool_output_size(2, 3, 2, ceil_mode=True) == 1


@pytest.mark.peers
def test_pool_output_size_is_pytorchs(torch: Any) -> None:
    """Every small combination: the same size, or refused by both."""
    compared = refused = 0
    ranges = (range(1, 8), range(1, 5), range(1, 5), range(4), range(1, 4), (False, True))
    for size, kernel, stride, padding, dilation, ceil_mode in product(*ranges):
        arguments = (kernel, stride, padding, dilation, ceil_mode)
        try:
            expected = torch.nn.functional.max_pool2d(
                torch.zeros(1, 1, size, 1), (kernel, 1), (stride, 1), (padding, 0), (dilation, 1), ceil_mode
            ).shape[2]
        except RuntimeError:
            refused += 1
            with pytest.raises(ValueError, match=r"padding of|no window"):
                naive.pool_output_size(size, *arguments)
        else:
            compared += 1
            assert naive.pool_output_size(size, *arguments) == expected, (size, arguments)
    assert compared > 900
    assert refused > 100


def values(kind: str, case: PoolCase) -> np.ndarray:
    rng = np.random.default_rng([SEED, *case.x_shape])
    x = rng.integers(-2, 3, case.x_shape).astype(np.float64)  # so narrow that most windows hold ties
    if kind == "special":
        x = rng.choice([-INF, -INF, -INF, -1, 0, 1, INF, NAN], case.x_shape)
    return x


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["ties", "special"])
@pytest.mark.parametrize("case", MAX_CASES, ids=str)
def test_max_pool2d_is_pytorchs(case: PoolCase, kind: str, torch: Any) -> None:
    print(f"GPUCNN_TEST_SEED={SEED}")
    x = values(kind, case)
    leaf = torch.tensor(x, requires_grad=True)
    expected, expected_indices = torch.nn.functional.max_pool2d(
        leaf, case.kernel, **case.max_arguments, return_indices=True
    )
    y, indices = naive.max_pool2d(x, case.kernel, **case.max_arguments)
    assert y.shape == case.y_shape
    assert_equal(y, expected.detach())
    assert_equal(indices, expected_indices)
    dy = np.random.default_rng([SEED, 1]).integers(-4, 5, y.shape).astype(np.float64)
    expected.backward(torch.tensor(dy))
    assert_equal(naive.max_pool2d_grad(dy, indices, case.x_shape), leaf.grad, signed_zeros=False)


@pytest.mark.peers
@pytest.mark.parametrize("case", AVG_CASES, ids=str)
def test_avg_pool2d_is_pytorchs(case: PoolCase, torch: Any) -> None:
    print(f"GPUCNN_TEST_SEED={SEED}")
    x = values("ties", case)
    leaf = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.avg_pool2d(leaf, case.kernel, **case.avg_arguments)
    y = naive.avg_pool2d(x, case.kernel, **case.avg_arguments)
    assert y.shape == case.y_shape
    assert_close(y, expected.detach(), rtol=1e-15, atol=0)
    dy = np.random.default_rng([SEED, 1]).integers(-4, 5, y.shape).astype(np.float64)
    expected.backward(torch.tensor(dy))
    dx = naive.avg_pool2d_grad(dy, case.x_shape, case.kernel, **case.avg_arguments)
    assert_close(dx, leaf.grad, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("pool", [naive.max_pool2d, naive.avg_pool2d])
@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((1, 1, 4, 4), {"kernel": 5}, "no window of extent 5 fits"),
        ((1, 1, 4, 4), {"kernel": (2, 3), "padding": (1, 2)}, "padding of 2 exceeds half"),
        ((1, 1, 4, 4), {"kernel": 2, "stride": 0}, "stride must be at least 1"),
        ((1, 1, 4, 4), {"kernel": 0}, "kernel must be at least 1"),
        ((1, 1, 4, 4), {"kernel": 2, "padding": -1}, "padding must be at least 0"),
        ((1, 1, 0, 4), {"kernel": 1}, "at least one element"),
        ((1, 4, 4), {"kernel": 2}, "must be 4-D"),
    ],
)
def test_pooling_refuses(pool: Any, shape: tuple[int, ...], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pool(np.ones(shape), **arguments)


def test_gradients_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="must have one shape"):
        naive.max_pool2d_grad(np.ones((1, 1, 2, 2)), np.zeros((1, 1, 2, 1), np.int64), (1, 1, 4, 4))
    with pytest.raises(ValueError, match=r"output's shape \(1, 1, 2, 2\)"):
        naive.avg_pool2d_grad(np.ones((1, 1, 3, 3)), (1, 1, 4, 4), 2)
    with pytest.raises(ValueError, match="divisor_override must not be zero"):
        naive.avg_pool2d(np.ones((1, 1, 4, 4)), 2, divisor_override=0)

"""The truth for adaptive pooling, unpooling, powers and upsampling: by hand and against PyTorch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gpucnn.testing import assert_close, assert_equal, naive, rotating_seed

INF, NAN = math.inf, math.nan


def image(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float64)[None, None]


def test_adaptive_windows_by_hand() -> None:
    x = image([1, 2, 4, 8, 16])
    assert naive.adaptive_avg_pool2d(x, (1, 2))[0, 0].tolist() == [[7 / 3, 28 / 3]]  # the middle one is in both
    assert naive.adaptive_avg_pool2d(x, (1, 1)).item() == 31 / 5
    assert naive.adaptive_avg_pool2d(x, (2, 5))[0, 0].tolist() == [[1, 2, 4, 8, 16]] * 2
    dy = image([3, 6])
    assert naive.adaptive_avg_pool2d_grad(dy, (1, 1, 1, 5))[0, 0].tolist() == [[1, 1, 3, 2, 2]]


@pytest.mark.parametrize(
    ("row", "value", "index"),
    [
        ([3, 3, 3], 3, 0),
        ([1, 3, 3], 3, 1),
        ([-INF, -INF, -INF], -INF, 0),
        ([5, NAN, 9], NAN, 1),
        ([NAN, 9, NAN], NAN, 2),
    ],
)
def test_adaptive_maxima_by_hand(row: list[float], value: float, index: int) -> None:
    y, indices = naive.adaptive_max_pool2d(image(row), (1, 1))
    assert_equal(y, np.full((1, 1, 1, 1), value, np.float64))
    assert indices.item() == index


def test_unpooling_by_hand() -> None:
    x, indices = image([1, 2, 3]), np.array([4, 0, 4]).reshape(1, 1, 1, 3)
    assert naive.max_unpool2d(x, indices, (2, 3))[0, 0].tolist() == [[2, 0, 0], [0, 3, 0]]
    assert naive.max_unpool2d_grad(image([1, 2, 3], [4, 5, 6]), indices)[0, 0].tolist() == [[5, 1, 5]]


def test_powers_by_hand() -> None:
    x = image([3, 4, 0], [0, 0, -2])
    assert naive.lp_pool2d(x, 2, 2, 1)[0, 0].tolist() == [[5, math.sqrt(20)]]
    assert naive.lp_pool2d(x, 1, 2, 1)[0, 0].tolist() == [[7, 2]]
    assert naive.lp_pool2d(x, 2, 2, 2, ceil_mode=True)[0, 0].tolist() == [[5, math.sqrt(8)]]  # half a window, doubled
    assert naive.lp_pool2d(x, INF, 2, 1)[0, 0].tolist() == [[4, 4]]
    assert naive.lp_pool2d(x, -INF, (1, 2), 1)[0, 0].tolist() == [[3, 0], [0, 0]]
    assert naive.lp_pool2d_grad(image([5, 0]), x, 2, 2, 1)[0, 0].tolist() == [[3, 4, 0], [0, 0, 0]]
    assert naive.lp_pool2d_grad(image([1, 1]), 0 * x, 2, 2, 1)[0, 0].tolist() == [[0] * 3] * 2


def test_interpolation_by_hand() -> None:
    x = image([0, 8])
    resized = {
        "nearest": [0, 0, 8, 8],
        "nearest-exact": [0, 0, 8, 8],
        "bilinear": [0, 2, 6, 8],
    }
    for mode, expected in resized.items():
        assert naive.interpolate(x, (1, 4), mode)[0, 0].tolist() == [expected]
    assert naive.interpolate(x, (2, 3), "bilinear", align_corners=True)[0, 0].tolist() == [[0, 4, 8]] * 2
    assert naive.interpolate(image([1, 2, 3]), (1, 2), "nearest")[0, 0].tolist() == [[1, 2]]
    assert naive.interpolate(image([1, 2, 3]), (1, 2), "nearest-exact")[0, 0].tolist() == [[1, 3]]
    assert naive.interpolate(image([1, 2, 3]), (1, 1), "bilinear").item() == 2
    assert naive.interpolate(image([1, 2, 3]), (1, 1), "bilinear", align_corners=True).item() == 1
    assert naive.interpolate(x, (1, 3), "bilinear", (1, 2.0))[0, 0].tolist() == [[0, 2, 6]]  # not from end to end
    gradient = naive.interpolate_grad(image([1, 2, 4, 8]), (1, 2), "bilinear")
    assert gradient[0, 0].tolist() == [[1 + 2 * 0.75 + 4 * 0.25, 2 * 0.25 + 4 * 0.75 + 8]]


def test_moving_pixels_by_hand() -> None:
    assert naive.bed_of_nails(image([1, 2]), (2, 2))[0, 0].tolist() == [[1, 0, 2, 0], [0, 0, 0, 0]]
    assert naive.bed_of_nails_grad(image([1, 2, 3, 4], [5, 6, 7, 8]), (2, 2))[0, 0].tolist() == [[1, 3]]
    x = np.arange(8.0).reshape(1, 8, 1, 1)
    shuffled = naive.pixel_shuffle(x, 2)
    assert shuffled[0].tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    assert_equal(naive.pixel_unshuffle(shuffled, 2), x)


@pytest.mark.peers
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "corners"])
@pytest.mark.parametrize("size", [(7, 3), (8, 10), (1, 1), (4, 5), (2, 11)], ids=str)
def test_interpolation_is_pytorchs(mode: str, size: tuple[int, int], torch: Any) -> None:
    rng = np.random.default_rng(rotating_seed())
    x, dy = rng.standard_normal((2, 2, 4, 5)), rng.standard_normal((2, 2, *size))
    options = {"mode": "bilinear", "align_corners": True} if mode == "corners" else {"mode": mode}
    theirs = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.interpolate(theirs, size, **options)
    expected.backward(torch.tensor(dy))
    assert_close(naive.interpolate(x, size, **options), expected.detach(), rtol=1e-13, atol=1e-13)
    assert_close(naive.interpolate_grad(dy, (4, 5), **options), theirs.grad, rtol=1e-13, atol=1e-13)


@pytest.mark.peers
@pytest.mark.parametrize("size", [(2, 3), (4, 4), (1, 1), (5, 7)], ids=str)
def test_adaptive_pooling_is_pytorchs(size: tuple[int, int], torch: Any) -> None:
    x = np.random.default_rng(rotating_seed()).choice([-1, 0, 1, 1, NAN], (2, 2, 4, 5))
    y, indices = naive.adaptive_max_pool2d(x, size)
    expected, places = torch.nn.functional.adaptive_max_pool2d(torch.tensor(x), size, return_indices=True)
    assert_equal(y, expected)
    assert_equal(indices, places)
    x = np.nan_to_num(x)
    expected = torch.nn.functional.adaptive_avg_pool2d(torch.tensor(x), size)
    assert_close(naive.adaptive_avg_pool2d(x, size), expected, rtol=1e-14, atol=1e-14)

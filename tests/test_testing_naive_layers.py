"""The truth for linear layers and activations: by hand and against PyTorch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gpucnn.testing import assert_close, assert_equal, naive

SPECIAL = np.array(
    [-math.inf, -800.0, -40.0, -1.5, -1e-300, -0.0, 0.0, 1e-300, 0.25, 3.0, 40.0, 800.0, math.inf, math.nan]
)


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch", reason="PyTorch, which the truth is compared with, is not installed")


def test_linear_by_hand() -> None:
    x, weight = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [[1.0, 10.0]]
    assert naive.linear(x, weight).tolist() == [[21], [43], [65]]
    assert naive.linear(x, weight, [0.5]).tolist() == [[21.5], [43.5], [65.5]]
    dy = [[1.0], [10.0], [100.0]]
    assert naive.linear_input_grad(dy, weight).tolist() == [[1, 10], [10, 100], [100, 1000]]
    assert naive.linear_weight_grad(dy, x).tolist() == [[531, 642]]
    assert naive.linear_bias_grad(dy).tolist() == [111]


@pytest.mark.peers
@pytest.mark.parametrize("leading", [(), (4,), (0,), (2, 3), (2, 0, 3)])
def test_linear_is_pytorchs(leading: tuple[int, ...], torch: Any) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-4, 5, shape).astype(np.float64) for shape in ((*leading, 5), (7, 5), (7,), (*leading, 7))]
    x, weight, bias, dy = arrays
    leaves = [torch.tensor(array, requires_grad=True) for array in (x, weight, bias)]
    y = torch.nn.functional.linear(*leaves)
    y.backward(torch.tensor(dy))
    assert_equal(naive.linear(x, weight, bias), y.detach(), signed_zeros=False)
    assert_equal(naive.linear_input_grad(dy, weight), leaves[0].grad, signed_zeros=False)
    assert_equal(naive.linear_weight_grad(dy, x), leaves[1].grad, signed_zeros=False)
    assert_equal(naive.linear_bias_grad(dy), leaves[2].grad, signed_zeros=False)


def test_activations_by_hand() -> None:
    x, dy = [-2.0, 0.0, 3.0], [5.0, 7.0, 11.0]
    assert naive.relu(x).tolist() == [0, 0, 3]
    assert naive.relu_grad(dy, x).tolist() == [0, 0, 11]
    assert naive.sigmoid([0.0, math.log(3)]).tolist() == pytest.approx([0.5, 0.75], rel=1e-15)
    assert naive.sigmoid_grad([1.0, 16.0], [0.0, math.log(3)]).tolist() == pytest.approx([0.25, 3.0], rel=1e-15)
    assert naive.tanh([0.0, math.log(2)]).tolist() == pytest.approx([0, 0.6], rel=1e-15)
    assert naive.tanh_grad([1.0, 1.0], [0.0, math.log(2)]).tolist() == pytest.approx([1, 0.64], rel=1e-15)


@pytest.mark.peers
@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh"])
def test_activations_are_pytorchs(name: str, torch: Any) -> None:
    leaf = torch.tensor(SPECIAL, requires_grad=True)
    y = getattr(torch, name)(leaf)
    y.backward(torch.full_like(y, 3.0))
    assert_close(getattr(naive, name)(SPECIAL), y.detach(), rtol=1e-14, atol=0, equal_nan=True)
    dx = getattr(naive, f"{name}_grad")(np.full_like(SPECIAL, 3.0), SPECIAL)
    assert_close(dx, leaf.grad, rtol=1e-14, atol=1e-15, equal_nan=True)


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_derivatives_keep_their_digits_in_the_tails(name: str) -> None:
    """At x = 20, s(1 - s) is exp(-20) and 1 - tanh**2 is 4 exp(-40) to 9 and 17 digits; written naively they cancel."""
    expected = {"sigmoid": math.exp(-20) / (1 + math.exp(-20)) ** 2, "tanh": 4 * math.exp(-40)}[name]
    dx = getattr(naive, f"{name}_grad")([1.0, 1.0], [20.0, -20.0])
    assert_close(dx, [expected, expected], rtol=1e-14, atol=0)

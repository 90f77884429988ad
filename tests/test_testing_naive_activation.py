"""The truth about activations and losses: values by hand, and derivatives as differences of what they derive."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from op_checks import draw

from gpucnn.testing import assert_close, naive

X = [-4.0, -0.5, 0.25, 5.0]  # no kink among them
losses = naive.regression_loss


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (naive.tanhshrink, [-4 + math.tanh(4), -0.5 + math.tanh(0.5), 0.25 - math.tanh(0.25), 5 - math.tanh(5)]),
        (naive.softsign, [-0.8, -1 / 3, 0.2, 5 / 6]),
        (naive.hardsigmoid, [0, 2.5 / 6, 3.25 / 6, 1]),
        (naive.hardswish, [0, -1.25 / 6, 0.8125 / 6, 5]),
        (naive.relu, [0, 0, 0.25, 5]),
        (functools.partial(naive.hardtanh, max_val=3.0), [-1, -0.5, 0.25, 3]),
        (functools.partial(naive.leaky_relu, negative_slope=0.5), [-2, -0.25, 0.25, 5]),
        (functools.partial(naive.prelu, weight=[0.5, 2, 2, 2]), [-2, -1, 0.25, 5]),
        (functools.partial(naive.threshold, threshold=0.0, value=9.0), [9, 9, 0.25, 5]),
        (naive.hardshrink, [-4, 0, 0, 5]),
        (naive.softshrink, [-3.5, 0, 0, 4.5]),
        (functools.partial(naive.elu, alpha=2.0), [2 * math.expm1(-4), 2 * math.expm1(-0.5), 0.25, 5]),
        (functools.partial(naive.glu, dim=0), [-4 / (1 + math.exp(-0.25)), -0.5 / (1 + math.exp(-5))]),
    ],
)
def test_values_by_hand(function: Callable[..., Any], expected: list[float]) -> None:
    assert function(X).tolist() == pytest.approx(expected, rel=1e-14)


def test_smooth_functions_at_one() -> None:
    e = math.e
    for function, expected in (
        (naive.sigmoid, e / (1 + e)),
        (naive.logsigmoid, 1 - math.log(1 + e)),
        (naive.softplus, math.log(1 + e)),
        (naive.silu, e / (1 + e)),
        (naive.mish, ((1 + e) ** 2 - 1) / ((1 + e) ** 2 + 1)),
        (naive.gelu, 0.8413447460685429),
        (naive.gelu_tanh, 0.8411919906082768),
    ):
        assert function([1.0])[0] == pytest.approx(expected, rel=1e-15)


def test_losses_by_hand() -> None:
    x, t = [1.0, -2.0, 0.5], [0.5, 1.0, 0.5]
    assert losses.mse(x, t).tolist() == [0.25, 9, 0]
    assert losses.l1(x, t).tolist() == [0.5, 3, 0]
    assert losses.smooth_l1(x, t, beta=0.5).tolist() == [0.25, 2.75, 0]
    assert losses.huber(x, t, delta=2.0).tolist() == [0.125, 4, 0]
    assert losses.bce([0.5, 0.0, 1.0], [1.0, 1.0, 0.25]).tolist() == pytest.approx([math.log(2), 100, 75])
    assert losses.bce_with_logits([0.0], [1.0], 3.0).tolist() == pytest.approx([3 * math.log(2)])
    assert losses.kl_div([0.0, 1.0], [1.0, 0.0]).tolist() == [0, 0]
    assert losses.kl_div_log([1.0], [0.0]).tolist() == [-1]
    assert naive.softmax([0.0, math.log(3)]).tolist() == pytest.approx([0.25, 0.75])
    assert naive.log_softmax([[0.0], [math.log(3)]], 0)[:, 0].tolist() == pytest.approx([-math.log(4), math.log(0.75)])
    assert naive.nll_loss([[1.0, 2.0], [3.0, 4.0]], [1, 0], [1.0, 3.0]).tolist() == (-2 * 3 - 3) / 4
    certain = naive.soft_cross_entropy([[0.0, math.log(3)]], [[0.5, 0.5]])
    assert certain.tolist() == pytest.approx(math.log(4) - math.log(3) / 2)


def difference(function: Callable[..., Any], *arrays: Any, place: int = 0, step: float = 1e-6) -> np.ndarray:
    """The slope of a function of single elements by one of its arrays."""
    up, down = ([np.array(a, np.float64) for a in arrays] for _ in range(2))
    up[place] += step
    down[place] -= step
    return (np.asarray(function(*up)) - np.asarray(function(*down))) / (2 * step)


@pytest.mark.parametrize(
    "name",
    [
        *("sigmoid", "tanh", "tanhshrink", "softsign", "logsigmoid", "hardsigmoid", "softplus", "silu", "hardswish"),
        *("mish", "gelu", "gelu_tanh", "relu", "hardtanh", "leaky_relu", "elu", "hardshrink", "softshrink"),
    ],
)
def test_derivatives_are_differences(name: str) -> None:
    x = [-4.0, -0.75, -0.25, 0.25, 0.75, 5.0]
    slope = getattr(naive, f"{name}_grad")([2.0] * 6, x)
    assert_close(slope, 2 * difference(getattr(naive, name), x), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", ["mse", "l1", "smooth_l1", "huber", "bce", "bce_with_logits", "kl_div", "kl_div_log"])
def test_derivatives_of_losses_are_differences(name: str) -> None:
    x, t = [0.125, 0.75, 0.5], [0.625, 0.25, 0.75]
    loss = getattr(losses, name)
    assert_close(getattr(losses, f"{name}_grad")(x, t), difference(loss, x, t), rtol=1e-7, atol=1e-8)
    if hasattr(losses, f"{name}_target_grad"):
        found = getattr(losses, f"{name}_target_grad")(x, t)
        assert_close(found, difference(loss, x, t, place=1), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "soft_cross_entropy"])
def test_derivatives_of_rows_are_differences(name: str) -> None:
    x, dy, step = draw("normal", (2, 4)), draw("normal", (2, 4), 1), 1e-6
    if name == "soft_cross_entropy":
        loss = functools.partial(naive.soft_cross_entropy, target=naive.softmax(dy), weight=[1, 2, 3, 4.0])
        found = naive.soft_cross_entropy_grad(1.0, x, naive.softmax(dy), [1, 2, 3, 4.0])[0]
    else:
        loss = lambda z: (getattr(naive, name)(z) * dy).sum()  # noqa: E731
        found = getattr(naive, f"{name}_grad")(dy, x)
    expected = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        moved = np.zeros_like(x)
        moved[place] = step
        expected[place] = (loss(x + moved) - loss(x - moved)) / (2 * step)
    assert_close(found, expected, rtol=1e-7, atol=1e-8)

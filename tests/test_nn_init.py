"""Initial weights: distributions, the order of the numbers, and leaving them out."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import nn, random
from gpucnn.nn import init
from gpucnn.testing import rotating_seed


def drawn(run: Any, *shape: int, dtype: str = "float64") -> np.ndarray[Any, Any]:
    gpucnn.manual_seed(rotating_seed())
    return run(gpucnn.zeros(*shape, dtype=dtype)).numpy()  # type: ignore[no-any-return]


@pytest.mark.parametrize("block", [1, 7, 100, 1 << 16])
@pytest.mark.parametrize("shape", [(), (5,), (11, 13), (6, 4, 3, 2), (0, 3), (3, 0), (1, 200)])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_numbers_come_in_logical_order_whatever_the_blocks(
    shape: tuple[int, ...], block: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(init, "_BLOCK", block)
    seed = rotating_seed()
    for run, whole in (
        (init.uniform_, lambda generator: generator.uniform(0.0, 1.0, shape)),
        (init.normal_, lambda generator: generator.normal(0.0, 1.0, shape)),
    ):
        gpucnn.manual_seed(seed)
        expected = np.asarray(whole(random.host_generator())).astype(dtype)
        found = drawn(run, *shape, dtype=dtype)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_drawing_writes_in_place_and_backward_hears_of_it() -> None:
    weight = nn.Parameter(gpucnn.ones(3, 2))
    memory = weight.numpy()
    loss = (weight * weight).sum()
    assert init.normal_(weight) is weight
    assert np.shares_memory(memory, weight.numpy())
    assert not (memory == 1).all()
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def truncated_moments(a: float, b: float) -> tuple[float, float]:
    """Mean and deviation of a standard normal between a and b, by the trapezium rule."""
    x = np.linspace(a, b, 200_001)
    density = np.exp(-x * x / 2)
    mean = np.trapezoid(x * density, x) / np.trapezoid(density, x)
    return float(mean), math.sqrt(np.trapezoid((x - mean) ** 2 * density, x) / np.trapezoid(density, x))


@pytest.mark.parametrize(
    ("mean", "std", "a", "b"),
    [(0, 1, -2, 2), (3, 0.5, 2.5, 3), (0, 1, 2, 4), (0, 1, -0.1, 0.2), (-1, 2, -math.inf, 0), (0, 0.01, -2, 2)],
)
def test_truncated_normal(mean: float, std: float, a: float, b: float) -> None:
    values = drawn(lambda w: init.trunc_normal_(w, mean, std, a, b), 300, 100)
    assert a <= values.min()
    assert values.max() <= b
    below, above = max((a - mean) / std, -9), min((b - mean) / std, 9)
    expected_mean, expected_std = truncated_moments(below, above)
    # Of 30,000 numbers: five standard errors of the mean, 3 % of the deviation.
    assert abs(values.mean() - (mean + std * expected_mean)) <= 5 * std * expected_std / math.sqrt(values.size)
    assert abs(values.std() / (std * expected_std) - 1) <= 0.03
    assert len(np.unique(values)) == values.size


def test_a_truncated_normal_of_almost_nothing_is_refused() -> None:
    weight = gpucnn.ones(4, 4)
    for arguments in ((0, 1, 5, 6), (0, 1, 1, -1), (0, 0, -1, 1), (0, -1, -2, 2), (0, 1, 0, 0), (math.nan, 1, -2, 2)):
        with pytest.raises(ValueError, match=r"trunc_normal_: .* must hold at least a thousandth of the normal"):
            init.trunc_normal_(weight, *arguments)
    assert (weight.numpy() == 1).all()


def test_xavier_normal() -> None:
    values = drawn(lambda w: init.xavier_normal_(w, gain=3), 60, 10, 5, 6)
    assert abs(values.std() / (3 * math.sqrt(2 / (300 + 1800))) - 1) <= 0.03
    assert abs(values.mean()) <= 5 * values.std() / math.sqrt(values.size)


# ---------------------------------------------------------------------------------------------------- leaving out


def test_nothing_is_drawn_inside_skip_init() -> None:
    gpucnn.manual_seed(5)
    before = random.state()
    with init.skip_init():
        layer = nn.Conv2d(3, 4, 3)
        init.trunc_normal_(layer.weight)
        with init.skip_init():
            pass
        linear = nn.Linear(2, 3)
    assert random.state() == before
    assert not any(p.numpy().any() for module in (layer, linear) for p in module.parameters())
    assert nn.Conv2d(3, 4, 3).weight.numpy().any()
    assert random.state() != before


def test_constants_are_written_inside_skip_init() -> None:
    weight = gpucnn.zeros(2, 2)
    with init.skip_init():
        assert (init.ones_(weight).numpy() == 1).all()


def test_bad_arguments_are_refused_inside_skip_init_too() -> None:
    with init.skip_init():
        with pytest.raises(ValueError, match="fan in and fan out need"):
            init.kaiming_normal_(gpucnn.zeros(3))
        with pytest.raises(ValueError, match="trunc_normal_"):
            init.trunc_normal_(gpucnn.zeros(3), a=9, b=10)


def test_skip_init_ends_with_its_block_and_is_this_threads() -> None:
    with pytest.raises(KeyError), init.skip_init():
        raise KeyError
    assert nn.Linear(2, 3).weight.numpy().any()
    found: list[bool] = []
    with init.skip_init():
        thread = threading.Thread(target=lambda: found.append(bool(nn.Linear(2, 3).weight.numpy().any())))
        thread.start()
        thread.join()
    assert found == [True]


@pytest.mark.peers
@pytest.mark.parametrize("shape", [(40, 30), (20, 6, 5, 5)])
def test_deviations_are_pytorchs(torch: Any, shape: tuple[int, ...]) -> None:
    theirs = torch.empty(shape, dtype=torch.float64)
    for name, options in (
        ("xavier_normal_", {"gain": 2.0}),
        ("xavier_uniform_", {}),
        ("kaiming_normal_", {"mode": "fan_out", "nonlinearity": "relu"}),
        ("kaiming_normal_", {"mode": "fan_out"}),
        ("kaiming_uniform_", {"a": 2.0}),
        ("trunc_normal_", {"std": 0.7, "a": -0.5, "b": 1.0}),
    ):
        getattr(torch.nn.init, name)(theirs, **options)
        found = drawn(lambda w, name=name, options=options: getattr(init, name)(w, **options), *shape)
        assert abs(found.std() / float(theirs.std()) - 1) <= 0.15, name

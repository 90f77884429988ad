"""The library's own stream of seeds: what starts it anew and what it counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import random
from gpucnn.nn import Linear


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    before = random.state()
    yield
    random.set_state(before)


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**64 - 1, np.int64(5), np.uint64(2**63)], ids=str)
def test_a_seed_starts_the_stream_anew(seed: Any) -> None:
    gpucnn.manual_seed(seed)
    assert [random.next_call() for _ in range(3)] == [(int(seed), 0), (int(seed), 1), (int(seed), 2)]
    assert random.state() == {"seed": int(seed), "call": 3}


@pytest.mark.parametrize("seed", [-1, 2**64, -(2**70), 10**30])
def test_seeds_out_of_range_are_refused(seed: int) -> None:
    gpucnn.manual_seed(7)
    random.next_call()
    for run in (
        lambda: gpucnn.manual_seed(seed),
        lambda: random.set_state({"seed": seed, "call": 0}),
        lambda: random.set_state({"seed": 0, "call": seed}),
    ):
        with pytest.raises(ValueError, match=r"\[0, 2\*\*64\)"):
            run()
    assert random.state() == {"seed": 7, "call": 1}


@pytest.mark.parametrize("seed", [1.5, "1", None, 1.0])
def test_seeds_that_are_no_integers_are_refused(seed: Any) -> None:
    before = random.state()
    with pytest.raises(TypeError):
        gpucnn.manual_seed(seed)
    assert random.state() == before


def test_the_state_goes_on_from_where_it_was_taken() -> None:
    gpucnn.manual_seed(3)
    random.next_call()
    state = random.state()
    expected = [random.host_generator().random(4).tolist() for _ in range(3)]
    gpucnn.manual_seed(99)
    random.set_state(state)
    assert [random.host_generator().random(4).tolist() for _ in range(3)] == expected
    state["call"] = 1000
    assert random.state()["call"] == 4


def test_every_draw_and_every_seed_is_its_own() -> None:
    draws = set()
    for seed in (0, 1, 2**63):
        gpucnn.manual_seed(seed)
        draws |= {random.host_generator().integers(2**63) for _ in range(100)}
    assert len(draws) == 300


def test_the_same_seed_makes_the_same_weights() -> None:
    def weights(seed: int) -> list[bytes]:
        gpucnn.manual_seed(seed)
        layers = [Linear(5, 7), gpucnn.nn.Conv2d(3, 4, 3), Linear(5, 7)]
        return [parameter.numpy().tobytes() for layer in layers for parameter in layer.parameters()]

    first = weights(1)
    assert first == weights(1)
    assert len(set(first)) == len(first)
    assert not set(first) & set(weights(2))


def test_numpys_global_state_is_neither_read_nor_changed() -> None:
    np.random.seed(0)  # noqa: NPY002
    gpucnn.manual_seed(1)
    first = Linear(3, 3).weight.tolist()
    drawn = np.random.random()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    assert np.random.random() == drawn  # noqa: NPY002
    gpucnn.manual_seed(1)
    assert Linear(3, 3).weight.tolist() == first

"""Several threads at once: each with graphs of its own, all with the same parameters."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from threading import Barrier
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import functional as F
from gpucnn import nn, random
from gpucnn.testing import assert_close, rotating_seed

THREADS = 4


@pytest.fixture(autouse=True)
def switch_often() -> Iterator[None]:
    """Threads take turns after 1 us instead of 5 ms, so that what must not be interrupted is."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(run: Callable[[int], Any]) -> list[Any]:
    """run(0), run(1), ... at the same time; raises what any of them raised."""
    barrier = Barrier(THREADS)

    def one(number: int) -> Any:
        barrier.wait()
        return run(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, range(THREADS)))


def network() -> nn.Sequential:
    gpucnn.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3)
    ).to("float64")


def batch(number: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([rotating_seed(), number])
    return rng.standard_normal((3, 1, 14, 14)), rng.integers(0, 3, 3)


def gradients(model: nn.Module) -> list[np.ndarray]:
    return [parameter.grad.numpy().copy() for parameter in model.parameters() if parameter.grad is not None]


def learn(model: nn.Module, number: int) -> None:
    images, labels = batch(number)
    F.cross_entropy(model(gpucnn.tensor(images)), labels).backward()


def test_graphs_of_their_own_do_not_disturb_each_other() -> None:
    alone = []
    for number in range(THREADS):
        model = network()
        learn(model, number)
        alone.append(gradients(model))
    models = [network() for _ in range(THREADS)]
    for _ in range(3):

        def run(number: int) -> list[np.ndarray]:
            models[number].zero_grad()
            learn(models[number], number)
            return gradients(models[number])

        for found, expected in zip(together(run), alone, strict=True):
            assert [a.tobytes() for a in found] == [a.tobytes() for a in expected]


def test_shared_parameters_get_the_sum_of_all_gradients() -> None:
    model = network()
    for number in range(THREADS):
        learn(model, number)
    expected = gradients(model)
    for _ in range(5):
        model.zero_grad()
        together(lambda number: learn(model, number))
        for found, truth in zip(gradients(model), expected, strict=True):
            assert_close(found, truth, rtol=1e-12, atol=1e-14)


def test_no_addition_to_a_shared_leaf_is_lost() -> None:
    leaf = gpucnn.zeros(3, requires_grad=True)
    for _ in range(5):
        leaf.grad = None
        together(lambda number: [(leaf * 1).sum().backward() for _ in range(50)])
        assert leaf.grad is not None
        assert leaf.grad.tolist() == [50 * THREADS] * 3


def test_no_two_draws_are_the_same_call() -> None:
    before = random.state()
    gpucnn.manual_seed(0)
    calls = together(lambda number: [random.next_call()[1] for _ in range(2000)])
    random.set_state(before)
    assert sorted(chain.from_iterable(calls)) == list(range(2000 * THREADS))
    assert all(mine == sorted(mine) for mine in calls)


def test_switches_and_backends_stay_with_their_thread() -> None:
    def run(number: int) -> bool:
        seen = True
        x = gpucnn.ones(1, requires_grad=True)
        for _ in range(100):
            if number % 2:
                with gpucnn.no_grad(), gpucnn.use_backend("reference", strict=True):
                    seen &= not (x * 1).requires_grad and gpucnn.backend.is_strict()
            else:
                seen &= (x * 1).requires_grad and not gpucnn.backend.is_strict()
        return seen

    assert together(run) == [True] * THREADS


def test_one_decorated_function_in_many_threads() -> None:
    @gpucnn.no_grad()
    def quietly(x: gpucnn.Tensor) -> bool:
        return (x * 1).requires_grad

    def run(number: int) -> bool:
        x = gpucnn.ones(1, requires_grad=True)
        return any(quietly(x) for _ in range(100)) or not gpucnn.is_grad_enabled()

    assert together(run) == [False] * THREADS


def test_writes_in_one_thread_do_not_trouble_the_graphs_of_another() -> None:
    def run(number: int) -> Any:
        w = gpucnn.ones(2, requires_grad=True)
        for _ in range(50):
            loss = (w * w).sum()
            loss.backward()
            with gpucnn.no_grad():
                w *= 1.0
        return w.grad.tolist() if w.grad is not None else None

    assert together(run) == [[100, 100]] * THREADS

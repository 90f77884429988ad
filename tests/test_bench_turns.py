"""gpucnn.bench.turns: contestants in this process and in their own, and rounds that go from one to the next."""

from __future__ import annotations

import os
import threading
import time

import pytest

from gpucnn.bench.turns import (
    THREAD_COUNTS,
    Apart,
    Here,
    Timing,
    rest,
    sampled,
    soon_asleep,
    spread,
    take_turns,
    threads,
)


class Counter:
    """A contestant that can be pickled by name."""

    def __init__(self, name: str, begin: int) -> None:
        if begin < 0:
            raise ValueError(f"{name} begins at {begin}")
        self.count = begin

    def add(self, amount: int) -> int:
        self.count += amount
        return self.count

    def process(self) -> int:
        return os.getpid()

    def thread_counts(self) -> list[str | None]:
        return [os.environ.get(name) for name in THREAD_COUNTS]

    def variable(self, name: str) -> str | None:
        return os.environ.get(name)

    def fail(self) -> None:
        raise KeyError("lost")

    def die(self) -> None:
        os._exit(3)


@pytest.mark.parametrize("place", [Here, Apart])
def test_a_contestant_keeps_its_state_between_calls(place: type) -> None:
    host = place(Counter, "one", 5)
    try:
        assert [host.call("add", 1), host.call("add", 2)] == [6, 8]
        assert (host.call("process") == os.getpid()) == (place is Here)
        with pytest.raises(KeyError, match="lost"):
            host.call("fail")
        assert host.call("add", 0) == 8
    finally:
        host.close()


@pytest.mark.parametrize("place", [Here, Apart])
def test_one_that_can_not_begin_says_why(place: type) -> None:
    with pytest.raises(ValueError, match="one begins at -1"):
        place(Counter, "one", -1)


def test_one_whose_process_dies_is_named() -> None:
    host = Apart(Counter, "one", 0)
    try:
        with pytest.raises(RuntimeError, match="the process of contestant one died"):
            host.call("die")
    finally:
        host.close()


def test_processes_get_the_threads_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREAD_COUNTS[0], "7")
    monkeypatch.delenv(THREAD_COUNTS[1], raising=False)
    with threads(3):
        host = Apart(Counter, "one", 0)
    try:
        assert host.call("thread_counts") == ["3"] * len(THREAD_COUNTS)
    finally:
        host.close()
    assert os.environ[THREAD_COUNTS[0]] == "7"
    assert THREAD_COUNTS[1] not in os.environ


def test_a_process_is_at_rest_when_its_threads_are() -> None:
    busy = threading.Thread(target=lambda: sum(range(10_000_000)))
    busy.start()
    rest()
    assert not busy.is_alive()
    before = time.perf_counter()
    rest(at_most=60.0)
    assert time.perf_counter() - before < 30.0, "nothing computes, so there is nothing to wait for"


def test_processes_are_told_to_let_threads_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_THREAD_TIMEOUT", raising=False)
    with soon_asleep():
        host = Apart(Counter, "one", 0)
    try:
        assert host.call("variable", "OPENBLAS_THREAD_TIMEOUT") == "23"
    finally:
        host.close()
    assert "OPENBLAS_THREAD_TIMEOUT" not in os.environ


def test_rounds_go_from_one_to_the_next_and_medians_pass_over_a_disturbance() -> None:
    order: list[str] = []
    times = iter([1.0, 5.0, 1.2, 90.0, 1.1, 5.2, 80.0, 5.1, 1.3, 5.3])

    def run(name: str) -> float:
        order.append(name)
        return next(times)

    found = take_turns({"a": lambda: run("a"), "b": lambda: run("b")}, rounds=5)
    assert order == ["a", "b"] * 5
    assert found["a"] == Timing(seconds=1.2, spread=pytest.approx(0.2), rounds=5)
    assert found["b"] == Timing(seconds=5.2, spread=pytest.approx(0.2), rounds=5)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        take_turns({}, rounds=0)


def test_the_spread_is_of_the_middle_half() -> None:
    assert spread([4.0]) == 0
    assert spread([9.0, 1.0, 2.0, 3.0]) == 1.0
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 100.0]) == 3.0


def test_a_round_has_at_least_one_step_and_at_most_those_that_are_asked_for() -> None:
    ran: list[int] = []
    assert sampled(lambda: ran.append(1), at_least=0.0) >= 0
    assert len(ran) == 2  # of which the first does not count
    sampled(lambda: ran.append(1), at_least=1e9, most=4)
    assert len(ran) == 10


def test_what_first_steps_take_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    took = iter([30.0, 20.0, *[3.0] * 12])

    def step() -> None:
        now[0] += next(took)

    with monkeypatch.context() as patched:
        patched.setattr("gpucnn.bench.turns.time.perf_counter", lambda: now[0])
        patched.setattr("gpucnn.bench.turns.rest", lambda: None)
        assert sampled(step, at_least=50.0, most=10) == 3.0
    assert len(list(took)) == 2

"""Contestants that take turns: each lives in this process or in one of its own, and a round asks all of them in order.

On a CPU each lives in a process of its own, since the threads of two libraries in one process get in each other's way;
on a GPU all live in this one, where events time the work and the same clock serves all. Machines drift and neighbours
interfere, hence rounds: a disturbance falls on all contestants of its round, and medians pass over it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import median
from typing import Any, Protocol

THREAD_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""The environment variables that say how many threads numpy and PyTorch use."""


class Host(Protocol):
    """Where a contestant lives."""

    def call(self, method: str, *arguments: Any) -> Any:
        """Calls a method of the contestant. Raises what it raises."""

    def close(self) -> None:
        """Ends it."""


class Here:
    """A contestant in this process."""

    def __init__(self, make: Callable[..., Any], *arguments: Any) -> None:
        self._contestant: Any = make(*arguments)

    def call(self, method: str, *arguments: Any) -> Any:
        return getattr(self._contestant, method)(*arguments)

    def close(self) -> None:
        self._contestant = None


class Apart:
    """A contestant in a process of its own, which waits while others have their turn.

    `make` and its arguments, those of methods and what these return are pickled; `make` is a class or a function of a
    module that can be imported.
    """

    def __init__(self, make: Callable[..., Any], *arguments: Any) -> None:
        self._name = str(arguments[0]) if arguments else make.__name__
        self._pool = ProcessPoolExecutor(1, get_context("spawn"))
        try:
            self._ask(_begin, make, *arguments)
        except BaseException:
            self.close()
            raise

    def call(self, method: str, *arguments: Any) -> Any:
        return self._ask(_continue, method, *arguments)

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return self._pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            raise RuntimeError(f"the process of contestant {self._name} died: out of memory, or killed") from None

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


_contestant: Any = None
"""Of a process that is a contestant's own."""


def _begin(make: Callable[..., Any], *arguments: Any) -> None:
    global _contestant
    _contestant = make(*arguments)


def _continue(method: str, *arguments: Any) -> Any:
    return getattr(_contestant, method)(*arguments)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside, processes that are started compute with `count` threads each."""
    with _environment(dict.fromkeys(THREAD_COUNTS, str(count))):
        yield


@contextmanager
def soon_asleep() -> Iterator[None]:
    """Inside, processes that are started have threads of OpenBLAS that look out for more to do for some milliseconds,
    not a tenth of a second: between the samples of a round that is enough, and the next contestant soon has the machine
    to itself."""
    with _environment({"OPENBLAS_THREAD_TIMEOUT": "23"}):  # 2^23 ticks of the processor's clock
        yield


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Timing:
    """What one contestant took.

    Attributes:
        seconds: the median of the rounds, each the median of its samples.
        spread: the range of the middle half of the rounds, in seconds.
        rounds: how many there were.
    """

    seconds: float
    spread: float
    rounds: int

    @staticmethod
    def of(rounds: list[float]) -> Timing:
        """Of each round's seconds."""
        return Timing(median(rounds), spread(rounds), len(rounds))


def spread(values: list[float]) -> float:
    """The range of the middle half."""
    cut = len(values) // 4
    middle = sorted(values)[cut : len(values) - cut]
    return middle[-1] - middle[0]


def take_turns(contestants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Timing]:
    """Asks each contestant for the seconds of a round, in order, `rounds` times over.

    Raises ValueError for fewer than one round.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            found[name].append(run())
    return {name: Timing.of(each) for name, each in found.items()}


def rest(at_most: float = 0.5) -> None:
    """Waits, for `at_most` seconds, until no thread of this process computes.

    Threads of OpenBLAS and OpenMP look out for more to do when they are done. Whoever has the next turn would share the
    cores with them: of two threads one then waits for milliseconds, where the work takes microseconds.
    """
    end = time.perf_counter() + at_most
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(_LOOK)
        if time.process_time() - before < 0.1 * _LOOK:
            return


_LOOK = 0.002


def sampled(step: Callable[[], Any], at_least: float, most: int = 1000) -> float:
    """A round on a CPU: the median seconds of as many steps as fit into `at_least` seconds, at most `most`, after as
    many again that do not count. When it returns, this process is at rest.

    The first steps of a turn find cold caches, and threads that were just woken: two of them may sit on one core and
    wait for each other for ten milliseconds, until the scheduler moves one.
    """
    _steps(step, at_least, most)
    samples = _steps(step, at_least, most)
    rest()
    return median(samples)


def _steps(step: Callable[[], Any], at_least: float, most: int) -> list[float]:
    """The seconds of each."""
    samples: list[float] = []
    begin = time.perf_counter()
    while not samples or (time.perf_counter() - begin < at_least and len(samples) < most):
        before = time.perf_counter()
        step()
        samples.append(time.perf_counter() - before)
    return samples

"""Array code on several threads of the CPU: numpy releases the interpreter while it computes.

Work is cut into pieces that depend on the problem alone, never on the number of threads, so results have the same bits
on any machine with the same numpy. While pieces run, the BLAS library keeps to the thread that calls it: its own
threads wait by spinning, which for matrices of this size costs more than it gains and collapses when a core is busy.
"""

from __future__ import annotations

import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from gpucnn.backend import Array, namespace

T = TypeVar("T")

_PIECE_OPERATIONS = 1 << 23
"""Multiply-adds of a matrix product that are worth a thread of their own."""


def _default_threads() -> int:
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0))
    return min(cores, int(wanted)) if wanted.isdecimal() and int(wanted) > 0 else cores


_threads = _default_threads()


def set_num_threads(count: int) -> None:
    """How many threads array code on the CPU may use; by default the cores of this process or $OMP_NUM_THREADS."""
    global _threads
    if count < 1:
        raise ValueError(f"the number of threads must be at least 1, got {count}")
    _threads = count
    _pool.cache_clear()


def get_num_threads() -> int:
    return _threads


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, _threads - 1), thread_name_prefix="gpucnn")


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork


class _Blas:
    """Keeps the BLAS library to one thread while anyone needs that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: list[int] = []

    @functools.cached_property
    def _libraries(self) -> list[Any]:
        from threadpoolctl import ThreadpoolController

        return list(ThreadpoolController().select(user_api="blas").lib_controllers)

    @contextmanager
    def single_threaded(self) -> Iterator[None]:
        with self._lock:
            if self._users == 0:
                self._before = [library.get_num_threads() for library in self._libraries]
                for library in self._libraries:
                    library.set_num_threads(1)
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    for library, count in zip(self._libraries, self._before, strict=True):
                        library.set_num_threads(count)


_blas = _Blas()


def for_each(work: Callable[[T], None], items: Sequence[T], like: Array) -> None:
    """work(item) for every item, on several threads if `like` is on the CPU; items must not depend on each other.

    Returns when all are done. The first exception is raised again here, after the items under way have ended.
    `work` must not call for_each.
    """
    if not isinstance(like, np.ndarray):
        for item in items:
            work(item)
        return
    waiting = deque(items)

    def drain() -> None:
        with np.errstate(all="ignore"):
            while waiting:
                try:
                    item = waiting.popleft()
                except IndexError:  # another thread took the last one
                    return
                work(item)

    with _blas.single_threaded():
        helpers = [_pool().submit(drain) for _ in range(min(_threads, len(items)) - 1)]
        try:
            drain()
        finally:
            waiting.clear()
            for helper in helpers:
                helper.result()


def matmul(a: Array, b: Array) -> Array:
    """a (M,K) times b (K,N), rows of the result shared out among the threads."""
    xp = namespace(a)
    if not isinstance(a, np.ndarray):
        return xp.matmul(a, b)
    M, K = a.shape
    N = b.shape[1]
    out = np.empty((M, N), np.result_type(a, b))
    rows = max(1, _PIECE_OPERATIONS // max(1, K * N))
    pieces = [slice(start, start + rows) for start in range(0, M, rows)]

    def run(piece: slice) -> None:
        np.matmul(a[piece], b, out=out[piece])

    for_each(run, pieces, a)
    return out

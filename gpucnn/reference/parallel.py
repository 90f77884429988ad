"""Array code on several threads of the CPU: numpy releases the interpreter while it computes.

Work is cut into pieces that depend on the problem alone, never on the number of threads, so results have the same bits
on any machine with the same numpy. While pieces run, the BLAS library keeps to the thread that calls it: its own
threads wait by spinning, which for matrices of this size costs more than it gains and collapses when a core is busy.
"""

from __future__ import annotations

import functools
import operator
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from gpucnn.backend import Array, empty, namespace

T = TypeVar("T")

_PIECE_OPERATIONS = 1 << 25
"""Multiply-adds of a matrix product that are worth a thread of their own."""
_PIECE_SIDE = 128
"""Rows or columns that a piece of a matrix product has at least."""


def _default_threads() -> int:
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0))
    return min(cores, int(wanted)) if wanted.isdecimal() and int(wanted) > 0 else cores


_threads = _default_threads()


def set_num_threads(count: int) -> None:
    """How many threads array code on the CPU may use; by default the cores of this process or $OMP_NUM_THREADS."""
    global _threads
    if operator.index(count) < 1:
        raise ValueError(f"the number of threads must be at least 1, got {count}")
    _threads = operator.index(count)
    _pool.cache_clear()


def get_num_threads() -> int:
    return _threads


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, _threads - 1), thread_name_prefix="gpucnn")


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
                for library, count in zip(self._libraries, self._before, strict=True):
                    if count != 1:
                        library.set_num_threads(1)
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._restore()

    def _restore(self) -> None:
        for library, count in zip(self._libraries, self._before, strict=True):
            if count != 1:
                library.set_num_threads(count)

    def forget_users(self) -> None:
        """In the child of a fork: the threads that held the library to one are not there to let go of it."""
        self._lock = threading.Lock()
        if self._users:
            self._users = 0
            self._restore()


_blas = _Blas()


def _after_fork_in_child() -> None:
    _pool.cache_clear()  # threads do not survive a fork
    _blas.forget_users()


os.register_at_fork(after_in_child=_after_fork_in_child)


def for_each(work: Callable[[T], None], items: Sequence[T], like: Array, *, share: bool = True) -> None:
    """work(item) for every item; items must not depend on each other.

    If `like` is on the CPU and `share` is set they are shared out among threads; results must not depend on that.

    Returns when all are done. If one fails no further one is started, and its exception is raised again here after
    those under way have ended. May be called from several threads, and from within `work`.
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
                try:
                    work(item)
                except BaseException:
                    waiting.clear()
                    raise

    with _blas.single_threaded():
        helpers = [_pool().submit(drain) for _ in range(min(_threads, len(items)) - 1 if share else 0)]
        try:
            drain()
        finally:
            waiting.clear()
            # One that is still queued behind other callers' work would find nothing to do: do not wait for it.
            started = [helper for helper in helpers if not helper.cancel()]
            if started:
                wait(started)
        for helper in started:
            helper.result()


def matmul(a: Array, b: Array) -> Array:
    """a (M,K) times b (K,N), cut along the longer side of the result and shared out among the threads."""
    xp = namespace(a)
    if not isinstance(a, np.ndarray):
        return xp.matmul(a, b)
    M, K = a.shape
    N = b.shape[1]
    out = empty((M, N), np.result_type(a, b), a)

    def run(piece: tuple[slice, slice]) -> None:
        rows, columns = piece
        np.matmul(a[rows], b[:, columns], out=out[piece])

    for_each(run, pieces(M, N, K), a)
    return out


def pieces(M: int, N: int, K: int) -> list[tuple[slice, slice]]:
    """(rows, columns) of the pieces of an (M,N) product over K: a function of the sizes alone.

    The longer side is cut, so that a piece stays a product of matrices and does not sink to one of a vector; into an
    even number of pieces, since most machines have an even number of cores.
    """
    longer, shorter = max(M, N), min(M, N)
    step = max(_PIECE_SIDE, _PIECE_OPERATIONS // max(1, K * shorter))
    if step < longer:
        step = -(-longer // (2 * -(-longer // (2 * step))))
        step = -(-step // 8) * 8  # of whole vectors
    cuts = [slice(start, min(start + step, longer)) for start in range(0, longer, step)]
    everything = slice(None)
    return [(cut, everything) if M >= N else (everything, cut) for cut in cuts]

"""Array code on several threads: the same bits for any number of them, errors, nesting, neighbours, forks."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from op_checks import draw, each_kernel, nhwc

import gpucnn
from gpucnn import functional as F
from gpucnn.ops import conv2d, linear, pool2d
from gpucnn.problem import conv2d_problem, pool2d_problem
from gpucnn.reference import parallel
from gpucnn.reference import pool2d as pool_reference
from gpucnn.reference.common import sum_rows
from gpucnn.testing import assert_equal

LIKE = np.empty(0)


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every pass here is shared out, however small; the number of threads, and BLAS's, are left as they were found."""
    monkeypatch.setattr("gpucnn.reference.common.LARGE_BYTES", -1)
    threads, blas = parallel.get_num_threads(), blas_threads()
    set_blas_threads(2)
    yield
    left = blas_threads()
    parallel.set_num_threads(threads)
    for library, count in zip(parallel._blas._libraries, blas, strict=True):
        library.set_num_threads(count)
    assert left == [2] * len(blas)


def blas_threads() -> list[int]:
    return [library.get_num_threads() for library in parallel._blas._libraries]


def set_blas_threads(count: int) -> None:
    for library in parallel._blas._libraries:
        library.set_num_threads(count)


# ----------------------------------------------------------------------------------------------------- same bits

CONVS = {
    "dense": ((9, 3, 20, 18), (5, 3, 3, 3), 1, 1, 1, 1),
    "pointwise": ((9, 16, 12, 12), (8, 16, 1, 1), 1, 0, 1, 1),
    "rows of taps": ((5, 11, 14, 12), (6, 11, 3, 3), 1, 1, 1, 1),
    "few channels": ((6, 2, 9, 9), (16, 2, 3, 3), 1, 0, 1, 1),
    "strided": ((5, 4, 21, 21), (6, 4, 5, 5), 2, 2, 1, 1),
    "grouped": ((7, 6, 11, 13), (4, 3, 3, 3), 1, 1, 2, 2),
    "groups joined": ((5, 24, 9, 8), (24, 2, 3, 3), 2, 1, 1, 12),
    "depthwise": ((12, 8, 15, 15), (16, 1, 3, 3), 1, 1, 1, 8),
    "narrow": ((16, 1, 28, 28), (6, 1, 5, 5), 1, 2, 1, 1),
}


def passes(name: str, dtype: str) -> list[tuple[str, Any]]:
    """(kernel, result) of every kernel of every pass that works on several threads."""
    x_shape, w_shape, *arguments = CONVS[name]
    p = conv2d_problem(x_shape, w_shape, *arguments)
    x, w, dy = (nhwc(draw("normal", s, i), dtype) for i, s in enumerate((x_shape, w_shape, (p.N, p.K, p.P, p.Q))))
    bias = draw("normal", (p.K,)).astype(dtype)
    results = list(each_kernel(conv2d.fprop, p, x, w, bias))
    results += each_kernel(conv2d.dgrad, p, dy, w)
    results += each_kernel(conv2d.wgrad, p, x, dy)
    results += each_kernel(conv2d.bgrad, p, dy)
    pool = pool2d_problem("max_pool2d", x_shape, 3, 2, 1, 1, True)
    gradient = nhwc(draw("normal", (pool.N, pool.C, pool.P, pool.Q), 5), dtype)
    results += each_kernel(pool2d.max_fprop, pool, x)
    _, winners = pool_reference.max_fprop_winners(pool, x)
    results += [("winners", winners), *each_kernel(pool2d.max_dgrad, pool, gradient, winners)]
    average = pool_reference.AveragePool2dProblem(pool, True, None)
    results += each_kernel(pool2d.average_fprop, average, x)
    results += each_kernel(pool2d.average_dgrad, average, gradient)
    return results


@pytest.mark.parametrize("name", CONVS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_image_passes_have_the_same_bits_on_any_number_of_threads(
    name: str, dtype: str, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if block_bytes > 1:
        monkeypatch.setattr("gpucnn.reference.common.BLOCK_BYTES", 20_000)  # several images a tile, several tiles
    runs = []
    for threads in (1, 2, 3, 5):
        parallel.set_num_threads(threads)
        runs.append(passes(name, dtype))
    for run in runs[1:]:
        for (kernel, first), (_, found) in zip(runs[0], run, strict=True):
            assert_equal(found, first, name=kernel)


@pytest.mark.parametrize("pieces", [1 << 23, 1 << 10])
@pytest.mark.parametrize("blas", [1, 2, 4])
def test_linear_passes_have_the_same_bits_on_any_number_of_threads(
    pieces: int, blas: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "_PIECE_OPERATIONS", pieces)
    monkeypatch.setattr("gpucnn.reference.common._SUMMED_BYTES", pieces)
    x, w, dy = (draw("normal", s).astype(np.float32) for s in ((300, 70), (150, 70), (300, 150)))
    problem = linear.LinearProblem(300, 70, 150)
    before = blas_threads()
    runs = []
    for threads in (1, 2, 3):
        parallel.set_num_threads(threads)
        set_blas_threads(blas if threads > 1 else 1)
        run = [*each_kernel(linear.fprop, problem, x, w, None), *each_kernel(linear.dgrad, problem, dy, w)]
        run += [*each_kernel(linear.wgrad, problem, x, dy), *each_kernel(linear.bgrad, problem, dy)]
        runs.append([*run, ("sum_rows", sum_rows(np.tile(x, (40, 1))))])
    for library, count in zip(parallel._blas._libraries, before, strict=True):
        library.set_num_threads(count)
    for run in runs[1:]:
        for (kernel, first), (_, found) in zip(runs[0], run, strict=True):
            assert_equal(found, first, name=kernel)


def test_a_whole_step_has_the_same_bits_on_any_number_of_threads() -> None:
    from gpucnn.models import lenet5

    def step() -> list[np.ndarray]:
        gpucnn.manual_seed(0)
        model = lenet5()
        x = gpucnn.tensor(draw("normal", (48, 1, 28, 28)), "float32")
        F.cross_entropy(model(x), np.arange(48) % 10).backward()
        return [p.grad.numpy() for p in model.parameters()]

    parallel.set_num_threads(1)
    alone = step()
    parallel.set_num_threads(3)
    for a, b in zip(alone, step(), strict=True):
        assert_equal(b, a)


@pytest.mark.parametrize(
    ("M", "N", "K"), [(1, 1, 1), (300, 2, 9), (2, 300, 9), (130, 129, 1), (5, 7, 0), (0, 4, 3), (4, 0, 3)]
)
def test_pieces_of_a_product_cover_it_once(M: int, N: int, K: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_PIECE_OPERATIONS", 1)
    covered = np.zeros((M, N), int)
    for piece in parallel.pieces(M, N, K):
        covered[piece] += 1
    assert_equal(covered, np.ones((M, N), int))
    a, b = draw("integers", (M, K)), draw("integers", (K, N), 1)
    assert_equal(parallel.matmul(a, b), a @ b, signed_zeros=False)


# ------------------------------------------------------------------------------------- errors, nesting, neighbours


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_every_item_is_worked_on_once(threads: int) -> None:
    parallel.set_num_threads(threads)
    for count in (0, 1, 2, 3, 100):
        seen: list[int] = []
        parallel.for_each(seen.append, range(count), LIKE)
        assert sorted(seen) == list(range(count))


def test_work_is_shared_among_threads() -> None:
    parallel.set_num_threads(3)
    meeting = threading.Barrier(3, timeout=20)  # passed only if three items are under way at once
    parallel.for_each(lambda _: meeting.wait(), range(3), LIKE)
    assert not meeting.broken


class Broken(Exception):
    pass


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("bad", [0, 7, 49])
def test_an_exception_waits_for_what_is_under_way(threads: int, bad: int) -> None:
    parallel.set_num_threads(threads)
    before = blas_threads()
    under_way, done = set(), set()

    def work(item: int) -> None:
        under_way.add(item)
        if item == bad:
            raise Broken(item)
        time.sleep(0.002)
        done.add(item)

    with pytest.raises(Broken, match=str(bad)):
        parallel.for_each(work, range(50), LIKE)
    assert under_way - done == {bad}
    assert threads > 1 or under_way == set(range(bad + 1))
    assert blas_threads() == before


def test_no_further_item_is_started_after_a_helper_has_failed() -> None:
    parallel.set_num_threads(2)
    caller, both, seen = threading.current_thread(), threading.Barrier(2, timeout=20), []

    def work(item: int) -> None:
        seen.append(item)
        both.wait()
        if threading.current_thread() is not caller:
            raise Broken(item)
        parallel._pool().submit(int).result(timeout=20)  # the only helper is free again: it has given up

    with pytest.raises(Broken):
        parallel.for_each(work, range(50), LIKE)
    assert sorted(seen) == [0, 1]


def test_when_all_fail_one_exception_arrives_and_all_have_ended() -> None:
    parallel.set_num_threads(4)
    meeting, ended = threading.Barrier(4, timeout=20), []

    def work(item: int) -> None:
        meeting.wait()
        time.sleep(0.05 if item in (1, 2) else 0)
        ended.append(item)
        raise Broken(item)

    with pytest.raises(Broken):
        parallel.for_each(work, range(4), LIKE)
    assert sorted(ended) == [0, 1, 2, 3]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_calls_may_be_nested(threads: int) -> None:
    parallel.set_num_threads(threads)
    sums = np.zeros((6, 6))

    def outer(i: int) -> None:
        def inner(j: int) -> None:
            sums[i, j] += 1

        parallel.for_each(inner, range(6), LIKE)

    finished = threading.Thread(target=parallel.for_each, args=(outer, range(6), LIKE), daemon=True)
    finished.start()
    finished.join(30)
    assert not finished.is_alive()
    assert_equal(sums, np.ones((6, 6)))


def test_concurrent_callers_get_their_own_results_and_leave_blas_as_it_was() -> None:
    parallel.set_num_threads(2)
    set_blas_threads(2)
    x, w = draw("integers", (200, 90)).astype(np.float32), draw("integers", (70, 90)).astype(np.float32)
    expected, wrong = x @ w.T, []
    start = threading.Barrier(6, timeout=20)

    def caller(number: int) -> None:
        start.wait()
        for _ in range(15):
            y = F.linear(gpucnn.Tensor(x + number), gpucnn.Tensor(w)).numpy()
            if not np.array_equal(y, expected + number * w.sum(1)):
                wrong.append(number)

    callers = [threading.Thread(target=caller, args=(n,)) for n in range(6)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert wrong == []
    assert blas_threads() == [2] * len(blas_threads())
    assert parallel._blas._users == 0


def test_blas_keeps_to_one_thread_while_work_runs_and_only_then() -> None:
    set_blas_threads(2)
    ones = [1] * len(blas_threads())
    seen = []

    def work(_: int) -> None:
        seen.append(blas_threads())
        parallel.for_each(lambda _: seen.append(blas_threads()), range(2), LIKE)
        seen.append(blas_threads())

    parallel.for_each(work, range(3), LIKE)
    assert seen == [ones] * 12
    assert blas_threads() == [2] * len(ones)


def test_infinities_in_work_warn_of_nothing() -> None:
    parallel.set_num_threads(2)
    found = np.zeros(4)

    def work(i: int) -> None:
        found[i] = np.array([np.inf])[0] - np.array([np.inf])[0] + np.float64(1) / np.float64(0)

    parallel.for_each(work, range(4), LIKE)
    assert np.isnan(found).all()


@pytest.mark.parametrize("count", [0, -1])
def test_the_number_of_threads_is_at_least_one(count: int) -> None:
    with pytest.raises(ValueError, match=f"the number of threads must be at least 1, got {count}"):
        parallel.set_num_threads(count)
    with pytest.raises(TypeError):
        parallel.set_num_threads(1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "expected"), [("", None), ("1", 1), ("10000", None), ("0", None), ("-2", None), ("2,1", None)]
)
def test_threads_by_default(wanted: str, expected: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    assert parallel._default_threads() == (expected or len(os.sched_getaffinity(0)))


FORK = """
import os, threading, warnings
import numpy as np
from gpucnn.reference import parallel

parallel.set_num_threads(2)
a = np.ones((400, 300), np.float32)
parallel.matmul(a, a.T)
libraries = parallel._blas._libraries
for library in libraries:
    library.set_num_threads(2)

inside, leave = threading.Event(), threading.Event()
def hold(_):
    inside.set()
    leave.wait(60)
busy = threading.Thread(target=parallel.for_each, args=(hold, range(1), a))
busy.start()
inside.wait(60)
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12+ warns of any fork beside threads
child = os.fork()
if child == 0:  # in the middle of another thread's call, which this process will never see the end of
    restored = [library.get_num_threads() for library in libraries] == [2] * len(libraries)
    right = np.array_equal(parallel.matmul(a, a.T), np.full((400, 400), 300, np.float32))
    free = parallel._blas._users == 0
    os._exit(0 if restored and right and free else 1)
_, status = os.waitpid(child, 0)
leave.set()
busy.join()
assert os.waitstatus_to_exitcode(status) == 0, status
assert [library.get_num_threads() for library in libraries] == [2] * len(libraries)
"""


def test_a_forked_child_computes_on_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_sum_that_depends_on_the_threads_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above tells lanes that follow the number of threads from ones that do not."""
    monkeypatch.setattr("gpucnn.reference.common.BLOCK_BYTES", 5_000)
    runs = []
    for threads in (1, 3):
        monkeypatch.setattr("gpucnn.reference.conv2d._LANES", threads)
        runs.append(dict(passes("dense", "float32"))["conv2d wgrad im2col"])
    with pytest.raises(AssertionError, match="elements are wrong"):
        assert_equal(runs[1], runs[0])

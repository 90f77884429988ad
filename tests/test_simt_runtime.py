"""The SIMT layer's runtime: blocks, threads, barriers, orders, atomics, shared memory, launches of several threads."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import simt_runtime
from simt_runtime import Fault, call, set_order

from gpucnn.testing import rotating_seed

ORDERS = ("fwd", "rev", "rand:1", f"rand:{rotating_seed()}", "prio:2", f"prio:{rotating_seed()}")


@pytest.fixture(autouse=True)
def _library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("GPUCNN_SIMT_ORDER", raising=False)
    simt_runtime.library()
    yield
    set_order("")


def run_order(blocks: int, threads: int) -> np.ndarray[Any, Any]:
    """(3, blocks, threads) of (block, thread) in the order in which they passed; phases of one block are together."""
    count, log = np.zeros(1, np.int32), np.full(3 * blocks * threads, -1, np.int32)
    call("order", blocks, threads, count, log)
    assert count[0] == log.size
    return log.reshape(blocks, 3, threads).transpose(1, 0, 2)


# ------------------------------------------------------------------------------------------------ indices and blocks


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("grid", "block"),
    [
        ((1, 1, 1), (1, 1, 1)),
        ((3, 1, 1), (40, 1, 1)),
        ((2, 3, 4), (5, 3, 2)),
        ((1, 2, 1), (1024, 1, 1)),
        ((1, 1, 2), (4, 4, 64)),
        ((1, 1, 2), (1, 1024, 1)),
    ],
)
def test_every_thread_knows_where_it_is(grid: tuple[int, ...], block: tuple[int, ...], order: str) -> None:
    set_order(order)
    told = np.full((*grid[::-1], *block[::-1], 12), 9999, np.uint32)
    call("indices", grid, block, told)
    for at in np.ndindex(*told.shape[:-1]):
        bz, by, bx, tz, ty, tx = at
        assert told[at].tolist() == [tx, ty, tz, bx, by, bz, *block, *grid]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("block", [(32, 1, 1), (64, 2, 1), (8, 8, 16), (1024, 1, 1)])
def test_a_correct_kernel_gives_the_same_bits_in_every_order(block: tuple[int, ...], order: str) -> None:
    grid, threads = (2, 1, 3), int(np.prod(block))
    x = np.random.default_rng(rotating_seed()).standard_normal((6, threads), np.float32)
    sums = np.full_like(x, np.nan)
    set_order(order)
    call("block_sum", grid, block, x, sums)
    warps = x.reshape(6, -1, 32)
    for step in (16, 8, 4, 2, 1):  # as the lanes add: the bits are known
        warps = warps + warps[:, :, np.arange(32) ^ step]
    total = np.zeros(6, np.float32)
    for warp in range(threads // 32):
        total += warps[:, warp, 0]
    following = (np.arange(threads) // 32 + 1) % (threads // 32)
    np.testing.assert_array_equal(sums, total[:, None] + following.astype(np.float32))


# ------------------------------------------------------------------------------------------------------------ orders


def test_forward_is_forward() -> None:
    set_order("fwd")
    phases = run_order(3, 70)
    expected = np.arange(3)[:, None] * 1024 + np.arange(70)
    for phase in phases:
        np.testing.assert_array_equal(phase, expected)


def test_reverse_is_reverse_in_blocks_and_threads() -> None:
    set_order("rev")
    phases = run_order(3, 70)
    expected = np.arange(3)[::-1, None] * 1024 + np.arange(70)[::-1]
    np.testing.assert_array_equal(phases[0], expected)
    np.testing.assert_array_equal(phases[1], expected)
    for block in phases[2]:  # warps run as they become ready, lanes of each from the last
        for warp in range(3):
            lanes = block[(block % 1024) // 32 == warp]
            assert (np.diff(lanes) == -1).all()


@pytest.mark.parametrize("kind", ["rand", "prio"])
def test_seeds_decide_and_repeat(kind: str) -> None:
    def run(seed: int) -> bytes:
        set_order(f"{kind}:{seed}")
        phases = run_order(7, 128)
        for phase in phases:  # everyone once, blocks one after another
            blocks = phase // 1024
            assert (blocks == blocks[:, :1]).all()
            assert sorted(blocks[:, 0]) == list(range(7))
        for before, after, last in phases.transpose(1, 0, 2) % 1024:  # behind the barrier, a warp may be ahead
            assert sorted(before) == list(range(128))
            assert sorted([*after, *last]) == sorted([*range(128), *range(128)])
        return phases.tobytes()

    runs = [run(seed) for seed in range(6)]
    assert runs == [run(seed) for seed in range(6)]
    assert len(set(runs)) == 6


def test_random_mixes_threads_and_barriers_keep_phases_apart() -> None:
    set_order("rand:3")
    phases = run_order(1, 256)
    assert (phases[0, 0] != np.arange(256)).sum() > 200
    assert (phases[0, 0] != phases[1, 0]).any()


def test_priority_runs_one_warp_as_far_as_it_gets() -> None:
    set_order("prio:5")
    for block in run_order(4, 256).transpose(1, 0, 2):
        warps = block // 32 % 32
        assert (np.abs(np.diff(warps[0])) > 0).sum() == 7  # one warp after another up to the barrier
        # Behind the barrier a warp passes both remaining places before the next warp passes one.
        later = warps[1:].reshape(-1)
        assert (np.abs(np.diff(later)) > 0).sum() == 7
    firsts = {int(block[0] // 32) for seed in range(8) for block in [_first_block(seed)]}
    assert len(firsts) > 2  # which warp that is, the seed decides


def _first_block(seed: int) -> np.ndarray[Any, Any]:
    set_order(f"prio:{seed}")
    return np.asarray(run_order(1, 256)[0, 0])


def test_the_environment_decides_until_set_order_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCNN_SIMT_ORDER", "rev")
    assert run_order(1, 8)[0, 0].tolist() == list(range(8))[::-1]
    set_order("fwd")
    assert run_order(1, 8)[0, 0].tolist() == list(range(8))
    set_order("")
    assert run_order(1, 8)[0, 0].tolist() == list(range(8))[::-1]
    monkeypatch.setenv("GPUCNN_SIMT_ORDER", "")
    assert run_order(1, 8)[0, 0].tolist() == list(range(8))


BAD_ORDERS = ["forward", "rand", "rand:", "rand:x", "rand:-1", "rand:1 ", "prio:0x1", "fwd ", "FWD", "rand:" + "9" * 19]


@pytest.mark.parametrize("order", BAD_ORDERS)
def test_unknown_orders_are_refused(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Fault, match="fwd, rev, rand:N and prio:N"):
        set_order(order)
    monkeypatch.setenv("GPUCNN_SIMT_ORDER", order)
    with pytest.raises(Fault, match="GPUCNN_SIMT_ORDER is") as caught:
        run_order(1, 8)
    assert f"'{order}'" in str(caught.value)
    monkeypatch.delenv("GPUCNN_SIMT_ORDER")
    run_order(1, 8)


# ----------------------------------------------------------------------------------------------------------- atomics

OPERATIONS: list[Callable[[int, int], int]] = [
    lambda old, x: old + x,
    lambda old, x: min(old, x),
    lambda old, x: max(old, x),
    lambda old, x: old & x,
    lambda old, x: old | x,
    lambda old, x: old ^ x,
    lambda old, x: x,
]
ATOMIC_TYPES = {
    "atomic_int32": np.int32,
    "atomic_uint32": np.uint32,
    "atomic_int64": np.int64,
    "atomic_uint64": np.uint64,
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ATOMIC_TYPES)
def test_atomics(name: str, order: str) -> None:
    """Each returns what it found, and what the next finds is what it left; the first and the last order are known."""
    kind = np.dtype(ATOMIC_TYPES[name])
    rng = np.random.default_rng(rotating_seed())
    set_order(order)
    for operation, change in enumerate(OPERATIONS):
        if name == "atomic_int64" and operation == 0:  # CUDA has none
            continue
        operands = rng.integers(np.iinfo(kind).min, np.iinfo(kind).max, 256, kind, endpoint=True)
        place, returned = np.array([operands[0] // 3], kind), np.zeros(256, kind)
        start = int(place[0])
        call(name, operation, place, operands, returned)
        left = [wrapped(change(int(old), int(x)), kind) for old, x in zip(returned, operands, strict=True)]
        assert sorted([start, *left]) == sorted([*returned.tolist(), int(place[0])])
        turns = {"fwd": range(256), "rev": range(255, -1, -1)}.get(order, ())
        value = start
        for t in turns:
            assert returned[t] == value
            value = left[t]


def wrapped(value: int, kind: np.dtype[Any]) -> int:
    return int(np.array(value % (1 << 8 * kind.itemsize), f"u{kind.itemsize}").view(kind))


def test_compare_and_swap_takes_only_what_it_expects() -> None:
    place, returned = np.array([0], np.int32), np.zeros(256, np.int32)
    set_order("fwd")  # thread t swaps t for t + 1: all succeed
    call("atomic_int32", 7, place, np.zeros(256, np.int32), returned)
    assert place[0] == 256
    assert returned.tolist() == list(range(256))
    place[0] = 0
    set_order("rev")  # only thread 0, the last, finds what it expects
    call("atomic_int32", 7, place, np.zeros(256, np.int32), returned)
    assert place[0] == 1
    assert (returned == 0).all()


def test_subtraction_wraps() -> None:
    place, returned = np.array([5], np.uint32), np.zeros(256, np.uint32)
    call("atomic_uint32", 8, place, np.full(256, 1, np.uint32), returned)
    assert place[0] == np.uint32((5 - 256) % (1 << 32))


# ----------------------------------------------------------------------------------------- shared and global memory


@pytest.mark.parametrize("order", ["fwd", "rev", "prio:1"])
def test_shared_memory_starts_as_nan_in_every_block(order: str) -> None:
    set_order(order)
    bits, places = np.zeros(25, np.uint32), np.zeros((64, 7), np.uint64)
    call("shared", 64, bits, places)  # three blocks, each of which leaves numbers behind
    assert (bits[:22] == 0xFFFFFFFF).all()
    assert bits[22] == 0xFF
    assert (bits[23:] == 0xFFFFFFFF).all()


def test_shared_arrays_are_apart_aligned_and_the_same_for_all_threads() -> None:
    bits, places = np.zeros(25, np.uint32), np.zeros((64, 7), np.uint64)
    call("shared", 64, bits, places)
    assert (places == places[0]).all()
    tile, total, byte, buffer, first, second, again = places[0].tolist()
    assert first == again != second  # one array for each template instance
    assert buffer % 1024 == 0
    assert all(place % 16 == 0 for place in (tile, total, byte, first, second))
    sizes = {tile: 84, total: 12, byte: 1, buffer: 64, first: 20, second: 20}
    ends = sorted((place, place + size) for place, size in sizes.items())
    assert all(end + 256 <= following for (_, end), (following, _) in pairwise(ends))


def test_as_much_shared_memory_as_there_is() -> None:
    result = np.zeros(32, np.float32)
    call("static_shared", (227 - 48) * 1024, result)  # 48 KiB static on top
    assert (result == 5).all()
    with pytest.raises(Fault, match=r"'all' \(.*block\.cu:\d+\).*227 KiB"):
        call("static_shared", (227 - 48) * 1024 + 1, result)


def test_wide_and_guarded_access() -> None:
    n = 60
    raw = np.arange(1, 132, dtype=np.float32)
    x = raw[(-raw.ctypes.data // 4) % 4 :][:64]  # aligned to 16 bytes
    assert x.ctypes.data % 16 == 0
    y = np.zeros(4 * n + 64 + 68, np.float32)
    y = y[(-y.ctypes.data // 4) % 4 :]
    call("wide", x, y, n)
    for copy in range(3):
        np.testing.assert_array_equal(y[copy * n : (copy + 1) * n], x[:n])
    np.testing.assert_array_equal(y[3 * n : 3 * n + 64], np.where(np.arange(64) < n, x, -1))
    np.testing.assert_array_equal(y[3 * n + 64 : 3 * n + 128], np.where(np.arange(64) < n, x, 0))


def test_numbers() -> None:
    results = np.zeros(12, np.float32)
    call("numbers", np.array([np.nan, 2, 7], np.float32), results)
    assert results.tolist() == [2, 2, 0.5, -2, 5, 8, 4, 31, 32, 2.5, -0.5, 7]
    call("numbers", np.array([3, -2, 7], np.float32), results)
    assert results[:2].tolist() == [-2, 3]


# ------------------------------------------------------------------------------------------------------------ limits

REFUSED = [
    ((0, 1, 1), (1, 1, 1), 0, r"grid of \(0, 1, 1\) has no blocks"),
    ((1, 1, 1), (1, 0, 1), 0, r"block of \(1, 0, 1\) has no threads"),
    ((1, 65536, 1), (1, 1, 1), 0, r"beyond the limit of \(2147483647, 65535, 65535\)"),
    ((1, 1, 65536), (1, 1, 1), 0, r"beyond the limit of \(2147483647, 65535, 65535\)"),
    ((2**31, 1, 1), (1, 1, 1), 0, r"grid of \(2147483648, 1, 1\) is beyond"),
    ((1, 1, 1), (1025, 1, 1), 0, r"block of \(1025, 1, 1\) is beyond the limit of 1024 threads"),
    ((1, 1, 1), (33, 32, 1), 0, "1024 threads"),
    ((1, 1, 1), (2**31, 2, 1), 0, "1024 threads"),
    ((1, 1, 1), (1, 2**16, 2**16), 0, "1024 threads"),
    ((1, 1, 1), (1, 1, 65), 0, "64 in z"),
    ((1, 1, 1), (1, 1, 1), 227 * 1024 + 1, r"232449 bytes of dynamic shared memory.*232448 \(227 KiB\)"),
]


@pytest.mark.parametrize(("grid", "block", "shared_bytes", "message"), REFUSED)
def test_launches_beyond_the_hardware_are_refused(
    grid: tuple[int, ...], block: tuple[int, ...], shared_bytes: int, message: str
) -> None:
    with pytest.raises(Fault, match=f"kernel nothing_kernel can't be launched: .*{message}"):
        call("limits", grid, block, shared_bytes)
    call("limits", (1, 1, 1), (32, 1, 1), 227 * 1024)


def test_the_largest_block_and_a_long_grid() -> None:
    call("limits", (1, 1, 1), (16, 1, 64), 0)
    call("limits", (70000, 1, 1), (1, 1, 1), 0)
    call("limits", (1, 65535, 1), (1, 1, 1), 0)


# ------------------------------------------------------------------------------------------------------- many threads


def test_launches_of_several_threads_take_turns() -> None:
    """ctypes releases Python's lock, as bindings do: the launches themselves have to exclude each other."""
    running, most = np.zeros(1, np.int32), np.zeros(1, np.int32)
    wrong: list[str] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(5):
            call("slow", running, most)
            block = (int(rng.integers(1, 5)) * 32, 1, 1)
            x, sums = np.ones((6, block[0]), np.float32), np.zeros((6, block[0]), np.float32)
            call("block_sum", (6, 1, 1), block, x, sums)
            if not (sums >= block[0]).all():
                wrong.append(f"{block}: {sums.min()}")
            try:
                call("run_case", "divergent_barrier", x)
                wrong.append("no Fault")
            except Fault as fault:
                if "divergent barrier" not in str(fault):
                    wrong.append(str(fault))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert most[0] == 1
    assert running[0] == 0


def test_signals_that_come_while_a_kernel_runs_are_handled() -> None:
    """They are delivered on whatever stack runs: a thread's."""
    before, rung = signal.getsignal(signal.SIGALRM), []
    x, sums = np.ones((6, 1024), np.float32), np.zeros((6, 1024), np.float32)
    signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        while len(rung) < 20:
            call("block_sum", (6, 1, 1), (1024, 1, 1), x, sums)
            assert (sums >= 1024).all()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

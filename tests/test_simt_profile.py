"""The profiler's counts where they can be known by hand: coalescing, bank conflicts, divergence, traffic, the order of
places in a program; in every order of threads."""

from __future__ import annotations

import ctypes
import functools
import resource
from dataclasses import dataclass

import numpy as np
import pytest
from kernel_checks import ORDERS
from op_checks import SEED
from simt_checks import compiler
from simt_library import build

NAMES = (
    *("requests", "lanes", "sectors", "ideal", "lines", "unique_bytes"),
    *("shared_requests", "shared_lanes", "wavefronts", "ideal_wavefronts"),
    *("sectors_read", "sectors_written", "least_l2", "barriers", "steps", "longest_warp", "longest_block", "warps"),
    *("blocks", "sampled", "operations"),
)


@functools.cache
def library() -> ctypes.CDLL:
    sources = ["profile_cases.cu", "cases.cpp", "profile_access.cpp"]
    loaded = ctypes.CDLL(str(build("profile", "profile", compiler(), [f"tests/simt/{name}" for name in sources])))
    loaded.run_case.restype = ctypes.c_char_p
    return loaded


def totals(
    case: str, order: str = "fwd", sample: int = 1, operation: str = "", only_sampled: bool = False
) -> dict[str, int]:
    """What the profiler counts in the one launch of a case."""
    found = (ctypes.c_uint64 * len(NAMES))()
    library().start_profile(sample, int(only_sampled))
    assert library().run_case(case.encode(), order.encode()) == b"right"
    assert library().take_totals(operation.encode(), found) == 1
    library().start_profile(0, 0)
    return dict(zip(NAMES, found, strict=True))


@dataclass(frozen=True)
class Known:
    """Requests, sectors, the least sectors and lines of global memory; requests and wavefronts of shared memory."""

    requests: int = 0
    sectors: int = 0
    ideal: int = 0
    lines: int = 0
    shared_requests: int = 0
    wavefronts: int = 0


KNOWN = {
    "copy_2": Known(2, 4, 4, 2),
    "copy_4": Known(2, 8, 8, 2),
    "copy_4_by_one": Known(2, 10, 8, 4),
    "copy_8": Known(2, 16, 16, 4),
    "copy_8_by_one": Known(2, 18, 16, 6),
    "copy_16": Known(2, 32, 32, 8),
    "copy_16_by_one": Known(2, 34, 32, 10),
    "copy_plain_4": Known(2, 8, 8, 2),
    "copy_scalars": Known(8, 128, 32, 32),
    "stride_2": Known(1, 8, 4, 2),
    "stride_32": Known(1, 32, 4, 32),
    "broadcast": Known(1, 1, 1, 1),
    "half_a_warp": Known(1, 2, 2, 1),
    "warp_of_20": Known(2, 6, 6, 2),
    "rows_written": Known(0, 0, 0, 0, 32, 32),
    "columns_read": Known(0, 0, 0, 0, 64, 32 + 32 * 32),
    "columns_read_padded": Known(0, 0, 0, 0, 64, 64),
    "shared_4_broadcast": Known(0, 0, 0, 0, 1, 1),
    "shared_4_stride_8": Known(0, 0, 0, 0, 1, 2),
    "shared_8_stride_8": Known(0, 0, 0, 0, 1, 2),
    "shared_8_stride_16": Known(0, 0, 0, 0, 1, 4),
    "shared_16_stride_16": Known(0, 0, 0, 0, 1, 4),
    "shared_16_stride_64": Known(0, 0, 0, 0, 1, 16),
    "shared_16_stride_128": Known(0, 0, 0, 0, 1, 32),
    "shared_16_stride_144": Known(0, 0, 0, 0, 1, 4),
    "matrix_16": Known(0, 0, 0, 0, 1, 4),
    "matrix_128": Known(0, 0, 0, 0, 1, 32),
    "matrix_144": Known(0, 0, 0, 0, 1, 4),
    "matrix_swizzled": Known(0, 0, 0, 0, 1, 4),
    "copies_16": Known(1, 16, 16, 4, 2, 4 + 4),  # the shared reads after it: stride 16 bytes, 4 words of 4 rows a bank
    "copies_16_of_20": Known(1, 10, 10, 3, 2, 4 + 4),
    "trips_1_to_4": Known(4, 16, 10, 4),
    "trips_nested": Known(4, 16, 12, 4),
    "border": Known(8, 32, 32, 8),
    "border_guarded": Known(8, 32, 32, 8),
    "window": Known(9, 24, 24, 9),
    "window_guarded": Known(9, 24, 24, 9),
    "ragged_end": Known(8, 26, 26, 8),
    "ragged_rows": Known(8, 28, 24, 12),  # rows of 84 bytes
    "if_else": Known(2, 8, 4, 2),
    "two_calls": Known(2, 8, 6, 2),
    "loop_20000": Known(20000, 80000, 80000, 20000),
    "lane_0_10000": Known(10001, 10004, 10004, 10001),
    "atomics_one_word": Known(2, 2, 2, 2),
    "multiply_add_50": Known(2, 8, 8, 2),
}


@pytest.mark.parametrize("case", KNOWN)
def test_requests_are_those_of_the_hardware(case: str) -> None:
    found, known = totals(case), KNOWN[case]
    counted = {name: found[name] for name in vars(known)}
    assert counted == vars(known)


@pytest.mark.parametrize("case", sorted(set(KNOWN) - {"loop_20000", "lane_0_10000"}))
@pytest.mark.parametrize("order", ORDERS[1:])
def test_counts_do_not_depend_on_the_order_of_threads(case: str, order: str) -> None:
    assert totals(case, order) == totals(case)


def test_traffic_counts_each_sector_once() -> None:
    found = totals("blocks_of_one_read")  # 40 blocks copy the same 128 bytes
    assert (found["sectors_read"], found["sectors_written"]) == (4, 4)
    assert found["least_l2"] == 40 * (4 + 4)  # each block's first reads, and its stores
    assert found["sectors"] == 40 * 8
    again = totals("loop_20000")
    assert again["least_l2"] == again["sectors_read"] == 4 * 32


def test_memory_does_not_grow_with_the_length_of_a_kernel() -> None:
    totals("loop_20000")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert totals("loop_200000")["requests"] == 200_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2_000  # KiB; its events would take 100 MB


def test_sampled_blocks_are_said() -> None:
    found = totals("blocks_of_one_read", sample=16)
    assert (found["blocks"], found["sampled"], found["requests"]) == (40, 3, 6)


def test_blocks_that_are_not_sampled_may_be_left_out() -> None:
    assert totals("blocks_of_one_read", sample=16, only_sampled=True) == totals("blocks_of_one_read", sample=16)


def test_barriers_and_matrix_instructions_are_counted() -> None:
    assert totals("columns_read")["barriers"] == 1
    assert totals("matrix_products", operation="mma_m16n8k16_bf16")["operations"] == 3
    assert totals("matrix_products", operation="mma_m16n8k8_tf32")["operations"] == 1
    assert totals("matrix_16", operation="ldmatrix_x4")["operations"] == 1


def test_unlike_work_of_warps_shows() -> None:
    found = totals("unlike_warps")
    assert found["warps"] == 12
    assert found["longest_warp"] > 1.5 * found["steps"] / found["warps"]
    assert found["longest_block"] == found["steps"] / 3


def cost(lanes: int, size: int, addresses: np.ndarray) -> tuple[int, ...]:
    """Sectors, lines, unique bytes, ideal sectors, wavefronts, ideal wavefronts."""
    found = (ctypes.c_uint32 * 6)()
    given = np.ascontiguousarray(addresses, np.uint64)
    library().cost_of(ctypes.c_uint32(lanes), ctypes.c_uint32(size), ctypes.c_void_p(given.ctypes.data), found)
    return tuple(found)


def naive_cost(lanes: int, size: int, addresses: np.ndarray) -> tuple[int, ...]:
    """The same from sets of bytes and words."""
    taking = [lane for lane in range(32) if lanes >> lane & 1]
    each = {lane: {int(addresses[lane]) + i for i in range(size)} for lane in taking}
    asked = set().union(*each.values()) if each else set()
    part = 32 if size <= 4 else 16 if size == 8 else 8
    waves = ideal = 0
    for first in range(0, 32, part):
        words = {byte // 4 for lane in taking if first <= lane < first + part for byte in each[lane]}
        if words:
            waves += max(sum(word % 32 == bank for word in words) for bank in range(32))
            ideal += 1
    return len({b // 32 for b in asked}), len({b // 128 for b in asked}), len(asked), -(-len(asked) // 32), waves, ideal


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16])
def test_costs_of_random_requests_are_those_of_sets(size: int) -> None:
    rng = np.random.default_rng([SEED, size])
    for _ in range(150):
        reach = int(rng.choice([64, 512, 4096, 1 << 20]))
        step = int(rng.choice([1, 4, size]))  # not always aligned
        addresses = rng.integers(0, reach // step, 32) * step
        lanes = int(rng.integers(0, 1 << 32)) if rng.integers(2) else (1 << 32) - 1
        assert cost(lanes, size, addresses) == naive_cost(lanes, size, addresses), (lanes, size, addresses)


def ranks(places: int, steps: list[tuple[int, int]]) -> list[int]:
    pairs = np.ascontiguousarray(steps, np.uint32).reshape(-1, 2)
    found = np.zeros(places, np.uint32)
    library().ranks_of(places, len(pairs), ctypes.c_void_p(pairs.ctypes.data), ctypes.c_void_p(found.ctypes.data))
    return found.tolist()


def test_a_join_comes_after_both_branches() -> None:
    found = ranks(4, [(0, 2), (2, 1), (0, 3), (3, 1)])  # place 1 is the join, though its counter is low
    assert found[0] < min(found[2], found[3]) <= max(found[2], found[3]) < found[1]


def test_what_follows_a_loop_comes_after_its_body() -> None:
    found = ranks(6, [(0, 1), (1, 2), (2, 3), (3, 2), (3, 1), (1, 4), (4, 5)])  # two nested loops, left at their head
    assert found[0] < found[1] < found[2] < found[3] < found[4] < found[5]


def test_the_order_of_a_deep_program_needs_no_deep_stack() -> None:
    places = 50_000
    steps = [(i, i + 1) for i in range(places - 1)] + [(i, i - 7) for i in range(7, places, 1000)]
    assert ranks(places, steps) == list(range(places))


def test_random_graphs_without_loops_are_sorted() -> None:
    rng = np.random.default_rng([SEED, 1])
    for _ in range(50):
        names = rng.permutation(20)
        steps = [(int(names[i]), int(names[j])) for i in range(20) for j in range(i + 1, 20) if rng.random() < 0.2]
        found = ranks(20, steps)
        assert sorted(found) == list(range(20))
        assert all(found[a] < found[b] for a, b in steps)

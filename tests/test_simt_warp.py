"""Warp operations of the SIMT layer: every one, at every lane, under full and partial masks, against a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import simt_runtime
from simt_runtime import Fault, call, set_order

from gpucnn.testing import rotating_seed

ORDERS = ("fwd", "rev", f"rand:{rotating_seed()}", f"prio:{rotating_seed()}")
TYPES = {
    "shuffle_int32": np.int32,
    "shuffle_float32": np.float32,
    "shuffle_int64": np.int64,
    "shuffle_float16": np.float16,
}
Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True, params=ORDERS)
def order(request: pytest.FixtureRequest) -> Iterator[str]:
    simt_runtime.library()
    set_order(request.param)
    yield request.param
    set_order("")


def source_lane(operation: str, lane: int, parameter: int, width: int) -> int:
    """Which lane's value a shuffle brings, as the programming guide tells it; of a distance five bits count (PTX)."""
    parameter %= 32
    start = lane // width * width
    inside = lane % width
    if operation == "idx":
        return start + parameter % width
    if operation == "up":
        return lane - parameter if inside - parameter >= 0 else lane
    if operation == "down":
        return lane + parameter if inside + parameter < width else lane
    other = lane ^ parameter
    return other if other < start + width else lane  # lanes of earlier groups can be read, of later ones not


SHUFFLES = ("idx", "up", "down", "xor")


def run_shuffle(name: str, operation: str, masks: Array, values: Array, parameters: Array, width: int) -> Array:
    results = np.zeros_like(values)
    number = SHUFFLES.index(operation)
    call(name, len(values), number, masks, values, parameters.astype(np.int32), width, results)
    return results


def values_of(name: str, count: int, rng: np.random.Generator) -> Array:
    kind = np.dtype(TYPES[name])
    if kind.kind == "f":
        return rng.standard_normal(count).astype(kind)
    return rng.integers(np.iinfo(kind).min, np.iinfo(kind).max, count, kind)


@pytest.mark.parametrize("operation", SHUFFLES)
@pytest.mark.parametrize("name", TYPES)
def test_shuffles_with_full_masks(name: str, operation: str) -> None:
    rng = np.random.default_rng(rotating_seed())
    values = values_of(name, 64, rng)
    masks = np.full(64, 0xFFFFFFFF, np.uint32)
    for width in (1, 2, 4, 8, 16, 32):
        for parameter in (*range(33), 40):
            results = run_shuffle(name, operation, masks, values, np.full(64, parameter), width)
            sources = [t // 32 * 32 + source_lane(operation, t % 32, parameter, width) for t in range(64)]
            np.testing.assert_array_equal(results, values[sources])


@pytest.mark.parametrize("operation", SHUFFLES)
def test_shuffles_whose_lanes_ask_for_different_things(operation: str) -> None:
    rng = np.random.default_rng(rotating_seed())
    values = values_of("shuffle_int32", 96, rng)
    masks = np.full(96, 0xFFFFFFFF, np.uint32)
    for width in (4, 32):
        parameters = rng.integers(0, 32, 96)
        results = run_shuffle("shuffle_int32", operation, masks, values, parameters, width)
        sources = [t // 32 * 32 + source_lane(operation, t % 32, int(parameters[t]), width) for t in range(96)]
        np.testing.assert_array_equal(results, values[sources])


def random_masks(rng: np.random.Generator, threads: int) -> Array:
    """Each warp's lanes in up to five groups; group 0 takes no part. For each thread the mask of its group."""
    masks = np.zeros(threads, np.uint32)
    for first in range(0, threads, 32):
        groups = rng.integers(0, 6, min(32, threads - first))
        for group in range(1, 6):
            members = np.flatnonzero(groups == group)
            masks[first + members] = sum(1 << int(lane) for lane in members)
    return masks


@pytest.mark.parametrize("operation", SHUFFLES)
@pytest.mark.parametrize("threads", [32, 75])
def test_shuffles_with_partial_masks(operation: str, threads: int) -> None:
    """Groups of lanes shuffle apart; who asks for a lane that is not in its group is told so."""
    rng = np.random.default_rng(rotating_seed())
    results_seen = faults_seen = 0
    for _ in range(60):
        masks, width = random_masks(rng, threads), int(rng.choice([4, 8, 32]))
        values, parameters = values_of("shuffle_int32", threads, rng), rng.integers(0, 5, threads)
        sources = [source_lane(operation, t % 32, int(parameters[t]), width) for t in range(threads)]
        if rng.integers(2):  # else most masks would be wrong for some lane
            for t in range(threads):
                if masks[t] and not int(masks[t]) >> sources[t] & 1:
                    parameters[t] = t % 32 if operation == "idx" else 0
                    sources[t] = t % 32
        right = all(int(masks[t]) >> sources[t] & 1 for t in range(threads) if masks[t])
        if right:
            results = run_shuffle("shuffle_int32", operation, masks, values, parameters, width)
            for t in range(threads):
                assert results[t] == (values[t // 32 * 32 + sources[t]] if masks[t] else 0)
            results_seen += 1
        else:
            with pytest.raises(Fault, match=r"wrong mask: lane \d+ .* shuffles from lane \d+ at .*warp\.cu:\d+"):
                run_shuffle("shuffle_int32", operation, masks, values, parameters, width)
            faults_seen += 1
    assert results_seen > 5
    assert faults_seen > 5


def fold(join: Callable[[int, int], int], values: list[int]) -> int:
    result = values[0]
    for value in values[1:]:
        result = join(result, value)
    return result


def check_reduction(name: str, operation: int, join: Callable[[int, int], int], values: Array, masks: Array) -> None:
    results = np.zeros_like(values)
    call(name, len(values), operation, masks, values, results)
    for t, mask in enumerate(masks.tolist()):
        if mask == 0:
            assert results[t] == 0
            continue
        first = t // 32 * 32
        taking_part = [
            int(values[first + lane]) for lane in range(32) if mask >> lane & 1 and first + lane < len(values)
        ]
        expected = fold(join, taking_part) & 0xFFFFFFFF
        assert int(results[t]) & 0xFFFFFFFF == expected


@pytest.mark.parametrize("kind", ["int32", "uint32"])
@pytest.mark.parametrize("operation", ["add", "min", "max"])
def test_reductions(operation: str, kind: str) -> None:
    rng = np.random.default_rng(rotating_seed())
    limits = np.iinfo(kind)
    joins: dict[str, Callable[[int, int], int]] = {"add": lambda a, b: a + b, "min": min, "max": max}
    for threads in (32, 64, 75, 1):
        for masks in (np.full(threads, 0xFFFFFFFF, np.uint32), random_masks(rng, threads)):
            values = rng.integers(limits.min, limits.max, threads, kind, endpoint=True)
            check_reduction(f"reduce_{kind}", list(joins).index(operation), joins[operation], values, masks)


@pytest.mark.parametrize("operation", ["and", "or", "xor"])
def test_bitwise_reductions(operation: str) -> None:
    rng = np.random.default_rng(rotating_seed())
    joins: dict[str, Callable[[int, int], int]] = {
        "and": lambda a, b: a & b,
        "or": lambda a, b: a | b,
        "xor": lambda a, b: a ^ b,
    }
    for threads in (32, 75):
        for masks in (np.full(threads, 0xFFFFFFFF, np.uint32), random_masks(rng, threads)):
            values = rng.integers(0, 1 << 32, threads, np.uint32)
            check_reduction("bits_uint32", list(joins).index(operation), joins[operation], values, masks)


@pytest.mark.parametrize("operation", ["ballot", "any", "all"])
def test_votes(operation: str) -> None:
    """Under every pattern of one lane, of all but one, of none and all, and random ones."""
    rng = np.random.default_rng(rotating_seed())
    patterns = [0, 0xFFFFFFFF, *(1 << lane for lane in range(32)), *(0xFFFFFFFF ^ 1 << lane for lane in range(32))]
    for threads in (32, 75):
        for pattern in [*patterns, *rng.integers(0, 1 << 32, 20).tolist()]:
            masks = random_masks(rng, threads) if rng.integers(2) else np.full(threads, 0xFFFFFFFF, np.uint32)
            # Any value but 0 is true, also one whose low bits are 0.
            values = np.array([(int(pattern) >> t % 32 & 1) << 31 for t in range(threads)], np.uint32)
            results = np.zeros(threads, np.uint32)
            call("bits_uint32", threads, 3 + ["ballot", "any", "all"].index(operation), masks, values, results)
            for t, mask in enumerate(masks.tolist()):
                there = mask & ((1 << min(32, threads - t // 32 * 32)) - 1)
                ballot = int(pattern) & there
                expected = {"ballot": ballot, "any": int(ballot != 0), "all": int(ballot == there)}[operation]
                assert results[t] == (expected if mask else 0)


@pytest.mark.parametrize("threads", [32, 64, 1024])
def test_syncwarp_orders_what_lanes_write_and_read(threads: int) -> None:
    results = np.zeros(threads, np.int32)
    call("relay", threads, results)
    t = np.arange(threads)
    np.testing.assert_array_equal(results, t // 32 * 32 + (t + 5) % 32)

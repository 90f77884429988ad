"""The instruction models: cp.async, ldmatrix, mma.sync, 16-bit floats, each against a model of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import simt_runtime
from simt_runtime import call, set_order

from gpucnn.testing import rotating_seed

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True, params=["fwd", "rev", f"rand:{rotating_seed()}"])
def order(request: pytest.FixtureRequest) -> Iterator[str]:
    simt_runtime.library()
    set_order(request.param)
    yield request.param
    set_order("")


# ---------------------------------------------------------------------------------------------------------- cp.async

COPY, COMMIT, WAIT, WAIT_ALL = range(4)
UNFINISHED = 0xFFFFFFFF


def run_copies(steps: list[tuple[int, int, int]], source: Array, eager: bool) -> Array:
    """(3 threads, steps, 8 places, 4 words) as each thread's shared memory is after each step."""
    seen = np.zeros((3, len(steps), 8, 4), np.uint32)
    call("copies", np.array(steps, np.int32), len(steps), source, seen, int(eager))
    return seen


def model_of_copies(steps: list[tuple[int, int, int]], source: Array, eager: bool) -> Array:
    memory = np.full((8, 4), 7, np.uint32)
    groups: list[list[tuple[int, int]]] = [[]]  # committed ones, and the one being made
    done = 0
    seen = []

    def finish(count: int) -> None:
        nonlocal done
        for group in groups[done:count]:
            for place, size in group:
                if not eager:
                    write(place, size)
        done = max(done, count)

    def write(place: int, size: int) -> None:
        memory[place, : (size or 16) // 4] = source[place, : size // 4] if size else 0

    for what, argument, size in steps:
        if what == COPY:
            memory[argument, : (size or 16) // 4] = UNFINISHED
            groups[-1].append((argument, size))
            if eager:
                write(argument, size)
        elif what == COMMIT:
            groups.append([])
        elif what == WAIT:
            finish(max(0, len(groups) - 1 - argument))
        else:
            groups.append([])
            finish(len(groups) - 1)
        seen.append(memory.copy())
    return np.array(seen)


def test_copies_are_finished_by_their_wait_and_not_before() -> None:
    source = np.arange(100, 132, dtype=np.uint32).reshape(8, 4)
    nan = UNFINISHED
    expected: list[tuple[tuple[int, int, int], int, list[int]]] = [  # a step, a place, what that then holds
        ((COPY, 0, 16), 0, [nan] * 4),
        ((COMMIT, 0, 0), 0, [nan] * 4),
        ((COPY, 1, 8), 1, [nan, nan, 7, 7]),
        ((COPY, 2, 4), 2, [nan, 7, 7, 7]),
        ((COMMIT, 0, 0), 0, [nan] * 4),
        ((COPY, 3, 0), 3, [nan] * 4),  # of zeros
        ((COMMIT, 0, 0), 3, [nan] * 4),
        ((WAIT, 2, 0), 0, [100, 101, 102, 103]),
        ((WAIT, 2, 0), 1, [nan, nan, 7, 7]),
        ((WAIT, 1, 0), 1, [104, 105, 7, 7]),
        ((WAIT, 1, 0), 2, [108, 7, 7, 7]),
        ((WAIT, 1, 0), 3, [nan] * 4),
        ((WAIT, 0, 0), 3, [0, 0, 0, 0]),
        ((COPY, 4, 16), 4, [nan] * 4),
        ((WAIT, 0, 0), 4, [nan] * 4),  # which waits for committed ones only
        ((WAIT_ALL, 0, 0), 4, [116, 117, 118, 119]),
    ]
    steps = [step for step, _, _ in expected]
    for seen in run_copies(steps, source, eager=False):
        assert [seen[i, place].tolist() for i, (_, place, _) in enumerate(expected)] == [row for *_, row in expected]
    for seen in run_copies(steps, source, eager=True):
        assert (seen != nan).all()


@pytest.mark.parametrize("eager", [False, True])
def test_copies_in_any_sequence(eager: bool) -> None:
    rng = np.random.default_rng(rotating_seed())
    for _ in range(40):
        source = rng.integers(0, 1 << 31, (8, 4), np.uint32)
        steps = []
        for _ in range(30):
            what = int(rng.choice(4, p=[0.5, 0.25, 0.15, 0.1]))
            argument = int(rng.integers(8)) if what == COPY else int(rng.integers(3))
            steps.append((what, argument, int(rng.choice([0, 4, 8, 16])) if what == COPY else 0))
        expected = model_of_copies(steps, source, eager)
        for thread in run_copies(steps, source, eager):
            np.testing.assert_array_equal(thread, expected)


# --------------------------------------------------------------------------- store_global(), store_shared() and anew()


@pytest.mark.parametrize("size", [8, 16])
def test_a_word_is_stored_where_it_belongs(size: int) -> None:
    x = np.arange(32 * size // 4, dtype=np.uint32)
    room = np.zeros(x.size + 12, np.uint32)
    start = -room.ctypes.data % 16 // 4 + 4
    call("store_global", size, x, room[start : start + x.size])
    np.testing.assert_array_equal(room, np.pad(x, (start, room.size - start - x.size)))


def test_words_are_stored_side_by_side_in_shared_memory() -> None:
    x, y = np.arange(32 * 4, dtype=np.uint32).reshape(32, 4), np.zeros((32, 4), np.uint32)
    call("store_shared", x, y, 16)
    np.testing.assert_array_equal(y, x)


def test_a_word_between_words_of_shared_memory_is_refused() -> None:
    x, y = np.zeros((32, 4), np.uint32), np.zeros((32, 4), np.uint32)
    with pytest.raises(simt_runtime.Fault, match="16"):
        call("store_shared", x, y, 8)


def test_a_number_anew_is_the_number() -> None:
    x = np.array([0, 1, 2**31, 2**32 - 1] * 8, np.uint32)
    y = np.zeros_like(x)
    call("anew", x, y)
    np.testing.assert_array_equal(y, x)


# ---------------------------------------------------------------------------------------------------------- ldmatrix


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("matrices", [1, 2, 4])
def test_ldmatrix(matrices: int, transposed: bool) -> None:
    """Rows from anywhere; of the addresses of lanes beyond 8 a matrix nothing is taken."""
    rng = np.random.default_rng(rotating_seed())
    elements = rng.permutation(64 * 8).astype(np.uint16).reshape(64, 8)
    for rows in (np.arange(32), rng.integers(0, 64, 32)):
        fragments = np.zeros((32, matrices), np.uint32)
        call("ldmatrix", matrices, int(transposed), elements, rows.astype(np.int32), fragments)
        for matrix in range(matrices):
            tile = elements[rows[8 * matrix : 8 * matrix + 8]]
            tile = tile.T if transposed else tile
            for lane in range(32):
                low, high = tile[lane // 4, 2 * (lane % 4)], tile[lane // 4, 2 * (lane % 4) + 1]
                assert fragments[lane, matrix] == int(low) | int(high) << 16


# --------------------------------------------------------------------------------------------------------------- mma

BF16, FP16, TF32 = range(3)
DEPTH = {BF16: 16, FP16: 16, TF32: 8}


def to_bits(kind: int, x: Array) -> Array:
    """float32 values, which the type holds exactly, as elements of fragments."""
    if kind == FP16:
        return x.astype(np.float16).view(np.uint16).astype(np.uint32)
    return x.astype(np.float32).view(np.uint32) >> (16 if kind == BF16 else 0)


def fragments_of(kind: int, a: Array, b: Array) -> tuple[Array, Array]:
    """a (16, K) and b (K, 8) as 32 lanes hold them, from the tables of the PTX manual."""
    a_bits, b_bits = to_bits(kind, a), to_bits(kind, b)
    fa, fb = np.zeros((32, 4), np.uint32), np.zeros((32, 2), np.uint32)
    for lane in range(32):
        group, within = lane // 4, lane % 4
        if kind == TF32:
            for i in range(4):
                fa[lane, i] = a_bits[group + 8 * (i in (1, 3)), within + 4 * (i >= 2)]
            for i in range(2):
                fb[lane, i] = b_bits[within + 4 * i, group]
            continue
        for i in range(8):  # elements a0 to a7, two a register
            row = group if i in (0, 1, 4, 5) else group + 8
            column = within * 2 + (i & 1) + (8 if i >= 4 else 0)
            fa[lane, i // 2] |= a_bits[row, column] << 16 * (i % 2)
        for i in range(4):
            row = within * 2 + (i & 1) + (8 if i >= 2 else 0)
            fb[lane, i // 2] |= b_bits[row, group] << 16 * (i % 2)
    return fa, fb


def accumulators_of(d: Array) -> Array:
    spread = np.zeros((32, 4), np.float32)
    for lane in range(32):
        for i in range(4):
            spread[lane, i] = d[lane // 4 + 8 * (i >= 2), lane % 4 * 2 + (i & 1)]
    return spread


def run_mma(kind: int, a: Array, b: Array, c: Array) -> Array:
    """c + a @ b, as two warps compute it at once; the second has c and b, and zeros for a."""
    fa, fb = fragments_of(kind, a, b)
    d = np.stack([accumulators_of(c)] * 2)
    call("mma", kind, np.stack([fa, np.zeros_like(fa)]), np.stack([fb] * 2), d)
    if np.isfinite(b).all():
        np.testing.assert_array_equal(d[1], accumulators_of(c))
    result = np.zeros((16, 8), np.float32)
    for lane in range(32):
        for i in range(4):
            result[lane // 4 + 8 * (i >= 2), lane % 4 * 2 + (i & 1)] = d[0, lane, i]
    return result


def rounded(kind: int, x: Array) -> Array:
    """The nearest values that the type has, toward zero where it is not float16: any will do for a test."""
    if kind == FP16:
        return x.astype(np.float16).astype(np.float32)
    mask = 0xFFFF0000 if kind == BF16 else 0xFFFFE000
    return (x.astype(np.float32).view(np.uint32) & np.uint32(mask)).view(np.float32)


def added_up(sums: Array, products: Array) -> Array:
    """float32 (16, 8) and float64 (16, n, 8): each element's addends cut off 24 bits below the leading bit of the
    largest of them, and their sum to float32."""
    addends = np.concatenate([sums[:, None].astype(np.float64), products], axis=1)
    unit = 2.0 ** (np.frexp(np.abs(addends).max(axis=1))[1] - 1 - 24)
    total = np.trunc(addends / unit[:, None]).sum(axis=1) * unit
    nearest = total.astype(np.float32)
    toward_zero = np.nextafter(nearest, np.float32(0))
    return np.where(np.abs(nearest.astype(np.float64)) > np.abs(total), toward_zero, nearest)


@pytest.mark.parametrize("kind", [BF16, FP16, TF32], ids=["bf16", "fp16", "tf32"])
class TestMma:
    def test_small_integers_exactly(self, kind: int) -> None:
        rng = np.random.default_rng(rotating_seed())
        a = rng.integers(-8, 9, (16, DEPTH[kind])).astype(np.float32)
        b = rng.integers(-8, 9, (DEPTH[kind], 8)).astype(np.float32)
        c = rng.integers(-1000, 1000, (16, 8)).astype(np.float32)
        np.testing.assert_array_equal(run_mma(kind, a, b, c), c + a @ b)

    def test_every_element_is_where_it_belongs(self, kind: int) -> None:
        """One element of a and one of b at a time meet in one element of d, or nowhere."""
        rng = np.random.default_rng(rotating_seed())
        zero = np.zeros((16, 8), np.float32)
        for _ in range(25):
            i, j, k, m = rng.integers(0, [16, 8, DEPTH[kind], DEPTH[kind]])
            a, b = np.zeros((16, DEPTH[kind]), np.float32), np.zeros((DEPTH[kind], 8), np.float32)
            a[i, k], b[m, j] = 3, 5
            expected = zero.copy()
            expected[i, j] = 15 if k == m else 0
            np.testing.assert_array_equal(run_mma(kind, a, b, zero), expected)

    def test_random_numbers_are_cut_off_as_documented(self, kind: int) -> None:
        """Bit for bit, so many products at a time; and near float64, if not as near as with rounding."""
        rng = np.random.default_rng(rotating_seed())
        a = rounded(kind, rng.standard_normal((16, DEPTH[kind])))
        b = rounded(kind, rng.standard_normal((DEPTH[kind], 8)))
        c = rng.standard_normal((16, 8)).astype(np.float32)
        expected = c.copy()
        at_once = 4 if kind == TF32 else 8
        for k in range(0, DEPTH[kind], at_once):
            products = a[:, k : k + at_once, None].astype(np.float64) * b[k : k + at_once].astype(np.float64)
            expected = added_up(expected, products)
        found = run_mma(kind, a, b, c)
        np.testing.assert_array_equal(found, expected)
        exact = c + a.astype(np.float64) @ b.astype(np.float64)
        scale = np.abs(c) + np.abs(a).astype(np.float64) @ np.abs(b)
        assert (np.abs(found - exact) <= DEPTH[kind] * 2.0**-23 * scale).all()

    def test_infinities_nan_and_denormals(self, kind: int) -> None:
        depth = DEPTH[kind]
        smallest = {BF16: 2.0**-133, FP16: 2.0**-24, TF32: 2.0**-136}[kind]
        a, b = np.zeros((16, depth), np.float32), np.ones((depth, 8), np.float32)
        a[0, 0], a[1, 0], a[2, 0], a[3, 1] = np.inf, np.nan, -np.inf, smallest
        a[4, 0], a[4, 1] = np.inf, -np.inf
        found = run_mma(kind, a, b, np.zeros((16, 8), np.float32))
        assert (found[0] == np.inf).all()
        assert np.isnan(found[1]).all()
        assert (found[2] == -np.inf).all()
        assert (found[3] == np.float32(smallest)).all()
        assert np.isnan(found[4]).all()
        assert (found[5:] == 0).all()


def test_tf32_ignores_the_low_13_bits() -> None:
    rng = np.random.default_rng(rotating_seed())
    a, b = rng.standard_normal((16, 8)).astype(np.float32), rng.standard_normal((8, 8)).astype(np.float32)
    c = np.zeros((16, 8), np.float32)
    cut_a, cut_b = rounded(TF32, a), rounded(TF32, b)
    assert (cut_a != a).any()
    np.testing.assert_array_equal(run_mma(TF32, a, b, c), run_mma(TF32, cut_a, cut_b, c))


# ----------------------------------------------------------------------------------------------------- 16-bit floats

EVERY = np.arange(1 << 16, dtype=np.uint16)


def from_bits(name: str, bits: Array) -> Array:
    values = np.full(bits.size, 123, np.float32)
    call(f"from_{name}", bits, values, bits.size)
    return values


def bits_of(name: str, values: Array) -> Array:
    bits = np.full(values.size, 123, np.uint16)
    call(f"to_{name}", np.ascontiguousarray(values, np.float32), bits, values.size)
    return bits


def nearest_bits(finite: Array, values: Array) -> Array:
    """Bits of the nearest of the non-negative values finite[bits] (ascending), ties to even bits, by float64 alone."""
    above = np.searchsorted(finite, values).clip(1, finite.size - 1)
    below = above - 1
    to_above, to_below = finite[above] - values, values - finite[below]
    take_above = (to_above < to_below) | ((to_above == to_below) & (above % 2 == 0))
    return np.where(take_above, above, below)


def truth(name: str) -> tuple[Array, int]:
    """All non-negative values by their bits, and one step further: where infinity is, as if it were a number."""
    if name == "half":
        values = EVERY[:0x7C00].view(np.float16).astype(np.float64)
        return np.append(values, 65536.0), 0x7C00
    values = (EVERY[:0x7F80].astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return np.append(values, 2.0**128), 0x7F80


@pytest.mark.parametrize("name", ["half", "bfloat16"])
def test_every_16_bit_number_to_float(name: str) -> None:
    values = from_bits(name, EVERY)
    if name == "half":
        expected = EVERY.view(np.float16).astype(np.float32)
    else:
        expected = (EVERY.astype(np.uint32) << 16).view(np.float32)
    numbers = ~np.isnan(expected)
    assert (np.isnan(values) == np.isnan(expected)).all()
    np.testing.assert_array_equal(values[numbers].view(np.uint32), expected[numbers].view(np.uint32))


@pytest.mark.parametrize("name", ["half", "bfloat16"])
def test_every_16_bit_number_comes_back(name: str) -> None:
    values = from_bits(name, EVERY)
    expected = np.where(np.isnan(values), 0x7FFF, EVERY)
    np.testing.assert_array_equal(bits_of(name, values), expected)


@pytest.mark.parametrize("name", ["half", "bfloat16"])
def test_floats_between_16_bit_numbers(name: str) -> None:
    """Around every number and every midpoint between two, ties included; and random bits."""
    finite, infinity = truth(name)
    middles = ((finite[:-1] + finite[1:]) / 2).astype(np.float32)
    numbers = finite[:-1].astype(np.float32)
    near = np.concatenate(
        [np.nextafter(x, np.float32(limit)) for x in (middles, numbers) for limit in (0, np.inf)] + [middles, numbers]
    )
    rng = np.random.default_rng(rotating_seed())
    random = rng.integers(0, 0x7F800000, 300_000, np.uint32).view(np.float32)
    values = np.concatenate([near, random]).astype(np.float32)
    values = values[np.isfinite(values)]
    expected = nearest_bits(finite, values.astype(np.float64)).astype(np.uint16)
    expected[values >= finite[-1]] = infinity
    np.testing.assert_array_equal(bits_of(name, values), expected)
    np.testing.assert_array_equal(bits_of(name, -values), expected | 0x8000)


@pytest.mark.parametrize("name", ["half", "bfloat16"])
def test_floats_that_are_no_numbers(name: str) -> None:
    infinity = truth(name)[1]
    assert bits_of(name, np.array([np.inf, -np.inf, np.nan, -np.nan], np.float32)).tolist() == [
        infinity,
        infinity | 0x8000,
        0x7FFF,
        0x7FFF,
    ]
    nans = np.concatenate([np.arange(1, 1 << 13), [0x7FFFFF, 0x400000, 0x3FFFFF]]).astype(np.uint32) | 0x7F800000
    assert (bits_of(name, nans.view(np.float32)) == 0x7FFF).all()

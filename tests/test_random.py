"""Philox 4x32-10: published known answers, a second implementation, and what a counter-based generator promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpucnn.random import philox4x32, split64

SEED = 0x5EED
FULL = 0xFFFFFFFF

# The known-answer file of Random123, the reference library of the paper's authors: counter, key, answer.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> Any:
    return tuple(int(word, 16) for word in text.split())


def in_plain_integers(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """The paper's definition: ten rounds of two 32x32-bit products, the key bumped by Weyl constants between them."""
    c, k = list(counter), list(key)
    for round_ in range(10):
        if round_ > 0:
            k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
        high0, low0 = divmod(0xD2511F53 * c[0], 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c[2], 2**32)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
    return tuple(c)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_known_answers(counter: str, key: str, answer: str) -> None:
    assert tuple(int(word) for word in philox4x32(words(counter), words(key))) == words(answer)
    assert in_plain_integers(words(counter), words(key)) == words(answer)
    arrays = philox4x32(tuple(np.array([word], np.uint32) for word in words(counter)), words(key))  # type: ignore[arg-type]
    assert tuple(int(word[0]) for word in arrays) == words(answer)


@pytest.mark.parametrize("key", [(0, 0), (FULL, FULL), (1, 0), (0, 1), (2**31, 12345), (FULL, 0)])
def test_arrays_agree_with_plain_integers_over_the_whole_range(key: tuple[int, int]) -> None:
    rng = np.random.default_rng(SEED)
    counters = rng.integers(0, 2**32, (4, 200), np.uint64)
    counters[:, 0], counters[:, 1] = 0, FULL
    found = philox4x32(tuple(counters), key)  # type: ignore[arg-type]
    expected = [in_plain_integers(tuple(int(word) for word in column), key) for column in counters.T]
    assert np.array_equal(np.stack(found, axis=1), np.array(expected, np.uint64))


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64, np.int64])
def test_counters_broadcast(dtype: Any) -> None:
    rows, columns = np.arange(3, dtype=dtype)[:, None], np.arange(5, dtype=dtype)
    found = philox4x32((rows, columns, 7, 9), (1, 2))
    for word in found:
        assert word.shape == (3, 5)
        assert word.dtype == np.uint64
        assert word.max() <= FULL
    for i in range(3):
        for j in range(5):
            assert tuple(int(word[i, j]) for word in found) == in_plain_integers((i, j, 7, 9), (1, 2))


def test_an_empty_counter_gives_empty_words() -> None:
    assert [word.shape for word in philox4x32((np.zeros(0, np.uint32), 0, 0, 0), (0, 0))] == [(0,)] * 4


def test_inputs_are_left_alone() -> None:
    counter = tuple(np.full(4, word, np.uint64) for word in range(4))
    philox4x32(counter, (5, 6))  # type: ignore[arg-type]
    assert [word.tolist() for word in counter] == [[word] * 4 for word in range(4)]


def test_an_element_depends_on_its_counter_alone() -> None:
    whole = philox4x32((np.arange(100, dtype=np.uint32), 3, 0, 0), (8, 9))
    part = philox4x32((np.arange(40, 60, dtype=np.uint32)[::-1], 3, 0, 0), (8, 9))
    for one, other in zip(whole, part, strict=True):
        assert np.array_equal(one[40:60][::-1], other)


def test_every_word_of_counter_and_key_matters_in_every_word_of_the_answer() -> None:
    """One flipped bit of the 192 flips each answer bit half the time: 64 of 128 on average, never few."""
    rng = np.random.default_rng(SEED)
    start = [int(word) for word in rng.integers(0, 2**32, 6, np.uint64)]
    before = np.array(philox4x32(tuple(start[:4]), tuple(start[4:])))  # type: ignore[arg-type]
    flips = []
    for bit in range(192):
        changed = start.copy()
        changed[bit // 32] ^= 1 << bit % 32
        after = np.array(philox4x32(tuple(changed[:4]), tuple(changed[4:])))  # type: ignore[arg-type]
        assert (before != after).all()
        flips.append(sum(int(word).bit_count() for word in before ^ after))
    assert min(flips) >= 35  # five standard deviations of sqrt(128)/2 from 64
    assert max(flips) <= 93
    assert np.mean(flips) == pytest.approx(64, abs=5 * 5.66 / np.sqrt(192))


@pytest.mark.parametrize("word", range(4))
def test_words_are_uniform(word: int) -> None:
    count = 1 << 16
    drawn = philox4x32((np.arange(count, dtype=np.uint32), 0, 0, 0), (SEED, 0))[word]
    assert len(np.unique(drawn)) > count - 10  # 0.5 collisions are expected
    bits = (drawn[:, None] >> np.arange(32, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(bits.mean(axis=0) - 0.5).max() <= 5 * 0.5 / np.sqrt(count)
    for shift in (0, 24):  # low and high byte; chi-square with 255 degrees of freedom: 255 +- 5 * sqrt(510)
        histogram = np.bincount(((drawn >> np.uint64(shift)) & np.uint64(255)).astype(np.int64), minlength=256)
        chi_square = float(np.sum((histogram - count / 256) ** 2) / (count / 256))
        assert 142 <= chi_square <= 368
    unit = drawn / 2.0**32
    assert abs(unit.mean() - 0.5) <= 5 * np.sqrt(1 / 12 / count)
    assert abs(np.corrcoef(unit[:-1], unit[1:])[0, 1]) <= 5 / np.sqrt(count)


def test_keys_give_unrelated_streams() -> None:
    count = 1 << 14
    counter = (np.arange(count, dtype=np.uint32), 0, 0, 0)
    streams = [philox4x32(counter, key)[0] / 2.0**32 for key in ((0, 0), (1, 0), (0, 1), (2, 0))]
    correlations = np.corrcoef(streams) - np.eye(4)
    assert np.abs(correlations).max() <= 5 / np.sqrt(count)


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        (0, 0, 0),
        (1, 1, 0),
        (FULL, FULL, 0),
        (FULL + 1, 0, 1),
        (2**64 - 1, FULL, FULL),
        (0x123456789ABCDEF0, 0x9ABCDEF0, 0x12345678),
    ],
)
def test_split64(value: int, low: int, high: int) -> None:
    assert split64(value) == (low, high)
    assert low + (high << 32) == value


@pytest.mark.parametrize("value", [-1, 2**64, -(2**64), 10**30])
def test_split64_refuses_what_64_bits_do_not_hold(value: int) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 2\*\*64\)"):
        split64(value)


@pytest.mark.parametrize(
    ("counter", "key"), [((0, 0, 0, 2**32), (0, 0)), ((0, 0, 0, 0), (2**32, 0)), ((0, 0, 0, 0), (0, -1))]
)
def test_philox_refuses_words_that_do_not_fit(counter: tuple[int, int, int, int], key: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 2\*\*32\)"):
        philox4x32(counter, key)

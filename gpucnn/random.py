"""Counter-based random numbers: the same counter and key give the same bits on every backend.

Philox 4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). A generator
without state is what makes a dropout mask, a shuffle or an augmentation a function of *where* it is drawn (seed, call,
element) and not of what was drawn before: a resumed run repeats an undisturbed one, and a CUDA thread needs no
neighbour.
"""

from __future__ import annotations

import operator
import threading
from typing import Any

import numpy as np

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF
_ROUNDS = 10


def philox4x32(counter: tuple[Any, Any, Any, Any], key: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    """Four random 32-bit words for each 128-bit counter.

    Args:
        counter: four words, low word first; integers below 2**32 or unsigned arrays that broadcast (numpy or cupy).
        key: two words below 2**32.

    Returns:
        Four uint64 arrays of the broadcast shape whose values are below 2**32.

    Raises:
        ValueError: a word of the key, or an integer of the counter, that does not fit 32 bits. (Arrays are not looked
            through: on a GPU that would wait for them.)
    """
    for word in (*key, *(c for c in counter if isinstance(c, int))):
        if not 0 <= word <= _LOW:
            raise ValueError(f"a word of a counter or key must lie in [0, 2**32), got {word}")
    c0, c1, c2, c3 = (c.astype(np.uint64) if hasattr(c, "astype") else np.uint64(c) for c in counter)
    k0, k1 = key
    low, shift = np.uint64(_LOW), np.uint64(32)
    m0, m1 = (np.uint64(m) for m in _MULTIPLIERS)
    for _ in range(_ROUNDS):
        product0, product1 = c0 * m0, c2 * m1
        c0, c1, c2, c3 = (
            (product1 >> shift) ^ c1 ^ np.uint64(k0),
            product1 & low,
            (product0 >> shift) ^ c3 ^ np.uint64(k1),
            product0 & low,
        )
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return c0, c1, c2, c3


def split64(value: int) -> tuple[int, int]:
    """A non-negative integer below 2**64 as (low, high) 32-bit words; a ValueError for any other."""
    if not 0 <= value < 2**64:
        raise ValueError(f"a seed or counter must lie in [0, 2**64), got {value}")
    return value & _LOW, value >> 32


class _Stream:
    """The library's own source of seeds: one seed, and how many calls have drawn from it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seed = 0
        self.call = 0


_stream = _Stream()


def manual_seed(seed: int) -> None:
    """Starts the library's random numbers (initial weights, dropout) anew from `seed`, in [0, 2**64)."""
    set_state({"seed": seed, "call": 0})


def next_call() -> tuple[int, int]:
    """(seed, number of this call): what a caller draws from them is its own and can be drawn again."""
    with _stream.lock:
        call = _stream.call
        _stream.call += 1
        return _stream.seed, call


def state() -> dict[str, int]:
    """What `set_state` needs to go on from here."""
    with _stream.lock:
        return {"seed": _stream.seed, "call": _stream.call}


def set_state(state: dict[str, int]) -> None:
    """Goes on from where `state()` was taken. ValueError for a seed or number of calls outside [0, 2**64)."""
    seed, call = operator.index(state["seed"]), operator.index(state["call"])
    split64(seed)
    split64(call)
    with _stream.lock:
        _stream.seed, _stream.call = seed, call


def host_generator() -> np.random.Generator:
    """A numpy generator of its own for one draw on the host, such as a layer's initial weights."""
    seed, call = next_call()
    return np.random.Generator(np.random.Philox(key=np.array([seed, call], np.uint64)))

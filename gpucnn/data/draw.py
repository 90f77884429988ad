"""Random numbers for data: functions of seed, epoch and image, never of what was drawn before.

That is what lets a run that was killed go on with the same images in the same order, wherever in the epoch it resumes.
"""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucnn.random import philox4x32, split64

# The counter's last word says what is drawn, so that no draw repeats another's bits under the same seed.
_DRAW = 0xDA7A_0000
_SHUFFLE = 0x5407_0000
_WORDS = 4
_MAX_STREAMS = 1 << 16


class Draw:
    """Random numbers for the images of one batch.

    A *stream* numbers the values an image needs: a shift takes one for each axis. The same seed, epoch, image and
    stream always give the same value.

    Args:
        seed: in [0, 2**64).
        epoch: in [0, 2**32).
        indices: (N,) places of the batch's images in the data set.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(self, seed: int, epoch: int, indices: ArrayLike) -> None:
        self._key = split64(seed)
        self._epoch = checked_epoch(epoch)
        places = np.asarray(indices, dtype=np.int64)
        if places.ndim != 1 or (places.size and places.min() < 0):
            raise ValueError(f"indices must be a list of places from 0, got an array of shape {places.shape}")
        self._places = places.astype(np.uint64)
        self._first, self._count = 0, _MAX_STREAMS
        self._blocks: dict[int, tuple[NDArray[np.uint64], ...]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def integers(self, low: int, high: int, stream: int = 0) -> NDArray[np.int64]:
        """(N,) integers uniform in [low, high); the range is at most 2**32 wide."""
        if not 0 < high - low <= 1 << 32:
            raise ValueError(f"expected low < high <= low + 2**32, got low={low}, high={high}")
        scaled: NDArray[np.uint64] = (self._words(stream) * np.uint64(high - low)) >> np.uint64(32)
        values = scaled.astype(np.int64)
        values += low
        return values

    def uniform(self, stream: int = 0) -> NDArray[np.float64]:
        """(N,) numbers uniform in [0, 1), multiples of 2**-32."""
        return np.multiply(self._words(stream), 2.0**-32, dtype=np.float64)

    def window(self, first: int, count: int) -> Draw:
        """The same draw seen through its streams [first, first + count), numbered from 0: what one of several takes."""
        if first < 0 or count < 0 or first + count > self._count:
            raise ValueError(f"streams {first} to {first + count - 1} asked for of {self._count}")
        part = copy.copy(self)  # shallow: the blocks already drawn stay shared
        part._first, part._count = self._first + first, count
        return part

    def _words(self, stream: int) -> NDArray[np.uint64]:
        if not 0 <= stream < self._count:
            raise ValueError(
                f"stream {stream} asked for of {self._count}: a transform takes as many as its `streams` says"
            )
        block, word = divmod(self._first + stream, _WORDS)
        if block not in self._blocks:
            low, high = self._places & np.uint64(0xFFFF_FFFF), self._places >> np.uint64(32)
            self._blocks[block] = philox4x32((low, high, self._epoch, _DRAW + block), self._key)
        return self._blocks[block][word]


def permutation(size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The numbers 0 to size - 1 in an order that depends on size, seed and epoch alone.

    Each number gets 64 random bits and they are sorted by them, so that the order owes nothing to numpy's version.
    """
    pairs = np.arange((size + 1) // 2, dtype=np.uint64)
    low, high = pairs & np.uint64(0xFFFF_FFFF), pairs >> np.uint64(32)
    words = philox4x32((low, high, checked_epoch(epoch), _SHUFFLE), split64(seed))
    keys = np.stack([words[0] << np.uint64(32) | words[1], words[2] << np.uint64(32) | words[3]], axis=1)
    return np.argsort(keys.reshape(-1)[:size], kind="stable").astype(np.int64, copy=False)


def checked_epoch(epoch: int) -> int:
    """The epoch, or a ValueError where it is not in [0, 2**32)."""
    if not 0 <= epoch < 1 << 32:
        raise ValueError(f"epoch must lie in [0, 2**32), got {epoch}")
    return epoch

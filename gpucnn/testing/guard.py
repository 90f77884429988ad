"""Poison and canaries: an output array in which every missed and every stray write shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpucnn.testing.compare import to_numpy

_ZONE = 4096  # bytes of canary on each side, a multiple of the alignment
_ALIGNMENT = 256  # what a CUDA allocation guarantees, so that wide loads are tried here too
_SHOWN = 8
# A NaN of each floating type by its bits. The poison's payload tells it from a NaN that was computed.
_NAN_BITS = {"float64": 0x7FF8 << 48, "float32": 0x7FC0 << 16, "float16": 0x7E00, "bfloat16": 0x7FC0}
_POISON = 0x5A5A5A5A5A5A5A5A

Memory = Literal["C", "NHWC"]


@dataclass(frozen=True, eq=False)
class Guarded:
    """An array between two zones of canaries; `guarded` makes it.

    Attributes:
        array: what to write into; the poison fills it.
    """

    array: Any
    _buffer: Any
    _before: NDArray[np.uint8]
    _after: NDArray[np.uint8]
    _memory: Memory

    def check(self, written: bool = False, name: str = "") -> None:
        """No byte around the array changed and, with `written`, no element still holds the poison.

        An element computed from poison may carry its bits on, and counts as unwritten too; so does an integer that
        happens to equal the sentinel.

        Raises:
            AssertionError: the side that was overwritten, from where to where; the unwritten elements' coordinates.
        """
        __tracebackhide__ = True
        buffer = to_numpy(self._buffer)
        start, stop = len(self._before), len(buffer) - len(self._after)
        itemsize = self.array.dtype.itemsize
        found = []
        if strays := np.flatnonzero(buffer[:start] != self._before).tolist():
            far, near = start - strays[0], start - strays[-1]
            found.append(
                f"overwritten before the array: {len(strays)} bytes, from {far} to {near} bytes before its start "
                f"(element {-far // itemsize} to {-near // itemsize})"
            )
        if strays := np.flatnonzero(buffer[stop:] != self._after).tolist():
            size = (stop - start) // itemsize
            found.append(
                f"overwritten after the array: {len(strays)} bytes, from {strays[0]} to {strays[-1]} past its end "
                f"(element {size + strays[0] // itemsize} to {size + strays[-1] // itemsize} of {size})"
            )
        if written:
            bits = _view(buffer[start:stop], self.array.shape, np.dtype(f"u{itemsize}"), self._memory)
            missed = np.argwhere(bits == _poison_bits(self.array.dtype))
            if len(missed):
                shown = ", ".join(str(tuple(place)) for place in missed[:_SHOWN].tolist())
                more = ", ..." if len(missed) > _SHOWN else ""
                found.append(f"{len(missed)} of {bits.size} elements never written: {shown}{more}")
        if found:
            raise AssertionError((f"{name}: " if name else "") + "; ".join(found))


def guarded(shape: tuple[int, ...], dtype: DTypeLike, memory: Memory = "C", xp: Any = np) -> Guarded:
    """An array full of poison, between canaries.

    The poison is NaN (integers and bool: bytes of 0x5A, far outside any sensible range). The canaries of floating
    dtypes
    are NaNs as well, so a kernel that reads past an array it was given gives itself away in its results: an input can
    be guarded by writing it into `.array`. They differ from place to place, so a shifted copy does not restore them.

    Args:
        shape: logical.
        dtype: float64, float32, float16, bfloat16, an integer or bool.
        memory: "C" for a C-contiguous array; "NHWC" for the (N, C, H, W) view of an (N, H, W, C) one.
        xp: numpy, or cupy for an array on the current GPU.

    Raises:
        TypeError: a dtype that has no poison.
        ValueError: "NHWC" with a shape that is not 4-D, or another memory order.
    """
    element = np.dtype(dtype)
    if memory not in ("C", "NHWC"):
        raise ValueError(f"memory must be 'C' or 'NHWC', got {memory!r}")
    if memory == "NHWC" and len(shape) != 4:
        raise ValueError(f"memory 'NHWC' needs a shape (N, C, H, W), got {shape}")
    bits = _poison_bits(element)
    word = np.dtype(f"u{element.itemsize}")
    poison = np.full(int(np.prod(shape)), bits, word).view(np.uint8)
    zones = np.random.default_rng(poison.size).integers(0, 2**63, (2, _ZONE // element.itemsize), np.uint64)
    # NaNs, and integers with the highest bit set, which no count, index or truth value has.
    canary = _NAN_BITS.get(element.name, 1 << (8 * element.itemsize - 1))
    before, after = (zones | np.uint64(canary)).astype(word).view(np.uint8)

    allocation = xp.empty(_ALIGNMENT + 2 * _ZONE + poison.size, np.uint8)
    skipped = -_address(allocation) % _ALIGNMENT
    buffer = allocation[skipped : skipped + 2 * _ZONE + poison.size]
    buffer[:] = xp.asarray(np.concatenate([before, poison, after]))
    array = _view(buffer[_ZONE : _ZONE + poison.size], shape, element, memory)
    return Guarded(array, buffer, before, after, memory)


def _poison_bits(dtype: np.dtype[Any]) -> int:
    """The poison of one element, in its low bits."""
    low = (1 << 8 * dtype.itemsize) - 1
    if dtype.name in _NAN_BITS:
        nan = _NAN_BITS[dtype.name]
        payload = (nan & -nan) - 1  # the bits below the quiet bit
        return nan | (_POISON & payload)
    if dtype.kind in "iub":
        return _POISON & low
    raise TypeError(f"no poison for dtype {dtype}; floating, integer and bool arrays can be guarded")


def _view(payload: Any, shape: tuple[int, ...], dtype: np.dtype[Any], memory: Memory) -> Any:
    if memory == "NHWC":
        N, C, H, W = shape
        return payload.view(dtype).reshape(N, H, W, C).transpose(0, 3, 1, 2)
    return payload.view(dtype).reshape(shape)


def _address(array: Any) -> int:
    return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr)

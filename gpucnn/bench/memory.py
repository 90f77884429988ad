"""What a contestant's steps take of the memory: of a process on a CPU, of a library's pool on a GPU."""

from __future__ import annotations

import ctypes
import gc
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpucnn import backend

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Peak:
    """Bytes.

    Attributes:
        most: at one time, over `before`.
        before: what was there already and is not counted.
    """

    most: int
    before: int


class Meter(ABC):
    """Sees the most memory that was taken between `begin` and `end`."""

    @abstractmethod
    def begin(self) -> None: ...

    @abstractmethod
    def end(self) -> Peak: ...

    @abstractmethod
    def release(self) -> None:
        """Gives back what is kept but holds nothing."""


class Process(Meter):
    """Of this process on a CPU: the most that is resident (VmHWM of proc(5), reset through clear_refs) over what is
    resident at `begin`, once memory that was freed has gone back to the system.

    Counted is what the steps bring: activations, gradients, the optimiser's state, scratch memory; network and images
    are there before.
    """

    def begin(self) -> None:
        self.release()
        _CLEAR.write_text("5")
        self._before = _resident("VmRSS")

    def end(self) -> Peak:
        return Peak(max(0, _resident("VmHWM") - self._before), self._before)

    def release(self) -> None:
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
        if trim is not None:
            trim(0)


def _resident(name: str) -> int:
    lines = _STATUS.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


class CupyPool(Meter):
    """Of cupy's pool on a GPU: what it has taken from the device at the end, where it began with what was in use.

    Counted is all that the contestant has: weights and images too, but not what was in use before it was made.
    """

    def __init__(self, others: int) -> None:
        self._others = others
        """Bytes that were in use before the contestant was made: `in_use` then."""

    @staticmethod
    def in_use() -> int:
        return int(_pool().used_bytes())

    def begin(self) -> None:
        self.release()

    def end(self) -> Peak:  # the pool grows only
        return Peak(max(0, int(_pool().total_bytes()) - self._others), self._others)

    def release(self) -> None:
        gc.collect()
        _pool().free_all_blocks()


def _pool() -> Any:
    return backend.cupy().get_default_memory_pool()

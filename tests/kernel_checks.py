"""What the tests of the kernels on the CPU share: inputs and outputs between canaries, and how many cases a flavour
has time for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from op_checks import NHWC, draw

from gpucnn.testing import Guarded, guarded

ORDERS = ("fwd", "rev", "rand:7", "prio:7")

_SHARE = {"plain": 1, "cuda": 1, "race": 3, "asan": 6}
"""Of a flavour's cases, one in so many: its slowdown, roughly."""

_Case = TypeVar("_Case")


def sample(flavour: str, cases: Sequence[_Case]) -> Sequence[_Case]:
    """As many of `cases` as the flavour has time for, spread over all of them."""
    return cases[:: _SHARE[flavour]]


def askew(array: NDArray[Any]) -> NDArray[Any]:
    """A copy of which the address is no multiple of 16, between elements that are not to be touched."""
    flat = np.zeros(array.size + 32, array.dtype)
    start = (-flat.ctypes.data % 16) // array.itemsize + 1
    view = flat[start : start + array.size].reshape(array.shape)
    view[...] = array
    assert view.size == 0 or view.ctypes.data % 16
    return view


class Memory:
    """The arrays of one call. Each lies between canaries: outputs are full of poison, inputs can't be written."""

    def __init__(self) -> None:
        self._arrays: list[tuple[str, Guarded, bool]] = []

    def given(self, name: str, array: NDArray[Any], dtype: Any = np.float32) -> NDArray[Any]:
        """An input; of four axes the logical N,C,H,W, which kernels get as N,H,W,C."""
        laid_out = array.transpose(NHWC) if array.ndim == 4 else array
        guard = guarded(laid_out.shape, dtype)
        guard.array[...] = laid_out
        guard.array.flags.writeable = False
        self._arrays.append((name, guard, False))
        return guard.array

    def wanted(
        self, name: str, shape: tuple[int, ...], dtype: Any = np.float32, some_are_poison: bool = False
    ) -> NDArray[Any]:
        """An output, of which every element has to be written; unless right ones may look like an integer's poison."""
        guard = guarded(shape, dtype)
        self._arrays.append((name, guard, not some_are_poison))
        return guard.array

    def check(self, call: str) -> None:
        """Nothing around any array was written, and everything wanted was."""
        __tracebackhide__ = True
        for name, guard, output in self._arrays:
            guard.check(written=output, name=f"{call}: {name}")


class Arrays:
    """Inputs that `dtype` holds, and outputs, `offset` elements after a multiple of 256 bytes; nothing else changes."""

    def __init__(self, dtype: str, offset: int = 0) -> None:
        self.memory, self.dtype, self.offset = Memory(), np.dtype(dtype), offset

    def drawn(self, kind: str, shape: tuple[int, ...], stream: int = 0) -> np.ndarray:
        return draw(kind, shape, stream).astype(self.dtype).astype(np.float64)

    def given(self, name: str, array: Any) -> Any:
        flat = np.concatenate([np.zeros(self.offset), array.reshape(-1)])
        return self.memory.given(name, flat, self.dtype)[self.offset :].reshape(array.shape)

    def wanted(self, name: str, shape: tuple[int, ...]) -> Any:
        flat = self.memory.wanted(name, (self.offset + math.prod(shape),), self.dtype)
        flat[: self.offset] = 0
        return flat[self.offset :].reshape(shape)


def stored(truth: np.ndarray, dtype: str) -> np.ndarray:
    """Sums of small integers are exact in float32, and rounded once."""
    return truth.astype(dtype).astype(np.float64)


class Planted:
    """A kernel module in which some bindings are wrong: of `Planted(module, scale=wrong)`, scale(x, y) is
    wrong(module.scale, x, y)."""

    def __init__(self, module: ModuleType, **wrong: Any) -> None:
        self._module = module
        self._wrong = wrong

    def __getattr__(self, name: str) -> Any:
        binding = getattr(self._module, name)
        if name not in self._wrong:
            return binding
        return lambda *arguments, **options: self._wrong[name](binding, *arguments, **options)

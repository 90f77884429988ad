"""A stand-in for cupy where there is no GPU: arrays of a class of its own, each on a numbered device.

It computes nothing; it shows which branch the code took, and where it asked for what.
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


class FakeArray:
    def __init__(self, values: np.ndarray, device: int) -> None:
        self.values = values
        self.device = SimpleNamespace(id=device)
        self.base = None

    shape = property(lambda self: self.values.shape)
    dtype = property(lambda self: self.values.dtype)
    ndim = property(lambda self: self.values.ndim)
    size = property(lambda self: self.values.size)
    flags = property(lambda self: SimpleNamespace(c_contiguous=self.values.flags.c_contiguous))

    def __setitem__(self, index: Any, value: Any) -> None:
        self.values[index] = value

    def transpose(self, *axes: Any) -> FakeArray:
        return FakeArray(self.values.transpose(*axes), self.device.id)

    def astype(self, dtype: Any, copy: bool = True) -> FakeArray:
        return self if self.dtype == dtype and not copy else FakeArray(self.values.astype(dtype), self.device.id)


class Device:
    current = 0

    def __init__(self, index: int) -> None:
        self.index = index

    def __enter__(self) -> None:
        self.outside, Device.current = Device.current, self.index

    def __exit__(self, *_: object) -> None:
        Device.current = self.outside


def fake_cupy(devices: int) -> ModuleType:
    """A module that can stand in sys.modules as 'cupy', with so many GPUs."""

    def new(values: Any) -> FakeArray:
        return FakeArray(
            np.ascontiguousarray(values.values if isinstance(values, FakeArray) else values), Device.current
        )

    module: Any = ModuleType("cupy")
    module.ndarray = FakeArray
    module.asarray = new
    module.ascontiguousarray = new
    module.asnumpy = lambda array: np.ascontiguousarray(array.values)
    module.empty = lambda shape, dtype: new(np.empty(shape, dtype))
    module.zeros = lambda shape, dtype: new(np.zeros(shape, dtype))
    module.cuda = SimpleNamespace(
        Device=Device,
        is_available=lambda: devices > 0,
        runtime=SimpleNamespace(getDeviceCount=lambda: devices),
    )
    return module  # type: ignore[no-any-return]

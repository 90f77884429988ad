"""What the tests of the compiled modules share: the modules, and objects that claim to be arrays."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from gpucnn import extension

cuda = extension.load()
devices, why_no_device = cuda.device_count() if cuda is not None else (0, extension.why_missing())
needs_extension = pytest.mark.skipif(cuda is None, reason=str(extension.why_missing()))
without_gpu = pytest.mark.skipif(devices > 0, reason="there is a GPU here: this is about machines without one")
needs_gpu = pytest.mark.skipif(devices == 0, reason=f"no CUDA device: {why_no_device}")


def loaded(name: str) -> ModuleType:
    """A module of the package; skips with the reason where it is missing."""
    found = extension.load(name)
    if found is None:
        pytest.skip(str(extension.why_missing(name)))
    return found


class Fake:
    """An object that claims to be an array on a device, and in CPU memory. Nothing may follow its pointer."""

    def __init__(self, shape: Any = (2, 3), **interface: Any) -> None:
        self.__cuda_array_interface__ = self.__array_interface__ = {
            **dict(shape=shape, typestr="<f4", data=(1 << 20, False), version=3),
            **interface,
        }

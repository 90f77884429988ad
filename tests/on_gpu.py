"""gpucnn._cuda as the tests of the kernels on the CPU see a module, so that they test the kernels on a GPU too.

Each call's arrays are taken to the GPU with all that lies around them in their buffers, at addresses that are aligned
as they are on the host; they come back when the kernels have ended. So kernels see the tests' canaries, poison and
crooked addresses, and whatever they write where they should not comes back with them.

Where there is no GPU, GPUCNN_TEST_STAND_IN=1 has the kernels for the CPU do the same with copies of the arrays.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpucnn import backend, extension
from gpucnn.ops.registry import KernelTable, observe_calls

STAND_IN = "GPUCNN_TEST_STAND_IN"
_ALIGNED = 256
"""Bytes to a multiple of which CUDA aligns an allocation."""


class Gpu:
    """The memory of the GPU in use."""

    interface = "__cuda_array_interface__"

    def __init__(self) -> None:
        self._cuda = backend.cupy().cuda

    def take(self, size: int, offset: int) -> tuple[Any, int]:
        """(what holds the memory for as long as it lives, the address of so many bytes at this offset of an aligned
        address); nothing follows them, for compute-sanitizer to see who writes there."""
        memory = self._cuda.alloc(offset + size)
        assert memory.ptr % _ALIGNED == 0, memory.ptr
        return memory, int(memory.ptr) + offset

    def write(self, address: int, host: int, size: int) -> None:
        self._cuda.runtime.memcpy(address, host, size, self._cuda.runtime.memcpyHostToDevice)

    def read(self, address: int, host: int, size: int) -> None:
        self._cuda.runtime.memcpy(host, address, size, self._cuda.runtime.memcpyDeviceToHost)

    def finish(self) -> None:
        self._cuda.runtime.deviceSynchronize()


class Host:
    """Memory of the host that stands in for a GPU's."""

    interface = "__array_interface__"

    def take(self, size: int, offset: int) -> tuple[Any, int]:
        memory = np.empty(offset + size + _ALIGNED, np.uint8)
        return memory, int(memory.ctypes.data) + -memory.ctypes.data % _ALIGNED + offset

    def write(self, address: int, host: int, size: int) -> None:
        _bytes(address, size)[:] = _bytes(host, size)

    def read(self, address: int, host: int, size: int) -> None:
        _bytes(host, size)[:] = _bytes(address, size)

    def finish(self) -> None:
        """Kernels on the CPU have ended when their call returns."""


def _bytes(address: int, size: int) -> Any:
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), np.uint8)


class Mirror:
    """What a binding is given in an array's place: the same claims, but for where the data are."""

    def __init__(self, interface: str, claims: dict[str, Any]) -> None:
        setattr(self, interface, claims)


LARGEST = 1 << 29
"""Bytes of the largest buffer that is copied; what is larger is there for kernels to refuse."""


class Buffer:
    """A copy of the whole memory that an array and its views share."""

    def __init__(self, device: Gpu | Host, root: Any) -> None:
        self._device, self._root = device, root
        self.low, high = np.lib.array_utils.byte_bounds(root)
        self._memory, self.address = device.take(high - self.low, self.low % _ALIGNED)
        self._size = high - self.low if root.size and high - self.low <= LARGEST else 0
        if self._size:
            device.write(self.address, self.low, self._size)

    def bring_back(self) -> None:
        if self._size and self._root.flags.writeable:
            self._device.read(self.address, self.low, self._size)


class OnDevice:
    """A module of kernels whose bindings take numpy arrays and compute on copies of these in a device's memory."""

    flavour = "cuda"
    __name__ = "gpucnn._simt_cuda"

    def __init__(self, module: Any, device: Gpu | Host) -> None:
        self._module, self._device = module, device
        self.SimtError = getattr(module, "SimtError", None) or module.CudaError

    def set_order(self, order: str) -> None:
        """The GPU's own is the only one."""

    def reports(self) -> list[str]:
        """No checker watches."""
        return []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        return self._moved(found) if callable(found) else found

    def _moved(self, binding: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            buffers: dict[int, Buffer] = {}
            given = [self._mirrored(each, buffers) for each in arguments]
            named = {name: self._mirrored(each, buffers) for name, each in options.items()}
            try:
                return binding(*given, **named)
            finally:
                if buffers:
                    self._device.finish()
                for buffer in buffers.values():
                    buffer.bring_back()

        return call

    def _mirrored(self, given: Any, buffers: dict[int, Buffer]) -> Any:
        if isinstance(given, (list, tuple)):
            items = [self._mirrored(each, buffers) for each in given]
            return type(given)(*items) if hasattr(given, "_fields") else type(given)(items)
        if not isinstance(given, np.ndarray):
            return given
        root = given
        while isinstance(root.base, np.ndarray):
            root = root.base
        buffer = buffers.get(id(root)) or buffers.setdefault(id(root), Buffer(self._device, root))
        claims = dict(given.__array_interface__)
        claims["data"] = (buffer.address + given.ctypes.data - buffer.low, not given.flags.writeable)
        return Mirror(self._device.interface, claims)


def module() -> OnDevice | None:
    """The kernels on the GPU of this machine, or what stands in for them; None without either."""
    if os.environ.get(STAND_IN) == "1":
        return OnDevice(extension.require("_simt_plain"), Host())
    cuda = extension.load()
    if cuda is None or cuda.device_count()[0] == 0 or backend.gpu_count() == 0:
        return None
    return OnDevice(cuda, Gpu())


@contextmanager
def in_use(module: OnDevice) -> Iterator[None]:
    """Inside, backend `simt` runs the kernels of this module."""
    before = extension.compiled
    extension.compiled = lambda backend: module  # type: ignore[assignment,return-value]
    try:
        with backend.use_backend("simt", strict=True):
            yield
    finally:
        extension.compiled = before


@contextmanager
def forced(kernel: str | None) -> Iterator[None]:
    """Inside, this kernel runs wherever an op has one of that name, as in `gpucnn.profile.capture(kernel=...)`."""

    def run(table: KernelTable, problem: Any, arrays: tuple[Any, ...], asked: str | None, like: Any) -> Any:
        has = kernel is not None and any(spec.name == kernel.partition(":")[0] for spec in table.specs("simt"))
        return table.pick(problem, like, asked or (kernel if has else None)).run(problem, *arrays)

    with observe_calls(run):
        yield

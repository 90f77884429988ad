"""Where arrays live, in which order they lie in memory, and which backend computes on them.

The lowest room: everything above asks here for an array library, a device, memory, or the backend in use.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import sys
import threading
from types import ModuleType
from typing import Any

import numpy as np

from gpucnn import extension

log = logging.getLogger("gpucnn")

Array = Any
"""A numpy.ndarray or a cupy.ndarray; no third kind reaches an op."""

array_types: set[type] = {np.ndarray}
"""numpy's and, once tensors hold them, cupy's: to see at one look that something is an array."""

FLOAT_DTYPES = (np.dtype("float32"), np.dtype("float64"), np.dtype("float16"))
FLOAT_KINDS = "fV"
"""numpy's letters for the floating dtypes that tensors hold: V stands for bfloat16, and tensors hold no other such."""

BACKENDS = ("reference", "cuda", "simt")
"""Every backend that a kernel can be registered for. A compiled CPU backend is one more name here, and its kernels."""

OLDEST_CAPABILITY = (8, 0)
"""Of a GPU that the kernels run on."""

CUPY_REMEDY = "pip install 'gpucnn[cuda13]' (driver for CUDA 13) or 'gpucnn[cuda12]' (driver for CUDA 12)"


# ---------------------------------------------------------------------------------------------- array libraries


def cupy() -> ModuleType:
    """The cupy module. Raises RuntimeError with the remedy where it is not installed or can't be loaded."""
    try:
        import cupy as module
    except ModuleNotFoundError as error:
        raise RuntimeError(f"arrays on a GPU need cupy, which is not installed: {CUPY_REMEDY}") from error
    except ImportError as error:
        raise RuntimeError(f"arrays on a GPU need cupy, which can't be loaded ({error}): {CUPY_REMEDY}") from error
    return module  # type: ignore[no-any-return]


def namespace(array: Array) -> Any:
    """The library (numpy or cupy) that `array` belongs to."""
    if isinstance(array, np.ndarray):
        return np
    loaded = sys.modules.get("cupy")
    if loaded is not None and isinstance(array, loaded.ndarray):
        return loaded
    raise TypeError(f"expected a numpy or cupy array, got {type(array).__name__}")


def as_array(data: Any, dtype: Any = None) -> Array:
    """`data` as an array of native byte order: itself where it is one, of `dtype` where one is given.

    Args:
        data: numpy or cupy array, anything that numpy takes for an array, number or nested list; Python floats
            become float32 unless `dtype` says otherwise.
        dtype: numpy dtype or its name; None keeps that of the data.

    Raises:
        TypeError: data, or a `dtype`, that is neither a float of FLOAT_DTYPES, bfloat16, an integer nor a bool.
        RuntimeError: bfloat16 by its name where ml_dtypes, which has it, is not installed.
    """
    loaded = sys.modules.get("cupy")
    if loaded is not None and isinstance(data, loaded.ndarray):
        array = data
        array_types.add(loaded.ndarray)
    else:
        array = np.asarray(data)  # also of a subclass: a matrix would multiply by other rules
    held = supported_dtype(array.dtype)
    if dtype is not None:
        held = supported_dtype(dtype)
    elif held == np.float64 and _of_python_floats(data):
        held = np.dtype(np.float32)
    return array if array.dtype == held else array.astype(held)


def _of_python_floats(data: Any) -> bool:
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    return isinstance(data, (int, float, list, tuple)) and not isinstance(data, np.generic)


def supported_dtype(dtype: Any) -> np.dtype[Any]:
    """`dtype` in native byte order; TypeError for one that tensors can't hold, RuntimeError for a missing bfloat16."""
    if isinstance(dtype, str) and dtype == "bfloat16":
        return bfloat16()
    return _supported(dtype) if isinstance(dtype, np.dtype) else _supported.__wrapped__(dtype)


@functools.cache
def _supported(dtype: Any) -> np.dtype[Any]:
    try:
        found: np.dtype[Any] = np.dtype(dtype).newbyteorder("=")
    except TypeError:
        raise TypeError(f"dtype must be a numpy dtype or the name of one, got {dtype!r}") from None
    if not (found in FLOAT_DTYPES or found.kind in "biu" or found.name == "bfloat16"):
        raise TypeError(f"a tensor holds floats (float32, float64, float16, bfloat16), integers or bools, not {found}")
    return found


@functools.cache
def bfloat16() -> np.dtype[Any]:
    """numpy's dtype for bfloat16, which ml_dtypes adds. Raises RuntimeError with the remedy where that is missing."""
    try:
        import ml_dtypes
    except ImportError as error:
        raise RuntimeError(
            "bfloat16 needs ml_dtypes, which is not installed: pip install 'gpucnn[bfloat16]'"
        ) from error
    found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return found


@functools.cache
def dtype_name(dtype: np.dtype[Any]) -> str:
    """`dtype.name`, which numpy takes microseconds to put together."""
    return str(dtype.name)


def accumulator(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that sums over `dtype` are kept in: float32 for 16-bit numbers, else the dtype itself."""
    return np.dtype("float32") if dtype.itemsize == 2 else dtype


# ------------------------------------------------------------------------------------------------------ devices


def parse_device(device: str) -> tuple[str, int]:
    """'cpu' -> ('cpu', 0); 'cuda' and 'cuda:1' -> ('cuda', index). Raises ValueError for any other string."""
    kind, colon, index = str(device).partition(":")
    if kind == "cpu" and not colon:
        return "cpu", 0
    if kind == "cuda" and (not colon or index.isdecimal()):
        return "cuda", int(index or 0)
    raise ValueError(f"device must be 'cpu', 'cuda' or 'cuda:<index>', got {device!r}")


def device_name(device: str) -> str:
    """`device` as `device_of` would say it: 'cuda' is 'cuda:0'."""
    kind, index = parse_device(device)
    return kind if kind == "cpu" else f"{kind}:{index}"


def device_of(array: Array) -> str:
    """'cpu' or 'cuda:<index>'."""
    return "cpu" if isinstance(array, np.ndarray) else f"cuda:{array.device.id}"


def are_together(a: Array, b: Array) -> bool:
    """Whether both are on one device."""
    return type(a) is type(b) is np.ndarray or device_of(a) == device_of(b)


def to_device(array: Array, device: str) -> Array:
    """`array` on `device`, itself if it is there already; the order of its axes in memory is kept."""
    if device == "cpu" and isinstance(array, np.ndarray):
        return array
    kind, index = parse_device(device)
    if device_of(array) == (kind if kind == "cpu" else f"{kind}:{index}"):
        return array
    order = memory_order(array)
    laid_out = array.transpose(order) if order else array
    if kind == "cpu":
        moved = cupy().asnumpy(laid_out)
    else:
        library = cupy()
        count = gpu_count()
        if index >= count:
            raise RuntimeError(f"device 'cuda:{index}' asked for, but {count} GPU(s) are usable; see `gpucnn info`")
        with library.cuda.Device(index):
            moved = library.asarray(laid_out)
    return from_nhwc(moved) if order else moved


@functools.cache
def gpu_count() -> int:
    """How many GPUs cupy can use; 0 without cupy, without a driver and without a device."""
    try:
        library = cupy()
        return int(library.cuda.runtime.getDeviceCount()) if library.cuda.is_available() else 0
    except RuntimeError:
        return 0


def current_stream(like: Array) -> int:
    """The handle of the stream that work on `like` is to be queued on, as a compiled kernel takes it; 0 on the CPU."""
    return 0 if isinstance(like, np.ndarray) else int(namespace(like).cuda.get_current_stream().ptr)


# ------------------------------------------------------------------------------------------------------- memory


def empty(shape: tuple[int, ...], dtype: Any, like: Array) -> Array:
    """Uninitialised C-contiguous memory in the library and on the device of `like`: all allocation of ops is here.

    Where a GPU's memory is used up, what the pool holds back is freed once, for another try.

    Raises:
        MemoryError: there is no room, and for how much.
    """
    if isinstance(like, np.ndarray):
        return np.empty(shape, dtype)
    return _allocated("empty", shape, dtype, like)


def zeros(shape: tuple[int, ...], dtype: Any, like: Array) -> Array:
    """As `empty`, filled with 0."""
    if isinstance(like, np.ndarray):
        return np.zeros(shape, dtype)
    return _allocated("zeros", shape, dtype, like)


def _allocated(kind: str, shape: tuple[int, ...], dtype: Any, like: Array) -> Array:
    library = namespace(like)
    allocate = getattr(library, kind)
    try:
        return allocate(shape, dtype)
    except library.cuda.memory.OutOfMemoryError:
        pool = library.get_default_memory_pool()
        pool.free_all_blocks()
    try:
        return allocate(shape, dtype)
    except library.cuda.memory.OutOfMemoryError as error:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        raise MemoryError(
            f"{device_of(like)} has no room for {size:,} bytes ({np.dtype(dtype).name} {shape}), with "
            f"{pool.used_bytes():,} in use by this process: take a smaller batch, or free what is not needed any more"
        ) from error


class _Workspace(threading.local):
    buffer = np.empty(0, np.uint8)


_workspace = _Workspace()


def workspace(shape: tuple[int, ...], dtype: np.dtype[Any], like: Array) -> Array:
    """Uninitialised scratch memory that the thread's next call gives out again: it must not leave the kernel.

    On the CPU fresh memory costs a page fault for every 4 KiB, as much as filling it; cupy's pool recycles by itself.
    """
    if not isinstance(like, np.ndarray):
        return empty(shape, dtype, like)
    size = math.prod(shape) * dtype.itemsize
    if size > _workspace.buffer.nbytes:
        _workspace.buffer = np.empty(size, np.uint8)
    return _workspace.buffer[:size].view(dtype).reshape(shape)


NHWC = (0, 2, 3, 1)
NCHW = (0, 3, 1, 2)


class _Copies(threading.local):
    value = 0


_copies = _Copies()


class count_layout_copies:
    """Counts how often this thread had to copy an array to bring its axes into the order that an op works in.

    `with count_layout_copies() as copies: ...`, and `copies.value` inside or after; may be nested.
    """

    def __init__(self) -> None:
        self._start = _copies.value
        self._end: int | None = None

    def __enter__(self) -> count_layout_copies:
        return self

    def __exit__(self, *_: object) -> None:
        self._end = _copies.value

    @property
    def value(self) -> int:
        """Copies since the block began, up to its end."""
        return (_copies.value if self._end is None else self._end) - self._start


def note_layout_copy() -> None:
    """Counts one for `count_layout_copies`."""
    _copies.value += 1


def memory_order(array: Array) -> tuple[int, ...] | None:
    """NHWC if `array` (logically N,C,H,W) lies channels-last in memory and not also C-contiguous, else None."""
    if array.ndim == 4 and not array.flags.c_contiguous and array.transpose(NHWC).flags.c_contiguous:
        return NHWC
    return None


def contiguous(array: Array) -> Array:
    """`array` itself if C-contiguous, else a counted copy."""
    if array.flags.c_contiguous:
        return array
    note_layout_copy()
    return namespace(array).ascontiguousarray(array)


def to_nhwc(array: Array) -> Array:
    """Logical N,C,H,W -> C-contiguous N,H,W,C: a free view where memory is channels-last, else a counted copy."""
    return contiguous(array.transpose(NHWC))


def from_nhwc(array: Array) -> Array:
    """C-contiguous N,H,W,C -> logical N,C,H,W, always a view."""
    return array.transpose(NCHW)


# ---------------------------------------------------------------------------------------------- backend in use


class _Choice(threading.local):
    name: str | None = None
    strict: bool = False


_choice = _Choice()


def unavailable(name: str) -> str | None:
    """Why backend `name` can't be used here, with the remedy; None if it can. Raises ValueError for unknown names."""
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}; there are {', '.join(BACKENDS)}")
    if name == "cuda":
        return _no_gpu() or too_old(0)
    if name == "simt":
        try:
            return extension.why_missing(f"_simt_{extension.simt_flavour()}")
        except ValueError as error:  # GPUCNN_SIMT_FLAVOUR names none
            return str(error)
    return None


def _no_gpu() -> str | None:
    """Why there is nothing that kernels could be launched on; None if there is, of whatever age."""
    if reason := extension.why_missing():
        return reason
    try:
        count, why_none = extension.require().device_count()
    except RuntimeError as error:  # CUDA itself fails, and says how
        count, why_none = 0, str(error)
    if count == 0:
        needs = f"one of compute capability {'.'.join(map(str, OLDEST_CAPABILITY))} or newer with NVIDIA's driver"
        return f"no usable GPU: {why_none}; the kernels need {needs}, and cupy: {CUPY_REMEDY}"
    if gpu_count() == 0:
        return f"there is a GPU, but no cupy that can use it: {CUPY_REMEDY}"
    return None


def too_old(device: int) -> str | None:
    """Why the kernels can't run on a GPU that there is: its compute capability; None if they can."""
    properties = extension.require().device_properties(device)
    if properties["compute_capability"] >= OLDEST_CAPABILITY:
        return None
    has, needs = (".".join(map(str, c)) for c in (properties["compute_capability"], OLDEST_CAPABILITY))
    return f"{properties['name']} has compute capability {has}, the kernels need {needs}; running on reference"


@functools.cache
def runs_kernels(device: int) -> bool:
    """Whether the kernels run on a GPU that there is; if not, the log says why, once."""
    reason = too_old(device)
    if reason:
        log.warning("cuda:%d: %s", device, reason)
    return reason is None


@functools.cache
def default_backend() -> str:
    """$GPUCNN_BACKEND if set; else 'cuda' where the extension and a GPU are there; else 'reference'.

    Where 'cuda' is there but for the age of the GPU, that is logged.
    """
    name = os.environ.get("GPUCNN_BACKEND")
    if name:
        if name not in BACKENDS:
            raise ValueError(f"GPUCNN_BACKEND={name}: no such backend; there are {', '.join(BACKENDS)}")
        if reason := unavailable(name):
            raise RuntimeError(f"GPUCNN_BACKEND={name}: {reason}")
        return name
    return "cuda" if _no_gpu() is None and runs_kernels(0) else "reference"


def current_backend() -> str:
    """The backend that this thread's ops run on."""
    return _choice.name or default_backend()


def is_strict() -> bool:
    """True where an op that the backend lacks raises instead of falling to `reference`."""
    return _choice.strict


class use_backend:
    """Chooses this thread's backend: call it to set, use it in a `with` to scope.

    Args:
        name: 'reference' (numpy, cupy), 'cuda' (the kernels) or 'simt' (the same kernels on the CPU).
        strict: raise where an op has no kernel on the backend, instead of falling to 'reference' with a logged line.

    Raises:
        ValueError: no such backend.
        RuntimeError: it can't be used here; the message says why and what to do.
    """

    def __init__(self, name: str, *, strict: bool = False) -> None:
        if reason := unavailable(name):
            raise RuntimeError(f"backend {name!r} can't be used: {reason}")
        self._chosen = (name, strict)
        self._previous = (_choice.name, _choice.strict)
        _choice.name, _choice.strict = self._chosen

    def __enter__(self) -> use_backend:
        _choice.name, _choice.strict = self._chosen
        return self

    def __exit__(self, *_: object) -> None:
        _choice.name, _choice.strict = self._previous

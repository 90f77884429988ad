"""Making tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpucnn import backend
from gpucnn.arguments import several, whole
from gpucnn.random import host_generator
from gpucnn.tensor import Tensor


def tensor(data: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """A Tensor with a copy of `data`; one with 4 axes and a floating dtype is laid out channels-last.

    Args:
        data: array, Tensor, number or nested list; Python floats become float32.
        dtype: numpy dtype or its name; default that of the data.
        device: 'cpu', 'cuda' or 'cuda:<index>'; default that of the data.
        requires_grad: gradients of the tensor are collected in `.grad`.

    Raises:
        TypeError: data of a dtype that tensors can't hold.
        ValueError: `requires_grad` for a dtype that is no float, or no such device.
    """
    array = backend.as_array(data.data if isinstance(data, Tensor) else data, dtype)
    if device is not None:
        array = backend.to_device(array, device)
    channels_last = array.ndim == 4 and array.dtype.kind in backend.FLOAT_KINDS
    laid_out = backend.namespace(array).array(array.transpose(backend.NHWC) if channels_last else array, order="C")
    return Tensor(backend.from_nhwc(laid_out) if channels_last else laid_out, requires_grad)


def from_dlpack(source: Any) -> Tensor:
    """A Tensor that shares the memory of `source`, any object that speaks DLPack (PyTorch, CuPy, JAX, numpy...).

    With numpy 2.0 a tensor made so on the CPU is read-only; from numpy 2.1 on it is what its source says.

    Raises:
        TypeError: `source` does not speak DLPack, or holds what tensors can't.
        BufferError: `source` does not give its memory away, as a PyTorch tensor that requires gradients does not.
    """
    if not hasattr(source, "__dlpack__") or not hasattr(source, "__dlpack_device__"):
        raise TypeError(f"from_dlpack needs an object that speaks DLPack, got {type(source).__name__}")
    kind, _ = source.__dlpack_device__()
    return Tensor(np.from_dlpack(source) if int(kind) == _DLPACK_CPU else backend.cupy().from_dlpack(source))


_DLPACK_CPU = 1


# ------------------------------------------------------------------------------------------------- of one number


def empty(*size: Any, dtype: Any = "float32", device: str = "cpu", requires_grad: bool = False) -> Tensor:
    """A Tensor of whatever its memory holds: empty(2, 3) or empty((2, 3))."""
    return _alike(np.empty, several(size), dtype, device, requires_grad)


def zeros(*size: Any, dtype: Any = "float32", device: str = "cpu", requires_grad: bool = False) -> Tensor:
    """A Tensor of zeros: zeros(2, 3) or zeros((2, 3))."""
    return _alike(np.zeros, several(size), dtype, device, requires_grad)


def ones(*size: Any, dtype: Any = "float32", device: str = "cpu", requires_grad: bool = False) -> Tensor:
    """A Tensor of ones: ones(2, 3) or ones((2, 3))."""
    return _alike(np.ones, several(size), dtype, device, requires_grad)


def full(size: Any, fill_value: Any, dtype: Any = None, device: str = "cpu", requires_grad: bool = False) -> Tensor:
    """A Tensor of one number: full((2, 3), 7); of dtype bool, int64 or float32 as the number is, or of that given."""
    kept = _number_dtype(fill_value) if dtype is None else dtype
    return _alike(lambda shape, held: np.full(shape, fill_value, held), several((size,)), kept, device, requires_grad)


def empty_like(input: Tensor, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """A Tensor with shape, dtype, device and memory order of `input`, of whatever its memory holds."""
    return _like(np.empty, input, dtype, device, requires_grad)


def zeros_like(input: Tensor, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """A Tensor of zeros with shape, dtype and device of `input`."""
    return _like(np.zeros, input, dtype, device, requires_grad)


def ones_like(input: Tensor, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """A Tensor of ones with shape, dtype and device of `input`."""
    return _like(np.ones, input, dtype, device, requires_grad)


def full_like(
    input: Tensor, fill_value: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """A Tensor of one number with shape, dtype and device of `input`."""
    return _like(lambda shape, held: np.full(shape, fill_value, held), input, dtype, device, requires_grad)


def _alike(make: Callable[..., Any], shape: Any, dtype: Any, device: str, requires_grad: bool) -> Tensor:
    """A Tensor of make(shape, dtype), whose elements are all made alike, so that their order does not matter."""
    held, sizes = backend.supported_dtype(dtype), _sizes(shape)
    if len(sizes) == 4 and held.kind in backend.FLOAT_KINDS:
        array = backend.from_nhwc(make([sizes[axis] for axis in backend.NHWC], held))
    else:
        array = make(sizes, held)
    return Tensor(backend.to_device(array, device), requires_grad)


def _like(make: Callable[..., Any], input: Tensor, dtype: Any, device: str | None, requires_grad: bool) -> Tensor:
    if not isinstance(input, Tensor):
        raise TypeError(f"input must be a gpucnn.Tensor, got {type(input).__name__}; gpucnn.tensor(...) makes one")
    place = input.device if device is None else device
    return _alike(make, input.shape, input.dtype if dtype is None else dtype, place, requires_grad)


def _sizes(shape: Any) -> tuple[int, ...]:
    sizes = tuple([whole(size, "a size") for size in shape])
    if min(sizes, default=0) < 0:
        raise ValueError(f"sizes must not be negative, got {sizes}")
    return sizes


def _number_dtype(*numbers: Any) -> np.dtype[Any]:
    """bool, int64 or float32, as the numbers are."""
    kinds = "".join([np.asarray(number).dtype.kind for number in numbers])
    if not set(kinds) <= set("biuf"):
        raise TypeError(f"expected numbers, got {numbers}")
    return np.dtype("float32" if "f" in kinds else "bool" if set(kinds) == {"b"} else "int64")


# ------------------------------------------------------------------------------------------------- of many numbers


def arange(
    start: float,
    end: float | None = None,
    step: float = 1,
    dtype: Any = None,
    device: str = "cpu",
    requires_grad: bool = False,
) -> Tensor:
    """start, start + step, ... before `end`: arange(5), arange(1, 5), arange(0, 1, 0.25).

    int64 if all three are integers, else float32, unless `dtype` says otherwise.

    Raises:
        ValueError: a step of 0, or one that leads away from `end`.
    """
    first, last = (0, start) if end is None else (start, end)
    held = backend.supported_dtype(_number_dtype(first, last, step, 1) if dtype is None else dtype)
    if not step or (last - first) / step < 0:
        raise ValueError(f"arange: a step of {step} does not lead from {first} to {last}")
    numbers = np.arange(first, last, step).astype(held)
    return tensor(numbers, device=device, requires_grad=requires_grad)


def eye(
    n: int, m: int | None = None, dtype: Any = "float32", device: str = "cpu", requires_grad: bool = False
) -> Tensor:
    """Ones on the diagonal of n rows and m columns (default n), zeros elsewhere."""
    rows, columns = _sizes((n, n if m is None else m))
    return tensor(np.eye(rows, columns, dtype=backend.supported_dtype(dtype)), None, device, requires_grad)


def rand(*size: Any, dtype: Any = "float32", device: str = "cpu", requires_grad: bool = False) -> Tensor:
    """Numbers drawn evenly from [0, 1), from the stream that `gpucnn.manual_seed` starts: rand(2, 3)."""
    held = _floating(dtype)
    exact = np.float32 if held.itemsize <= 4 else np.float64
    numbers: Any = host_generator().random(_sizes(several(size)), exact)
    if held.itemsize == 2:
        numbers = np.floor(numbers * 2048) / 2048  # rounding to the nearest float16 would reach 1
    return tensor(numbers, held, device, requires_grad)


def randn(*size: Any, dtype: Any = "float32", device: str = "cpu", requires_grad: bool = False) -> Tensor:
    """Normal numbers of mean 0 and variance 1, from the stream that `gpucnn.manual_seed` starts: randn(2, 3)."""
    held = _floating(dtype)
    exact = np.float32 if held.itemsize <= 4 else np.float64
    return tensor(host_generator().standard_normal(_sizes(several(size)), exact), held, device, requires_grad)


def _floating(dtype: Any) -> np.dtype[Any]:
    held = backend.supported_dtype(dtype)
    if held.kind not in backend.FLOAT_KINDS:
        raise TypeError(f"random numbers need a floating dtype, got {held}")
    return held

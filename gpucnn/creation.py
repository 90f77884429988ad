"""Making tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn import backend
from gpucnn.arguments import several
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
    channels_last = array.ndim == 4 and array.dtype.kind == "f"
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


def zeros(*size: Any, dtype: Any = "float32", device: str = "cpu", requires_grad: bool = False) -> Tensor:
    """A Tensor of zeros: zeros(2, 3) or zeros((2, 3))."""
    return tensor(np.zeros(several(size), backend.supported_dtype(dtype)), device=device, requires_grad=requires_grad)


def ones(*size: Any, dtype: Any = "float32", device: str = "cpu", requires_grad: bool = False) -> Tensor:
    """A Tensor of ones: ones(2, 3) or ones((2, 3))."""
    return tensor(np.ones(several(size), backend.supported_dtype(dtype)), device=device, requires_grad=requires_grad)

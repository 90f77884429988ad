"""Making tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn import backend
from gpucnn.tensor import Tensor, as_array


def tensor(data: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """A Tensor with a copy of `data`; one with 4 axes and a floating dtype is laid out channels-last.

    Args:
        data: array, Tensor, number or nested list; Python floats become float32.
        dtype: numpy dtype or its name; default that of the data.
        device: 'cpu', 'cuda' or 'cuda:<index>'; default that of the data.
    """
    array = as_array(data)
    array = array.astype(array.dtype if dtype is None else np.dtype(dtype), copy=True)
    if array.ndim == 4 and array.dtype.kind == "f":
        array = backend.from_nhwc(backend.namespace(array).ascontiguousarray(array.transpose(backend.NHWC)))
    if device is not None:
        array = backend.to_device(array, device)
    return Tensor(array, requires_grad)


def from_dlpack(source: Any) -> Tensor:
    """A Tensor that shares the memory of `source`, any object that speaks DLPack (PyTorch, CuPy, JAX, numpy...)."""
    kind, _ = source.__dlpack_device__()
    return Tensor(np.from_dlpack(source) if int(kind) == 1 else backend.cupy().from_dlpack(source))


def zeros(*size: int, dtype: Any = "float32", device: str = "cpu", requires_grad: bool = False) -> Tensor:
    return tensor(np.zeros(size, dtype), device=device, requires_grad=requires_grad)


def ones(*size: int, dtype: Any = "float32", device: str = "cpu", requires_grad: bool = False) -> Tensor:
    return tensor(np.ones(size, dtype), device=device, requires_grad=requires_grad)

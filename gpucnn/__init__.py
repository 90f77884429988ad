"""gpucnn: a CNN engine with CUDA kernels of its own, a thin autograd layer, and array code that runs everywhere."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gpucnn import functional, nn, optim
from gpucnn.autograd import Function, enable_grad, is_grad_enabled, no_grad
from gpucnn.backend import use_backend
from gpucnn.creation import from_dlpack, ones, tensor, zeros
from gpucnn.random import manual_seed
from gpucnn.serialization import load, save
from gpucnn.tensor import Tensor

if TYPE_CHECKING:
    from gpucnn.books import summary

__version__ = "0.1.0"

__all__ = [
    "Function",
    "Tensor",
    "enable_grad",
    "from_dlpack",
    "functional",
    "is_grad_enabled",
    "load",
    "manual_seed",
    "nn",
    "no_grad",
    "ones",
    "optim",
    "save",
    "summary",
    "tensor",
    "use_backend",
    "zeros",
]

_ON_FIRST_USE = ("books", "data", "filters", "models", "testing", "train", "vis")


def __getattr__(name: str) -> Any:
    if name in _ON_FIRST_USE:
        return importlib.import_module(f"gpucnn.{name}")
    if name == "summary":
        return importlib.import_module("gpucnn.books").summary
    raise AttributeError(f"module 'gpucnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_ON_FIRST_USE, "summary"])

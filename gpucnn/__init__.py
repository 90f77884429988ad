"""gpucnn: a CNN engine with CUDA kernels of its own, a thin autograd layer, and array code that runs everywhere."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gpucnn import functional, nn, optim
from gpucnn.autograd import Function, enable_grad, is_grad_enabled, no_grad
from gpucnn.backend import use_backend
from gpucnn.creation import (
    arange,
    empty,
    empty_like,
    eye,
    from_dlpack,
    full,
    full_like,
    ones,
    ones_like,
    rand,
    randn,
    tensor,
    zeros,
    zeros_like,
)
from gpucnn.functional.arithmetic import (
    abs,
    all,
    amax,
    amin,
    any,
    argmax,
    argmin,
    argsort,
    broadcast_to,
    chunk,
    clamp,
    cumsum,
    exp,
    flip,
    log,
    logsumexp,
    masked_fill,
    matmul,
    max,
    maximum,
    mean,
    min,
    minimum,
    movedim,
    narrow,
    norm,
    permute,
    pow,
    prod,
    reshape,
    roll,
    sign,
    sort,
    split,
    sqrt,
    square,
    squeeze,
    std,
    sum,
    topk,
    transpose,
    unbind,
    unsqueeze,
    var,
    where,
)
from gpucnn.functional.shape import cat, flatten, stack
from gpucnn.optim import GradScaler
from gpucnn.precision import autocast, float32_precision, set_float32_precision
from gpucnn.random import manual_seed
from gpucnn.serialization import load, save
from gpucnn.tensor import Tensor
from gpucnn.tuned import set_tuning

if TYPE_CHECKING:
    from gpucnn.books import explain, summary
    from gpucnn.tuning import tune

__version__ = "0.1.0"

__all__ = [
    "Function",
    "GradScaler",
    "Tensor",
    "abs",
    "all",
    "amax",
    "amin",
    "any",
    "arange",
    "argmax",
    "argmin",
    "argsort",
    "autocast",
    "broadcast_to",
    "cat",
    "chunk",
    "clamp",
    "cumsum",
    "empty",
    "empty_like",
    "enable_grad",
    "exp",
    "explain",
    "eye",
    "flatten",
    "flip",
    "float32_precision",
    "from_dlpack",
    "full",
    "full_like",
    "functional",
    "is_grad_enabled",
    "load",
    "log",
    "logsumexp",
    "manual_seed",
    "masked_fill",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "movedim",
    "narrow",
    "nn",
    "no_grad",
    "norm",
    "ones",
    "ones_like",
    "optim",
    "permute",
    "pow",
    "prod",
    "rand",
    "randn",
    "reshape",
    "roll",
    "save",
    "set_float32_precision",
    "set_tuning",
    "sign",
    "sort",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "sum",
    "summary",
    "tensor",
    "topk",
    "transpose",
    "tune",
    "unbind",
    "unsqueeze",
    "use_backend",
    "var",
    "where",
    "zeros",
    "zeros_like",
]

_ON_FIRST_USE = ("books", "data", "filters", "models", "testing", "train", "vis")
_FROM = {"explain": "books", "summary": "books", "tune": "tuning"}
"""Functions that are loaded on first use, and their modules."""


def __getattr__(name: str) -> Any:
    if name in _ON_FIRST_USE:
        return importlib.import_module(f"gpucnn.{name}")
    if name in _FROM:
        return getattr(importlib.import_module(f"gpucnn.{_FROM[name]}"), name)
    raise AttributeError(f"module 'gpucnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_ON_FIRST_USE, *_FROM])

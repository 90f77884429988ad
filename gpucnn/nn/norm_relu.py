"""Batch norm, the sum with a shortcut and the ReLU behind it in one op, wherever a network has them in a row."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

from gpucnn import functional as F
from gpucnn.autograd import observers
from gpucnn.nn.module import Module
from gpucnn.nn.norm import BatchNorm1d, BatchNorm2d
from gpucnn.nn.rectifier import ReLU, ReLU6
from gpucnn.tensor import Tensor

_LIMITS: dict[type[Module], float] = {ReLU: math.inf, ReLU6: 6.0}
"""The largest result of what may follow a batch norm in its op."""


def norm_relu(norm: Any, relu: Callable[[Tensor], Tensor], input: Tensor, residual: Tensor | None = None) -> Tensor:
    """relu(norm(input) + residual), by F.batch_norm_relu where the modules are as `are_fused` wants them.

    The result is the same, but that of float16 no sum in between is rounded. Who observes the network
    (`gpucnn.summary`) sees the modules one by one.

    Args:
        norm: a module.
        relu: a module, or a function such as F.relu.
        residual: of input's shape, or None.
    """
    if are_fused(norm, relu):
        limit = _limit(relu)
        y: Tensor = norm.normalize(input, F.batch_norm_relu, residual=residual, max_val=limit)
        return y
    y = norm(input)
    return relu(y if residual is None else y + residual)


def are_fused(norm: Any, relu: Any) -> bool:
    """Whether `relu` behind `norm` is part of its op: a batch norm, a ReLU or ReLU6 as they come, and no observer."""
    if type(norm) is not BatchNorm2d and type(norm) is not BatchNorm1d:
        return False
    if _limit(relu) is None:
        return False
    if observers and threading.get_ident() in observers:
        return False
    return "forward" not in norm.__dict__ and "forward" not in getattr(relu, "__dict__", ())


def _limit(relu: Any) -> float | None:
    if relu is F.relu:
        return math.inf
    return 6.0 if relu is F.relu6 else _LIMITS.get(type(relu))

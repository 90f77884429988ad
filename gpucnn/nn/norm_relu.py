"""Convolution, batch norm, the sum with a shortcut and the ReLU behind it in as few ops as there can be, wherever a
network has them in a row."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

from gpucnn import functional as F
from gpucnn.autograd import observers
from gpucnn.nn.conv import Conv2d, FusedConv2d
from gpucnn.nn.module import Module, changed
from gpucnn.nn.norm import BatchNorm1d, BatchNorm2d
from gpucnn.nn.rectifier import ReLU, ReLU6
from gpucnn.nn.shape import Identity
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
        return _in_one(norm, relu, input, residual)
    return _one_by_one(norm(input), relu, residual)


def conv_norm_relu(
    conv: Any, norm: Any, relu: Callable[[Tensor], Tensor] | None, input: Tensor, residual: Tensor | None = None
) -> Tensor:
    """relu(norm(conv(input)) + residual): as `norm_relu`, and the convolution takes part.

    In training a Conv2d whose kernel can do so takes the moments of its output while it has that at hand, and the
    BatchNorm2d behind it does not read it for them. After `Module.fuse` batch norm, sum and ReLU are the convolution's.

    Args:
        conv, norm: modules.
        relu: a module, a function such as F.relu, or None for none.
        residual: of the shape that the convolution returns, or None.
    """
    if not are_joined(conv, norm):
        y, moments = conv(input), None
    elif type(conv) is FusedConv2d:
        if relu is None or _limit(relu) == math.inf:
            return conv.convolve(input, F.conv2d if relu is None else F.conv2d_relu, residual=residual)
        return relu(conv.convolve(input, F.conv2d, residual=residual))
    elif norm.by_own_statistics:
        y, moments = conv.convolve(input, F.conv2d, return_moments=True)
    else:
        y, moments = conv(input), None
    if relu is not None and are_fused(norm, relu):
        return _in_one(norm, relu, y, residual, moments=moments)
    y = norm(y) if moments is None else norm.normalize(y, F.batch_norm, moments=moments)
    return _one_by_one(y, relu, residual)


def run_first(modules: Sequence[Module], input: Any) -> tuple[Any, int]:
    """Runs the first of modules in a row, and behind it those that can be part of its op: (output, how many)."""
    first, *others = modules[:3]
    if others and are_joined(first, others[0]):
        relu = others[1] if len(others) > 1 and _limit(others[1]) is not None else None
        return conv_norm_relu(first, others[0], relu, input), 2 if relu is None else 3
    if others and are_fused(first, others[0]):
        return norm_relu(first, others[0], input), 2
    return first(input), 1


def are_fused(norm: Any, relu: Any) -> bool:
    """Whether `relu` behind `norm` is part of its op: a batch norm, a ReLU or ReLU6 as they come, and no observer."""
    if type(norm) is not BatchNorm2d and type(norm) is not BatchNorm1d:
        return False
    return _limit(relu) is not None and not changed(norm) and not _is_observed()


def are_joined(conv: Any, norm: Any) -> bool:
    """Whether `conv` knows of `norm` behind it: as they come, or as `Module.fuse` leaves them, and no observer."""
    if (type(conv), type(norm)) not in ((Conv2d, BatchNorm2d), (FusedConv2d, Identity)):
        return False
    return not changed(conv) and not changed(norm) and not _is_observed()


def _is_observed() -> bool:
    return bool(observers) and threading.get_ident() in observers


def _in_one(norm: Any, relu: Any, input: Tensor, residual: Tensor | None, **options: Any) -> Tensor:
    y: Tensor = norm.normalize(input, F.batch_norm_relu, residual=residual, max_val=_limit(relu), **options)
    return y


def _one_by_one(y: Tensor, relu: Callable[[Tensor], Tensor] | None, residual: Tensor | None) -> Tensor:
    y = y if residual is None else y + residual
    return y if relu is None else relu(y)


def _limit(relu: Any) -> float | None:
    """Of what a ReLU or ReLU6 as they come returns; None for anything else."""
    if relu is F.relu:
        return math.inf
    if relu is F.relu6:
        return 6.0
    return None if changed(relu) else _LIMITS.get(type(relu))

"""Convolution, batch norm, the sum with a shortcut and the ReLU behind them in as few ops as there can be, wherever a
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
    BatchNorm2d behind it does not read it for them. Where there is no batch norm, or `Module.fuse` has made it part of
    the convolution, so are the sum and the ReLU, by F.conv2d_relu.

    Args:
        conv: a module.
        norm: a module, or None for none.
        relu: a module, a function such as F.relu, or None for none.
        residual: of the shape that the convolution returns, or None.
    """
    if not are_joined(conv, norm):
        y, moments = conv(input), None
    elif type(norm) is not BatchNorm2d:
        if relu is None or _limit(relu) == math.inf:
            y = conv.convolve(input, F.conv2d if relu is None else F.conv2d_relu, residual=residual)
            return y  # type: ignore[no-any-return]
        return relu(conv.convolve(input, F.conv2d, residual=residual))
    elif norm.by_own_statistics:
        y, moments = conv.convolve(input, F.conv2d, return_moments=True)
    else:
        y, moments = conv(input), None
    if relu is not None and are_fused(norm, relu):
        return _in_one(norm, relu, y, residual, moments=moments)
    if norm is not None:
        y = norm(y) if moments is None else norm.normalize(y, F.batch_norm, moments=moments)
    return _one_by_one(y, relu, residual)


def run_first(modules: Sequence[Module], input: Any) -> tuple[Any, int]:
    """Runs the first of modules in a row, and behind it those that can be part of its op: (output, how many)."""
    first, second, third = [*modules[:3], None, None][:3]
    if second is not None and are_joined(first, second):
        relu = third if _limit(third) is not None else None
        return conv_norm_relu(first, second, relu, input), 2 if relu is None else 3
    if _limit(second) == math.inf and are_joined(first, None):
        return conv_norm_relu(first, None, second, input), 2
    if are_fused(first, second):
        return norm_relu(first, second, input), 2  # type: ignore[arg-type]
    return first(input), 1  # type: ignore[misc]


def are_fused(norm: Any, relu: Any) -> bool:
    """Whether `relu` behind `norm` is part of its op: a batch norm, a ReLU or ReLU6 as they come, and no observer."""
    if type(norm) is not BatchNorm2d and type(norm) is not BatchNorm1d:
        return False
    return _limit(relu) is not None and not changed(norm) and not _is_observed()


def are_joined(conv: Any, norm: Any) -> bool:
    """Whether `conv` knows of what is behind it: as they come, or as `Module.fuse` leaves them, and no observer."""
    if type(conv) is Conv2d:
        fits = norm is None or type(norm) is BatchNorm2d or type(norm) is Identity
    else:
        fits = type(conv) is FusedConv2d and (norm is None or type(norm) is Identity)
    return fits and not changed(conv) and not changed(norm) and not _is_observed()


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

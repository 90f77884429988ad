"""Initial weights. All draw on the host from gpucnn.manual_seed's stream and write into the tensor in place.

A filter bank's numbers are drawn in logical (K,C,R,S) order, whatever order its memory has. `with skip_init():` leaves
drawing out, for a network whose weights are loaded next.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from gpucnn import backend
from gpucnn.autograd import no_grad
from gpucnn.graph import wrote
from gpucnn.random import host_generator
from gpucnn.tensor import Tensor

_BLOCK = 1 << 16  # numbers drawn at a time: 512 KB of float64, which stay in the cache until they are converted


class _Skipping(threading.local):
    depth = 0


_skipping = _Skipping()


class skip_init:
    """Inside `with skip_init():` nothing is drawn: a new layer's random weights are zeros, to be loaded or set next.

    Constants are still written (a batch norm's weight is ones), and the stream of random numbers stays where it is.
    Per thread; may be nested.
    """

    def __enter__(self) -> None:
        _skipping.depth += 1

    def __exit__(self, *_: object) -> None:
        _skipping.depth -= 1


def fans(tensor: Tensor) -> tuple[int, int]:
    """(fan in, fan out) of a weight (O,I) or (K,C,R,S): inputs to, and outputs from, one unit."""
    if tensor.ndim < 2:
        raise ValueError(f"fan in and fan out need a weight with 2 axes or more, got shape {tensor.shape}")
    window = math.prod(tensor.shape[2:])
    return tensor.shape[1] * window, tensor.shape[0] * window


def _fill(tensor: Tensor, draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray[Any, Any]]) -> Tensor:
    if _skipping.depth:
        return tensor
    generator = host_generator()
    target = backend.namespace(tensor.data).atleast_1d(tensor.data)
    rows = max(1, _BLOCK // max(1, math.prod(target.shape[1:])))
    for start in range(0, len(target), rows):
        part = target[start : start + rows]
        part[...] = backend.to_device(draw(generator, part.shape).astype(tensor.dtype, copy=False), tensor.device)
    wrote(tensor.data)
    return tensor


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Uniform on [a, b)."""
    return _fill(tensor, lambda generator, shape: generator.uniform(a, b, shape))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Normal with that mean and standard deviation."""
    return _fill(tensor, lambda generator, shape: generator.normal(mean, std, shape))


def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Tensor:
    """Normal with that mean and standard deviation, drawn again where it falls outside [a, b].

    Raises:
        ValueError: `std` is not positive, or less than a thousandth of the distribution lies in [a, b].
    """
    inside = 0.0
    if std > 0:
        inside = (math.erf((b - mean) / (std * math.sqrt(2))) - math.erf((a - mean) / (std * math.sqrt(2)))) / 2
    if not inside >= 1e-3:
        raise ValueError(
            f"trunc_normal_: [{a}, {b}] must hold at least a thousandth of the normal distribution with mean {mean} "
            f"and std {std}, it holds {inside:.2g}"
        )

    def draw(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        values = generator.normal(mean, std, shape)
        while (outside := (values < a) | (values > b)).any():
            values[outside] = generator.normal(mean, std, int(outside.sum()))
        return values

    return _fill(tensor, draw)


def constant_(tensor: Tensor, value: float) -> Tensor:
    """Every element `value`."""
    with no_grad():
        return tensor.copy_(np.full(tensor.shape, value, tensor.dtype))


def zeros_(tensor: Tensor) -> Tensor:
    """Every element 0."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Every element 1."""
    return constant_(tensor, 1.0)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010)."""
    bound = gain * math.sqrt(6 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """As xavier_uniform_, from a normal distribution."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(fans(tensor))))


def _gain(nonlinearity: str, a: float) -> float:
    leaky = math.sqrt(2 / (1 + a * a))
    gains = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "leaky_relu": leaky}
    if nonlinearity not in gains:
        raise ValueError(f"nonlinearity must be one of {', '.join(gains)}, got {nonlinearity!r}")
    return gains[nonlinearity]


def _fan(tensor: Tensor, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be 'fan_in' or 'fan_out', got {mode!r}")
    return fans(tensor)[mode == "fan_out"]


def kaiming_uniform_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """He et al., "Delving deep into rectifiers" (2015): variance 2 / ((1 + a^2) fan); a is the negative slope."""
    bound = _gain(nonlinearity, a) * math.sqrt(3 / _fan(tensor, mode))
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """As kaiming_uniform_, from a normal distribution."""
    return normal_(tensor, 0.0, _gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode)))

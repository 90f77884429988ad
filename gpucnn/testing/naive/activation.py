"""Smooth activations by their definitions, in float64 loops. A `_grad` takes dy and the input x, and returns
dy * f'(x)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray


def each(function: Callable[..., float], *arrays: ArrayLike) -> NDArray[np.float64]:
    """function(*numbers) for the numbers in the same place of arrays of one shape."""
    first, *others = [np.asarray(array, np.float64) for array in arrays]
    out = np.empty(first.shape)
    for place in np.ndindex(first.shape):
        out[place] = function(float(first[place]), *[float(other[place]) for other in others])
    return out


def exp(v: float) -> float:
    """e**v, infinity beyond the range of numbers."""
    return math.inf if v > 709.7 else math.exp(v)


def _sigmoid(v: float) -> float:
    return 1 / (1 + exp(-v))


def _softplus(v: float) -> float:
    return v if v > 40 else math.log1p(exp(v))


def _normal_cdf(v: float) -> float:
    return 0.5 * math.erfc(-v / math.sqrt(2))


def sigmoid(x: ArrayLike) -> NDArray[np.float64]:
    """1 / (1 + exp(-x))."""
    return each(_sigmoid, x)


def sigmoid_grad(dy: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
    """dy * sigmoid(x) * (1 - sigmoid(x)), with 1 - sigmoid(x) written as sigmoid(-x), which does not cancel."""
    return each(lambda d, v: d * _sigmoid(v) * _sigmoid(-v), dy, x)


def tanh(x: ArrayLike) -> NDArray[np.float64]:
    """The hyperbolic tangent."""
    return each(math.tanh, x)


def tanh_grad(dy: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
    """dy * (1 - tanh(x)**2), written with exp(-2|x|) so that it does not cancel."""
    return each(lambda d, v: d * 4 * exp(-2 * abs(v)) / (1 + exp(-2 * abs(v))) ** 2, dy, x)


def tanhshrink(x: ArrayLike) -> NDArray[np.float64]:
    """x - tanh(x)."""
    return each(lambda v: v - math.tanh(v), x)


def tanhshrink_grad(dy: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
    """dy * tanh(x)**2."""
    return each(lambda d, v: d * math.tanh(v) ** 2, dy, x)


def softsign(x: ArrayLike) -> NDArray[np.float64]:
    """x / (1 + |x|)."""
    return each(lambda v: v / (1 + abs(v)), x)


def softsign_grad(dy: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
    """dy / (1 + |x|)**2; NaN at infinity, where softsign is."""
    return each(lambda d, v: math.nan if math.isinf(v) else d / (1 + abs(v)) / (1 + abs(v)), dy, x)


def logsigmoid(x: ArrayLike) -> NDArray[np.float64]:
    """log(sigmoid(x))."""
    return each(lambda v: -_softplus(-v), x)


def logsigmoid_grad(dy: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
    """dy * sigmoid(-x)."""
    return each(lambda d, v: d * _sigmoid(-v), dy, x)


def hardsigmoid(x: ArrayLike) -> NDArray[np.float64]:
    """x / 6 + 1/2, limited to [0, 1]."""
    return each(lambda v: 0.0 if v <= -3 else 1.0 if v >= 3 else (v + 3) / 6, x)


def hardsigmoid_grad(dy: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
    """dy / 6 where -3 < x < 3, else 0; also for NaN, as in PyTorch."""
    return each(lambda d, v: d / 6 if -3 < v < 3 else 0.0, dy, x)


def softplus(x: ArrayLike, beta: float = 1.0, threshold: float = 20.0) -> NDArray[np.float64]:
    """log(1 + exp(beta * x)) / beta, and x where beta * x > threshold."""
    return each(lambda v: v if beta * v > threshold else _softplus(beta * v) / beta, x)


def softplus_grad(dy: ArrayLike, x: ArrayLike, beta: float = 1.0, threshold: float = 20.0) -> NDArray[np.float64]:
    """dy * sigmoid(beta * x), and dy where beta * x > threshold."""
    return each(lambda d, v: d if beta * v > threshold else d * _sigmoid(beta * v), dy, x)


def silu(x: ArrayLike) -> NDArray[np.float64]:
    """x * sigmoid(x)."""
    return each(lambda v: v * _sigmoid(v), x)


def silu_grad(dy: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
    """dy * (sigmoid(x) + x * sigmoid(x) * sigmoid(-x))."""
    return each(lambda d, v: d * (_sigmoid(v) + v * _sigmoid(v) * _sigmoid(-v)), dy, x)


def hardswish(x: ArrayLike) -> NDArray[np.float64]:
    """x * hardsigmoid(x)."""
    return each(lambda v: v * 0.0 if v <= -3 else v if v >= 3 else v * (v + 3) / 6, x)


def hardswish_grad(dy: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
    """dy * (x/3 + 1/2) where -3 < x < 3, 0 up to -3, else dy; also for NaN, as in PyTorch."""
    return each(lambda d, v: 0.0 if v <= -3 else d * (2 * v + 3) / 6 if v < 3 else d, dy, x)


def mish(x: ArrayLike) -> NDArray[np.float64]:
    """x * tanh(softplus(x))."""
    return each(lambda v: v * math.tanh(_softplus(v)), x)


def mish_grad(dy: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
    """dy * (tanh(s) + x * sigmoid(x) / cosh(s)**2) with s = softplus(x)."""

    def slope(v: float) -> float:
        s = _softplus(v)
        return math.tanh(s) + (0.0 if s > 300 else v * _sigmoid(v) / math.cosh(s) ** 2)

    return each(lambda d, v: d * slope(v), dy, x)


def gelu(x: ArrayLike) -> NDArray[np.float64]:
    """x times the normal distribution function."""
    return each(lambda v: v * _normal_cdf(v), x)


def gelu_grad(dy: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
    """dy times the distribution function plus x times its density."""
    return each(lambda d, v: d * (_normal_cdf(v) + v * exp(-v * v / 2) / math.sqrt(2 * math.pi)), dy, x)


def _gelu_inner(v: float) -> float:
    return math.sqrt(2 / math.pi) * (v + 0.044715 * v * v * v)


def gelu_tanh(x: ArrayLike) -> NDArray[np.float64]:
    """x / 2 * (1 + tanh(u)) with u = sqrt(2 / pi) * (x + 0.044715 * x**3), which is x * sigmoid(2 * u)."""
    return each(lambda v: v * _sigmoid(2 * _gelu_inner(v)), x)


def gelu_tanh_grad(dy: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
    """dy * (sigmoid(2u) + x * sigmoid(2u) * sigmoid(-2u) * 2u')."""

    def slope(v: float) -> float:
        s, rest = _sigmoid(2 * _gelu_inner(v)), _sigmoid(-2 * _gelu_inner(v))
        if s * rest == 0:
            return s
        return s + s * rest * 2 * v * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * v * v)

    return each(lambda d, v: d * slope(v), dy, x)


def glu(x: ArrayLike, dim: int = -1) -> NDArray[np.float64]:
    """The first half of an axis times the sigmoid of the second."""
    a, b = np.split(np.asarray(x, np.float64), 2, axis=dim)
    return a * sigmoid(b)


def glu_grad(dy: ArrayLike, x: ArrayLike, dim: int = -1) -> NDArray[np.float64]:
    """dy * sigmoid(b) for the first half a, dy * a * sigmoid'(b) for the second."""
    a, b = np.split(np.asarray(x, np.float64), 2, axis=dim)
    dy = np.asarray(dy, np.float64)
    return np.concatenate([dy * sigmoid(b), sigmoid_grad(dy * a, b)], axis=dim)

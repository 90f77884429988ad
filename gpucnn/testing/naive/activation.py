"""Activations by their definitions, in float64. A `_grad` takes dy and the input x, and returns dy * f'(x)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def relu(x: ArrayLike) -> NDArray[np.float64]:
    """max(x, 0); NaN stays NaN."""
    return np.maximum(np.asarray(x, np.float64), 0.0)


def relu_grad(dy: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
    """dy where x > 0, and 0 where x <= 0; a NaN in x lets dy pass, as in PyTorch."""
    return np.where(np.asarray(x, np.float64) <= 0.0, 0.0, np.asarray(dy, np.float64))


def sigmoid(x: ArrayLike) -> NDArray[np.float64]:
    """1 / (1 + exp(-x))."""
    with np.errstate(over="ignore"):  # exp(-x) = inf is the right step towards 0
        return np.asarray(1.0 / (1.0 + np.exp(-np.asarray(x, np.float64))))


def sigmoid_grad(dy: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
    """dy * sigmoid(x) * (1 - sigmoid(x)), with 1 - sigmoid(x) written as sigmoid(-x), which does not cancel."""
    x = np.asarray(x, np.float64)
    return np.asarray(dy, np.float64) * sigmoid(x) * sigmoid(-x)


def tanh(x: ArrayLike) -> NDArray[np.float64]:
    """The hyperbolic tangent."""
    return np.asarray(np.tanh(np.asarray(x, np.float64)))


def tanh_grad(dy: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
    """dy * (1 - tanh(x)**2), written as dy / cosh(x)**2, which does not cancel."""
    with np.errstate(over="ignore"):  # cosh(x)**2 = inf is the right step towards 0
        return np.asarray(np.asarray(dy, np.float64) / np.cosh(np.asarray(x, np.float64)) ** 2)

"""Rectifiers by their definitions, in float64 loops. A `_grad` takes dy and the input x, and returns dy * f'(x)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucnn.testing.naive.activation import each, exp


def _expm1(v: float) -> float:
    return math.inf if v > 709.7 else math.expm1(v)


def relu(x: ArrayLike) -> NDArray[np.float64]:
    """max(x, 0); NaN stays NaN."""
    return each(lambda v: 0.0 if v <= 0 else v, x)


def relu_grad(dy: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
    """dy where x > 0, and 0 where x <= 0; a NaN in x lets dy pass, as in PyTorch."""
    return each(lambda d, v: 0.0 if v <= 0 else d, dy, x)


def hardtanh(x: ArrayLike, min_val: float = -1.0, max_val: float = 1.0) -> NDArray[np.float64]:
    """x limited to [min_val, max_val]; NaN stays NaN."""
    return each(lambda v: min_val if v < min_val else max_val if v > max_val else v, x)


def hardtanh_grad(dy: ArrayLike, x: ArrayLike, min_val: float = -1.0, max_val: float = 1.0) -> NDArray[np.float64]:
    """dy where min_val < x < max_val, else 0; also for NaN."""
    return each(lambda d, v: d if min_val < v < max_val else 0.0, dy, x)


def leaky_relu(x: ArrayLike, negative_slope: float = 0.01) -> NDArray[np.float64]:
    """x where x > 0, else negative_slope * x."""
    return each(lambda v: v if v > 0 else negative_slope * v, x)


def leaky_relu_grad(dy: ArrayLike, x: ArrayLike, negative_slope: float = 0.01) -> NDArray[np.float64]:
    """dy where x > 0, else negative_slope * dy."""
    return each(lambda d, v: d if v > 0 else negative_slope * d, dy, x)


def prelu(x: ArrayLike, weight: ArrayLike) -> NDArray[np.float64]:
    """x where x > 0, else weight * x, for a weight that broadcasts to x."""
    return each(lambda v, w: v if v > 0 else w * v, x, np.broadcast_to(weight, np.shape(x)))


def prelu_grad(dy: ArrayLike, x: ArrayLike, weight: ArrayLike) -> NDArray[np.float64]:
    """dy where x > 0, else weight * dy."""
    return each(lambda d, v, w: d if v > 0 else w * d, dy, x, np.broadcast_to(weight, np.shape(x)))


def prelu_weight_grad(dy: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
    """dy * x where x <= 0, not yet summed over the elements that share a weight."""
    return each(lambda d, v: 0.0 if v > 0 else d * v, dy, x)


def elu(x: ArrayLike, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> NDArray[np.float64]:
    """scale * x where x > 0, else scale * alpha * (exp(input_scale * x) - 1)."""
    return each(lambda v: scale * (alpha * _expm1(input_scale * v) if v <= 0 else v), x)


def elu_grad(
    dy: ArrayLike, x: ArrayLike, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0
) -> NDArray[np.float64]:
    """dy * scale where x > 0 (or NaN), else dy * scale * alpha * input_scale * exp(input_scale * x)."""
    slope = scale * alpha * input_scale
    return each(lambda d, v: d * (slope * exp(input_scale * v) if v <= 0 else scale), dy, x)


def threshold(x: ArrayLike, threshold: float, value: float) -> NDArray[np.float64]:
    """value where x <= threshold, else x."""
    return each(lambda v: value if v <= threshold else v, x)


def threshold_grad(dy: ArrayLike, x: ArrayLike, threshold: float, value: float) -> NDArray[np.float64]:
    """0 where x <= threshold, else dy."""
    return each(lambda d, v: 0.0 if v <= threshold else d, dy, x)


def hardshrink(x: ArrayLike, lambd: float = 0.5) -> NDArray[np.float64]:
    """0 where |x| <= lambd, else x."""
    return each(lambda v: 0.0 if abs(v) <= lambd else v, x)


def hardshrink_grad(dy: ArrayLike, x: ArrayLike, lambd: float = 0.5) -> NDArray[np.float64]:
    """0 where |x| <= lambd, else dy."""
    return each(lambda d, v: 0.0 if abs(v) <= lambd else d, dy, x)


def softshrink(x: ArrayLike, lambd: float = 0.5) -> NDArray[np.float64]:
    """x - lambd where x > lambd, x + lambd where x < -lambd, else 0; NaN stays NaN."""
    return each(lambda v: v - lambd if v > lambd else v + lambd if v < -lambd else 0.0 * v, x)


def softshrink_grad(dy: ArrayLike, x: ArrayLike, lambd: float = 0.5) -> NDArray[np.float64]:
    """0 where |x| <= lambd, else dy."""
    return hardshrink_grad(dy, x, lambd)

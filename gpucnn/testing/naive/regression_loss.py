"""Losses between an input and a target of one shape by their definitions, in float64 loops.

Each is the loss of every element; a gradient is its derivative by the input, a target gradient the one by the target.
Sums, means and what comes from above are for the caller to apply.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucnn.testing.naive.activation import each, exp


def _log(v: float) -> float:
    return math.nan if math.isnan(v) or v < 0 else -math.inf if v == 0 else math.log(v)


def _sigmoid(v: float) -> float:
    return 1 / (1 + exp(-v))


def _softplus(v: float) -> float:
    return v if v > 40 else math.log1p(exp(v))


def mse(x: ArrayLike, t: ArrayLike) -> NDArray[np.float64]:
    """(x - t)**2."""
    return each(lambda v, w: (v - w) * (v - w), x, t)


def mse_grad(x: ArrayLike, t: ArrayLike) -> NDArray[np.float64]:
    """2 * (x - t)."""
    return each(lambda v, w: 2 * (v - w), x, t)


def l1(x: ArrayLike, t: ArrayLike) -> NDArray[np.float64]:
    """|x - t|."""
    return each(lambda v, w: abs(v - w), x, t)


def l1_grad(x: ArrayLike, t: ArrayLike) -> NDArray[np.float64]:
    """1 where x > t, -1 where x < t, else 0; also for NaN, as in PyTorch."""
    return each(lambda v, w: 1.0 if v - w > 0 else -1.0 if v - w < 0 else 0.0, x, t)


def smooth_l1(x: ArrayLike, t: ArrayLike, beta: float = 1.0) -> NDArray[np.float64]:
    """d**2 / (2 * beta) where d = |x - t| < beta, else d - beta / 2."""

    def one(v: float, w: float) -> float:
        d = abs(v - w)
        return d * d / (2 * beta) if d < beta else d - beta / 2

    return each(one, x, t)


def smooth_l1_grad(x: ArrayLike, t: ArrayLike, beta: float = 1.0) -> NDArray[np.float64]:
    """(x - t) / beta within beta of each other, else the sign of x - t."""
    return each(lambda v, w: 1.0 if v - w >= beta else -1.0 if v - w <= -beta else (v - w) / beta, x, t)


def huber(x: ArrayLike, t: ArrayLike, delta: float = 1.0) -> NDArray[np.float64]:
    """d**2 / 2 where d = |x - t| <= delta, else delta * (d - delta / 2)."""

    def one(v: float, w: float) -> float:
        d = abs(v - w)
        return d * d / 2 if d <= delta else delta * (d - delta / 2)

    return each(one, x, t)


def huber_grad(x: ArrayLike, t: ArrayLike, delta: float = 1.0) -> NDArray[np.float64]:
    """x - t within delta of each other, else delta times its sign."""
    return each(lambda v, w: delta if v - w > delta else -delta if v - w < -delta else v - w, x, t)


def bce(x: ArrayLike, t: ArrayLike) -> NDArray[np.float64]:
    """-(t * log(x) + (1 - t) * log(1 - x)), each logarithm being at least -100."""
    return each(
        lambda v, w: -(w * max(_log(v), -100.0) + (1 - w) * max(math.log1p(-v) if v < 1 else -100.0, -100.0)), x, t
    )


def bce_grad(x: ArrayLike, t: ArrayLike) -> NDArray[np.float64]:
    """(x - t) / (x * (1 - x)), the divisor being at least 1e-12."""
    return each(lambda v, w: (v - w) / max(v * (1 - v), 1e-12), x, t)


def bce_target_grad(x: ArrayLike, t: ArrayLike) -> NDArray[np.float64]:
    """log(1 - x) - log(x)."""
    return each(lambda v, w: (math.log1p(-v) if v < 1 else -math.inf) - _log(v), x, t)


def bce_with_logits(x: ArrayLike, t: ArrayLike, pos_weight: ArrayLike = 1.0) -> NDArray[np.float64]:
    """-(pos_weight * t * log(sigmoid(x)) + (1 - t) * log(sigmoid(-x)))."""
    weights = np.broadcast_to(pos_weight, np.shape(x))
    return each(lambda v, w, p: p * w * _softplus(-v) + (1 - w) * _softplus(v), x, t, weights)


def bce_with_logits_grad(x: ArrayLike, t: ArrayLike, pos_weight: ArrayLike = 1.0) -> NDArray[np.float64]:
    """(1 - t) * sigmoid(x) - pos_weight * t * sigmoid(-x)."""
    weights = np.broadcast_to(pos_weight, np.shape(x))
    return each(lambda v, w, p: (1 - w) * _sigmoid(v) - p * w * _sigmoid(-v), x, t, weights)


def bce_with_logits_target_grad(x: ArrayLike, t: ArrayLike, pos_weight: ArrayLike = 1.0) -> NDArray[np.float64]:
    """log(sigmoid(-x)) - pos_weight * log(sigmoid(x)), with their signs."""
    weights = np.broadcast_to(pos_weight, np.shape(x))
    return each(lambda v, w, p: p * _softplus(-v) - _softplus(v), x, t, weights)


def kl_div(x: ArrayLike, t: ArrayLike) -> NDArray[np.float64]:
    """t * log(t) - t * x, with 0 * log(0) = 0."""
    return each(lambda v, w: (0.0 if w == 0 else w * _log(w)) - w * v, x, t)


def kl_div_grad(x: ArrayLike, t: ArrayLike) -> NDArray[np.float64]:
    """-t."""
    return each(lambda v, w: -w, x, t)


def kl_div_target_grad(x: ArrayLike, t: ArrayLike) -> NDArray[np.float64]:
    """log(t) + 1 - x."""
    return each(lambda v, w: _log(w) + 1 - v, x, t)


def kl_div_log(x: ArrayLike, t: ArrayLike) -> NDArray[np.float64]:
    """exp(t) * (t - x)."""
    return each(lambda v, w: exp(w) * (w - v), x, t)


def kl_div_log_grad(x: ArrayLike, t: ArrayLike) -> NDArray[np.float64]:
    """-exp(t)."""
    return each(lambda v, w: -exp(w), x, t)


def kl_div_log_target_grad(x: ArrayLike, t: ArrayLike) -> NDArray[np.float64]:
    """exp(t) * (t - x) + exp(t)."""
    return each(lambda v, w: exp(w) * (w - v) + exp(w), x, t)

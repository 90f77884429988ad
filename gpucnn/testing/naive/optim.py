"""One step of each optimiser by PyTorch's formulas, in float64: arrays in, new arrays out."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def sgd_step(
    parameter: ArrayLike,
    grad: ArrayLike,
    buffer: ArrayLike | None = None,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Stochastic gradient descent; Sutskever, Martens, Dahl and Hinton (ICML 2013) for the momentum's form.

        g = grad + weight_decay * parameter
        buffer = g on the first step (buffer None), then momentum * buffer + (1 - dampening) * g
        parameter -= lr * (g + momentum * buffer  with nesterov, else  buffer)

    Returns:
        The new parameter and the new buffer (None without momentum).
    """
    parameter = np.asarray(parameter, np.float64)
    g = np.asarray(grad, np.float64) + weight_decay * parameter
    if momentum == 0:
        return parameter - lr * g, None
    velocity = g if buffer is None else momentum * np.asarray(buffer, np.float64) + (1 - dampening) * g
    return parameter - lr * (g + momentum * velocity if nesterov else velocity), velocity


def adam_step(
    parameter: ArrayLike,
    grad: ArrayLike,
    m: ArrayLike,
    v: ArrayLike,
    step: int,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Adam (Kingma and Ba, ICLR 2015). `step` counts from 1; m and v start as zeros.

        g = grad + weight_decay * parameter
        m = beta1 * m + (1 - beta1) * g,    v = beta2 * v + (1 - beta2) * g**2
        parameter -= lr * (m / (1 - beta1**step)) / (sqrt(v / (1 - beta2**step)) + eps)

    Returns:
        The new parameter, m and v.
    """
    parameter = np.asarray(parameter, np.float64)
    g = np.asarray(grad, np.float64) + weight_decay * parameter
    m = betas[0] * np.asarray(m, np.float64) + (1 - betas[0]) * g
    v = betas[1] * np.asarray(v, np.float64) + (1 - betas[1]) * g**2
    direction = (m / (1 - betas[0] ** step)) / (np.sqrt(v / (1 - betas[1] ** step)) + eps)
    return parameter - lr * direction, m, v


def adamw_step(
    parameter: ArrayLike,
    grad: ArrayLike,
    m: ArrayLike,
    v: ArrayLike,
    step: int,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """AdamW (Loshchilov and Hutter, ICLR 2019): parameter *= 1 - lr * weight_decay, then Adam without decay."""
    decayed = np.asarray(parameter, np.float64) * (1 - lr * weight_decay)
    return adam_step(decayed, grad, m, v, step, lr=lr, betas=betas, eps=eps)

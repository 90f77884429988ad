"""Normalisation by its definition, in float64.

All but local response normalisation are one thing done to different sets of elements: a channel of all images (batch),
a channel of one image (instance), a group of channels of one image (group), the last axes (layer). A set of n values
becomes z = (x - mean) / deviation with deviation = sqrt(sum of (x - mean)**2 / n + eps), and its gradient is the
product with the whole matrix of derivatives

    dz[i] / dx[j] = ((1 if i == j else 0) - 1 / n - z[i] * z[j] / n) / deviation
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Gradients = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""dx, dweight, dbias."""


def batch_norm(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    eps: float = 1e-5,
    mean: ArrayLike | None = None,
    var: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """x (N,C,...) by the statistics of each channel, or by the given `mean` and `var` (C,); weight and bias (C,)."""
    x = np.asarray(x, np.float64)
    if mean is None or var is None:
        return _normalized(x, _channels(x), _along(x, weight, 1), _along(x, bias, 0), eps)
    deviation = np.sqrt(np.asarray(var, np.float64) + eps)
    return (x - _along(x, mean, 0)) / _along(x, deviation, 1) * _along(x, weight, 1) + _along(x, bias, 0)


def batch_norm_grad(
    dy: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike | None = None,
    eps: float = 1e-5,
    mean: ArrayLike | None = None,
    var: ArrayLike | None = None,
) -> Gradients:
    """dx of x's shape, dweight and dbias (C,); the statistics depend on x unless they are given."""
    dy, x = np.asarray(dy, np.float64), np.asarray(x, np.float64)
    if mean is None or var is None:
        dx, dweight, dbias = _normalized_grad(dy, x, _channels(x), _along(x, weight, 1), eps)
    else:
        deviation = _along(x, np.sqrt(np.asarray(var, np.float64) + eps), 1)
        dx = dy * _along(x, weight, 1) / deviation
        dweight, dbias = dy * (x - _along(x, mean, 0)) / deviation, dy
    return dx, _by_channel(dweight), _by_channel(dbias)


def batch_statistics(x: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and unbiased variance of each channel of x (N,C,...), both (C,): what running statistics move towards."""
    x = np.asarray(x, np.float64)
    values = [x[:, c].reshape(-1) for c in range(x.shape[1])]
    means = np.array([v.sum() / v.size for v in values])
    return means, np.array([((v - m) ** 2).sum() / (v.size - 1) for v, m in zip(values, means, strict=True)])


def group_norm(
    x: ArrayLike,
    groups: int,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    eps: float = 1e-5,
) -> NDArray[np.float64]:
    """x (N,C,...) by the statistics of each run of C/groups channels of each image; weight and bias (C,)."""
    x = np.asarray(x, np.float64)
    return _normalized(x, _groups(x, groups), _along(x, weight, 1), _along(x, bias, 0), eps)


def group_norm_grad(
    dy: ArrayLike, x: ArrayLike, groups: int, weight: ArrayLike | None = None, eps: float = 1e-5
) -> Gradients:
    """dx of x's shape, dweight and dbias (C,)."""
    dy, x = np.asarray(dy, np.float64), np.asarray(x, np.float64)
    dx, dweight, dbias = _normalized_grad(dy, x, _groups(x, groups), _along(x, weight, 1), eps)
    return dx, _by_channel(dweight), _by_channel(dbias)


def instance_norm(
    x: ArrayLike, weight: ArrayLike | None = None, bias: ArrayLike | None = None, eps: float = 1e-5
) -> NDArray[np.float64]:
    """x (N,C,...) by the statistics of each channel of each image; weight and bias (C,)."""
    return group_norm(x, np.shape(x)[1], weight, bias, eps)


def instance_norm_grad(dy: ArrayLike, x: ArrayLike, weight: ArrayLike | None = None, eps: float = 1e-5) -> Gradients:
    """dx of x's shape, dweight and dbias (C,)."""
    return group_norm_grad(dy, x, np.shape(x)[1], weight, eps)


def layer_norm(
    x: ArrayLike,
    axes: int,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    eps: float = 1e-5,
) -> NDArray[np.float64]:
    """x by the statistics over its last `axes` axes, of whose sizes weight and bias are."""
    x = np.asarray(x, np.float64)
    factor = 1.0 if weight is None else np.asarray(weight, np.float64)
    return _normalized(x, _last(x, axes), np.broadcast_to(factor, x.shape), 0.0 if bias is None else bias, eps)


def layer_norm_grad(
    dy: ArrayLike, x: ArrayLike, axes: int, weight: ArrayLike | None = None, eps: float = 1e-5
) -> Gradients:
    """dx of x's shape, dweight and dbias of the last axes' sizes."""
    dy, x = np.asarray(dy, np.float64), np.asarray(x, np.float64)
    factor = 1.0 if weight is None else np.asarray(weight, np.float64)
    dx, dweight, dbias = _normalized_grad(dy, x, _last(x, axes), np.broadcast_to(factor, x.shape), eps)
    outer = tuple(range(x.ndim - axes))
    return dx, dweight.sum(axis=outer), dbias.sum(axis=outer)


def local_response_norm(
    x: ArrayLike, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> NDArray[np.float64]:
    """y[n,c] = x[n,c] / s[n,c]**beta with s[n,c] = k + alpha / size * the sum of x[n,j]**2 over the window of c."""
    x = np.asarray(x, np.float64)
    y = np.empty(x.shape)
    for c in range(x.shape[1]):
        squares = sum(x[:, j] ** 2 for j in _window(c, size, x.shape[1]))
        y[:, c] = x[:, c] / (k + alpha / size * squares) ** beta
    return y


def local_response_norm_grad(
    dy: ArrayLike, x: ArrayLike, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> NDArray[np.float64]:
    """dx[j]: over c the sum of dy[c] times the derivative of y[c] by x[j], from the product and the chain rule."""
    dy, x = np.asarray(dy, np.float64), np.asarray(x, np.float64)
    dx = np.zeros(x.shape)
    for c in range(x.shape[1]):
        window = _window(c, size, x.shape[1])
        s = k + alpha / size * sum(x[:, j] ** 2 for j in window)
        dx[:, c] += dy[:, c] * s**-beta
        for j in window:
            dx[:, j] += dy[:, c] * x[:, c] * -beta * s ** (-beta - 1) * alpha / size * 2 * x[:, j]
    return dx


def _window(c: int, size: int, channels: int) -> range:
    return range(max(0, c - size // 2), min(channels, c + (size - 1) // 2 + 1))


def _channels(x: NDArray[np.float64]) -> Iterator[Any]:
    """Indices of the sets of batch norm."""
    return ((slice(None), c) for c in range(x.shape[1]))


def _groups(x: NDArray[np.float64], groups: int) -> Iterator[Any]:
    each = x.shape[1] // groups
    return ((n, slice(g * each, (g + 1) * each)) for n in range(x.shape[0]) for g in range(groups))


def _last(x: NDArray[np.float64], axes: int) -> Iterator[Any]:
    return np.ndindex(x.shape[: x.ndim - axes])


def _normalized(x: NDArray[np.float64], sets: Iterator[Any], weight: Any, bias: Any, eps: float) -> NDArray[np.float64]:
    z = np.empty(x.shape)
    for index in sets:
        z[index], _ = _standardized(x[index], eps)
    y: NDArray[np.float64] = z * weight + bias
    return y


def _normalized_grad(
    dy: NDArray[np.float64], x: NDArray[np.float64], sets: Iterator[Any], weight: Any, eps: float
) -> Gradients:
    """dx, and for each element what it adds to the gradients of weight and bias."""
    dx, z = np.empty(x.shape), np.empty(x.shape)
    dz = dy * weight
    for index in sets:
        z[index], deviation = _standardized(x[index], eps)
        flat = z[index].reshape(-1)
        n = flat.size
        derivatives = (np.eye(n) - 1 / n - flat[:, None] * flat[None, :] / n) / deviation
        dx[index] = (dz[index].reshape(-1) @ derivatives).reshape(x[index].shape)
    return dx, dy * z, dy


def _standardized(values: NDArray[np.float64], eps: float) -> tuple[NDArray[np.float64], float]:
    mean = values.sum() / values.size
    deviation = float(np.sqrt(((values - mean) ** 2).sum() / values.size + eps))
    return (values - mean) / deviation, deviation


def _along(x: NDArray[np.float64], values: ArrayLike | None, default: float) -> NDArray[np.float64]:
    """(C,) as an array that broadcasts along axis 1 of x."""
    channels = np.full(x.shape[1], float(default)) if values is None else np.asarray(values, np.float64)
    return channels.reshape((-1,) + (1,) * (x.ndim - 2))


def _by_channel(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([terms[:, c].sum() for c in range(terms.shape[1])])

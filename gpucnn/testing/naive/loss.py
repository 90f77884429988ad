"""Cross-entropies by their definition, in float64; weights, smoothing and means are PyTorch's.

For a row of logits z with class t, and e = label_smoothing over C classes, the target's mass and the row's loss are

    mass[c] = (1 - e) * weight[t] * [c == t] + e / C * weight[c],    loss = -sum over c of mass[c] * log softmax(z)[c]

and a row whose class is ignore_index has no mass. "mean" divides the sum of the losses by the sum of weight[t] over
the rows that are not ignored, hence it is NaN where there is none. With probabilities q for targets the mass is
((1 - e) * q[c] + e / C) * weight[c], and the mean divides by the number of rows.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Reduction = Literal["none", "mean", "sum"]


def cross_entropy(
    logits: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> NDArray[np.float64]:
    """The loss of logits (N, C, ...) for classes target (N, ...): target's shape for "none", else 0-d.

    Raises:
        ValueError: shapes that do not fit, a class outside [0, C) that is not ignore_index, an unknown reduction.
    """
    z, classes, weights = _rows(logits, target, weight, ignore_index)
    losses = np.zeros(len(z))
    for i, (row, t) in enumerate(zip(z, classes, strict=True)):
        mass = _mass(int(t), weights, ignore_index, label_smoothing)
        log_softmax = row - row.max() - np.log(np.exp(row - row.max()).sum())
        losses[i] = -sum(mass[c] * log_softmax[c] for c in range(len(row)) if mass[c] != 0)
    return _reduced(losses.reshape(np.shape(target)), _divisor(classes, weights, ignore_index, reduction), reduction)


def cross_entropy_grad(
    dloss: ArrayLike,
    logits: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> NDArray[np.float64]:
    """Gradient with respect to logits, of their shape; ignored rows get zeros, also where all are ignored.

    dlogits[c] = dloss * (softmax(z)[c] * sum(mass) - mass[c]), divided as the loss is
    """
    z, classes, weights = _rows(logits, target, weight, ignore_index)
    shape = np.shape(logits)
    upstream = np.broadcast_to(np.asarray(dloss, np.float64), np.shape(target)).reshape(-1)
    divisor = _divisor(classes, weights, ignore_index, reduction)
    dz = np.zeros_like(z)
    for i, (row, t) in enumerate(zip(z, classes, strict=True)):
        if t != ignore_index:
            mass = _mass(int(t), weights, ignore_index, label_smoothing)
            softmax = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
            dz[i] = upstream[i] * (softmax * mass.sum() - mass) / divisor
    return np.moveaxis(dz.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


def nll_loss(
    log_p: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> NDArray[np.float64]:
    """-weight[t] * log_p[t] of log-probabilities (N, C, ...) for target (N, ...); reduced as `cross_entropy`."""
    rows, classes, weights = _rows(log_p, target, weight, ignore_index)
    losses = np.zeros(len(rows))
    for i, (row, t) in enumerate(zip(rows, classes, strict=True)):
        if t != ignore_index:
            losses[i] = -weights[t] * row[t]
    return _reduced(losses.reshape(np.shape(target)), _divisor(classes, weights, ignore_index, reduction), reduction)


def nll_loss_grad(
    dloss: ArrayLike,
    log_p: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> NDArray[np.float64]:
    """Gradient with respect to log_p: -weight[t] * dloss in the place of each target, divided as the loss is."""
    rows, classes, weights = _rows(log_p, target, weight, ignore_index)
    shape = np.shape(log_p)
    upstream = np.broadcast_to(np.asarray(dloss, np.float64), np.shape(target)).reshape(-1)
    divisor = _divisor(classes, weights, ignore_index, reduction)
    gradient = np.zeros_like(rows)
    for i, t in enumerate(classes):
        if t != ignore_index:
            gradient[i, t] = -weights[t] * upstream[i] / divisor
    return np.moveaxis(gradient.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


def soft_cross_entropy(
    logits: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> NDArray[np.float64]:
    """The loss of logits (M, C) for probabilities target (M, C): (M,) for "none", else 0-d."""
    z, q, weights = _soft_rows(logits, target, weight)
    losses = np.zeros(len(z))
    for i, (row, probabilities) in enumerate(zip(z, q, strict=True)):
        log_softmax = row - row.max() - np.log(np.exp(row - row.max()).sum())
        for c in range(len(row)):
            mass = ((1 - label_smoothing) * probabilities[c] + label_smoothing / len(row)) * weights[c]
            losses[i] -= mass * log_softmax[c]
    return losses if reduction == "none" else np.asarray(losses.sum() / (len(z) if reduction == "mean" else 1))


def soft_cross_entropy_grad(
    dloss: ArrayLike,
    logits: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gradients with respect to logits and target: dloss * (softmax * sum(mass) - mass), and
    -dloss * (1 - e) * weight * log softmax, divided as the loss is."""
    z, q, weights = _soft_rows(logits, target, weight)
    upstream = np.broadcast_to(np.asarray(dloss, np.float64), len(z)) / (len(z) if reduction == "mean" else 1)
    dz, dq = np.zeros_like(z), np.zeros_like(q)
    for i, (row, probabilities) in enumerate(zip(z, q, strict=True)):
        log_softmax = row - row.max() - np.log(np.exp(row - row.max()).sum())
        mass = ((1 - label_smoothing) * probabilities + label_smoothing / len(row)) * weights
        dz[i] = upstream[i] * (np.exp(log_softmax) * mass.sum() - mass)
        dq[i] = -upstream[i] * (1 - label_smoothing) * weights * log_softmax
    return dz, dq


def _soft_rows(
    logits: ArrayLike, target: ArrayLike, weight: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    z, q = np.asarray(logits, np.float64), np.asarray(target, np.float64)
    return z, q, np.ones(z.shape[1]) if weight is None else np.asarray(weight, np.float64)


def _rows(
    logits: ArrayLike, target: ArrayLike, weight: ArrayLike | None, ignore_index: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """logits as (rows, C), target as (rows,), weight as (C,)."""
    z, classes = np.asarray(logits, np.float64), np.asarray(target)
    if z.ndim < 2 or classes.shape != (z.shape[0], *z.shape[2:]):
        raise ValueError(f"logits (N, C, ...) and target (N, ...) do not fit: {z.shape} and {classes.shape}")
    if classes.dtype.kind not in "iu":
        raise ValueError(f"target must hold class indices, integers, got {classes.dtype}")
    C = z.shape[1]
    weights = np.ones(C) if weight is None else np.asarray(weight, np.float64)
    if weights.shape != (C,):
        raise ValueError(f"weight must have shape ({C},), one number a class, got {weights.shape}")
    wrong = (classes != ignore_index) & ((classes < 0) | (classes >= C))
    if wrong.any():
        raise ValueError(f"target holds class {classes[wrong][0]}, outside [0, {C})")
    rows = classes.size
    return np.moveaxis(z, 1, -1).reshape(rows, C), classes.reshape(rows).astype(np.int64), weights


def _mass(t: int, weights: NDArray[np.float64], ignore_index: int, label_smoothing: float) -> NDArray[np.float64]:
    if t == ignore_index:
        return np.zeros_like(weights)
    mass = label_smoothing / len(weights) * weights
    mass[t] += (1 - label_smoothing) * weights[t]
    return mass


def _reduced(losses: NDArray[np.float64], divisor: float, reduction: Reduction) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return losses if reduction == "none" else np.asarray(np.divide(losses.sum(), divisor))


def _divisor(
    classes: NDArray[np.int64], weights: NDArray[np.float64], ignore_index: int, reduction: Reduction
) -> float:
    if reduction in ("none", "sum"):
        return 1.0
    if reduction == "mean":
        return float(weights[classes[classes != ignore_index]].sum())
    raise ValueError(f"reduction must be 'none', 'mean' or 'sum', got {reduction!r}")

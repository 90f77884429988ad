"""Softmax cross-entropy over class indices: logits (M,C), targets (M,) integers.

With class weights v, label smoothing e and C classes, a row's loss is
(1 - e) * -v[t] log p[t] + e / C * sum over c of -v[c] log p[c], and 0 where t is `ignore_index`; the mean divides by
the sum of v[t] over the rows that count (Szegedy et al., "Rethinking the Inception architecture", 2015).
"""

from __future__ import annotations

from dataclasses import dataclass

from gpucnn.backend import Array, accumulator, namespace
from gpucnn.reference.softmax import log_softmax


@dataclass(frozen=True)
class CrossEntropyProblem:
    ignore_index: int
    label_smoothing: float
    reduction: str  # none, mean, sum


def cross_entropy(
    p: CrossEntropyProblem, logits: Array, targets: Array, weight: Array | None
) -> tuple[Array, Array, Array]:
    """(loss, log_p, scale): loss () or (M,); log_p (M,C) and scale (M,) are what the gradient needs.

    `scale` is each row's share in a reduced loss: 0 for ignored rows, 1 / (sum of v[t]) for the mean.
    """
    xp = namespace(logits)
    rows = logits.astype(accumulator(logits.dtype), copy=False)
    log_p = log_softmax(None, rows)
    counts = targets != p.ignore_index
    safe = xp.where(counts, targets, 0)
    v = xp.ones(rows.shape[1], rows.dtype) if weight is None else weight.astype(rows.dtype, copy=False)
    hit = xp.take_along_axis(log_p, safe[:, None], axis=1)[:, 0]
    loss = -v[safe] * hit * (1 - p.label_smoothing)
    if p.label_smoothing:
        loss -= (log_p * v).sum(axis=1) * (p.label_smoothing / rows.shape[1])
    zero = rows.dtype.type(0)
    loss = xp.where(counts, loss, zero)
    scale = counts.astype(rows.dtype)
    if p.reduction == "mean":
        total = (v[safe] * scale).sum()
        loss, scale = loss.sum() / total, xp.where(counts, 1 / total, zero)
    elif p.reduction == "sum":
        loss = loss.sum()
    return xp.asarray(loss, dtype=logits.dtype), log_p, scale


def cross_entropy_grad(
    p: CrossEntropyProblem, dy: Array, log_p: Array, scale: Array, targets: Array, weight: Array | None
) -> Array:
    """d logits (M,C) in the dtype of dy, which is () or (M,)."""
    xp = namespace(log_p)
    M, C = log_p.shape
    safe = xp.where(targets != p.ignore_index, targets, 0)
    v = xp.ones(C, log_p.dtype) if weight is None else weight.astype(log_p.dtype, copy=False)
    hit = v[safe] * (1 - p.label_smoothing)
    share = v * (p.label_smoothing / C)
    gradient = xp.exp(log_p)
    gradient *= (hit + share.sum())[:, None]
    gradient[xp.arange(M), safe] -= hit
    if p.label_smoothing:
        gradient -= share
    row = scale * dy
    gradient *= xp.where(scale == 0, row.dtype.type(0), row)[:, None]
    return gradient.astype(dy.dtype, copy=False)

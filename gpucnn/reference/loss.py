"""Cross-entropies: rows (M,C) of logits or of log-probabilities against M class indices or (M,C) probabilities.

With class weights v, label smoothing e and C classes, a row's loss is sum over c of -mass[c] * log p[c]. For a class
index t its mass[c] is (1 - e) * v[t] * [c == t] + e / C * v[c], or 0 where t is `ignore_index`, and the mean divides by
the sum of v[t] over the rows that count; for probabilities q it is ((1 - e) * q[c] + e / C) * v[c], and the mean
divides by M (Szegedy et al., "Rethinking the Inception architecture", 2015).
"""

from __future__ import annotations

from dataclasses import dataclass

from gpucnn.backend import Array, accumulator, namespace, zeros
from gpucnn.reference.pointwise import rowwise
from gpucnn.reference.softmax import log_softmax


@dataclass(frozen=True)
class CrossEntropyProblem:
    ignore_index: int
    label_smoothing: float
    reduction: str  # none, mean, sum


@dataclass(frozen=True)
class NLLProblem:
    ignore_index: int
    reduction: str  # none, mean, sum


def _picked(
    p: CrossEntropyProblem | NLLProblem, log_p: Array, targets: Array, weight: Array | None
) -> tuple[Array, Array, Array]:
    """Of each row (M,): -v[t] * log p[t], v[t], and whether it counts; both numbers are 0 where it does not."""
    xp = namespace(log_p)
    work = accumulator(log_p.dtype)
    counts = targets != p.ignore_index
    safe = xp.where(counts, targets, 0)
    hit = xp.take_along_axis(log_p, safe[:, None], axis=1)[:, 0].astype(work, copy=False)
    v = xp.ones(log_p.shape[1], work) if weight is None else weight.astype(work, copy=False)
    v = xp.where(counts, v[safe], work.type(0))
    return xp.where(counts, -v * hit, v), v, counts


def _reduced(reduction: str, loss: Array, v: Array, counts: Array) -> tuple[Array, Array]:
    """The loss, and each row's share in it: 0 for ignored rows, 1 / (sum of v) for the mean."""
    share = counts.astype(loss.dtype)
    if reduction == "mean":
        total = v.sum()
        return loss.sum() / total, namespace(loss).where(counts, 1 / total, share)
    return (loss.sum() if reduction == "sum" else loss), share


def nll_loss(p: NLLProblem, log_p: Array, targets: Array, weight: Array | None) -> tuple[Array, Array]:
    """(loss, scale): loss () or (M,); scale (M,) is minus the gradient of a loss's sum by each row's hit."""
    xp = namespace(log_p)
    loss, v, counts = _picked(p, log_p, targets, weight)
    loss, share = _reduced(p.reduction, loss, v, counts)
    return xp.asarray(loss, dtype=log_p.dtype), xp.where(counts, v * share, share)


def nll_loss_grad(p: NLLProblem, dy: Array, scale: Array, targets: Array, classes: int) -> Array:
    """d log_p (M,C) in the dtype of dy, which is () or (M,)."""
    xp = namespace(scale)
    gradient = zeros((len(scale), classes), dy.dtype, scale)
    counts = targets != p.ignore_index
    gradient[xp.arange(len(scale)), xp.where(counts, targets, 0)] = xp.where(counts, -scale * dy, scale)
    return gradient


def cross_entropy(
    p: CrossEntropyProblem, logits: Array, targets: Array, weight: Array | None
) -> tuple[Array, Array, Array]:
    """(loss, log_p, scale): loss () or (M,); log_p (M,C) and scale (M,), each row's share, are for the gradient."""
    xp = namespace(logits)
    log_p = log_softmax(None, logits.astype(accumulator(logits.dtype), copy=False))
    loss, v, counts = _picked(p, log_p, targets, weight)
    if p.label_smoothing:
        ones = xp.ones(log_p.shape[1], log_p.dtype)
        spread = xp.matmul(log_p, ones if weight is None else weight.astype(log_p.dtype, copy=False))
        spread *= -p.label_smoothing / log_p.shape[1]
        loss *= 1 - p.label_smoothing
        loss += xp.where(counts, spread, log_p.dtype.type(0))
    loss, scale = _reduced(p.reduction, loss, v, counts)
    return xp.asarray(loss, dtype=logits.dtype), log_p, scale


@rowwise
def _spread(share: Array | None, log_p: Array, total: Array, row: Array, *, out: Array) -> None:
    """out (B,C) = softmax * total (B,1) - row (B,1) * share (C,)."""
    namespace(out).exp(log_p, out=out)
    out *= total
    if share is not None:
        out -= row * share


def cross_entropy_grad(
    p: CrossEntropyProblem, dy: Array, log_p: Array, scale: Array, targets: Array, weight: Array | None
) -> Array:
    """d logits (M,C) in the dtype of dy, which is () or (M,)."""
    xp = namespace(log_p)
    M, C = log_p.shape
    safe = xp.where(targets != p.ignore_index, targets, 0)
    v = xp.ones(C, log_p.dtype) if weight is None else weight.astype(log_p.dtype, copy=False)
    share = v * (p.label_smoothing / C) if p.label_smoothing else None
    row = xp.where(scale == 0, scale.dtype.type(0), scale * dy)
    hit = v[safe] * (1 - p.label_smoothing)
    total = row * (hit if share is None else hit + share.sum())
    gradient = _spread(share, log_p, total[:, None], row[:, None])
    gradient[xp.arange(M), safe] -= hit * row
    return gradient.astype(dy.dtype, copy=False)


def _mass(p: CrossEntropyProblem, target: Array, weight: Array | None, like: Array) -> Array:
    mass = target.astype(like.dtype, copy=False)
    if p.label_smoothing:
        mass = mass * (1 - p.label_smoothing) + p.label_smoothing / target.shape[1]
    return mass if weight is None else mass * weight.astype(like.dtype, copy=False)


def soft_cross_entropy(
    p: CrossEntropyProblem, logits: Array, target: Array, weight: Array | None
) -> tuple[Array, Array]:
    """(loss, log_p) for probabilities: loss () or (M,), log_p (M,C) for the gradient."""
    xp = namespace(logits)
    log_p = log_softmax(None, logits.astype(accumulator(logits.dtype), copy=False))
    loss = -(_mass(p, target, weight, log_p) * log_p).sum(axis=1)
    if p.reduction != "none":
        loss = loss.sum()
    if p.reduction == "mean":
        loss = loss / len(log_p)
    return xp.asarray(loss, dtype=logits.dtype), log_p


def _soft_row(p: CrossEntropyProblem, dy: Array, log_p: Array) -> Array:
    row = dy.astype(log_p.dtype, copy=False)
    return row[:, None] if dy.ndim else row / len(log_p) if p.reduction == "mean" else row


def soft_cross_entropy_grad(
    p: CrossEntropyProblem, dy: Array, log_p: Array, target: Array, weight: Array | None
) -> Array:
    """d logits (M,C): softmax * sum(mass) - mass, times dy, which is () or (M,)."""
    mass = _mass(p, target, weight, log_p)
    gradient = namespace(log_p).exp(log_p)
    gradient *= mass.sum(axis=1, keepdims=True)
    gradient -= mass
    gradient *= _soft_row(p, dy, log_p)
    return gradient.astype(dy.dtype, copy=False)


def soft_cross_entropy_target_grad(p: CrossEntropyProblem, dy: Array, log_p: Array, weight: Array | None) -> Array:
    """d target (M,C): (e - 1) * v * log p, times dy."""
    gradient = log_p * (p.label_smoothing - 1)
    if weight is not None:
        gradient *= weight.astype(log_p.dtype, copy=False)
    gradient *= _soft_row(p, dy, log_p)
    return gradient.astype(dy.dtype, copy=False)

"""Cross-entropies: rows (M,C) of logits or of log-probabilities against M class indices or (M,C) probabilities.

With class weights v, label smoothing e and C classes, a row's loss is sum over c of -mass[c] * log p[c]. For a class
index t its mass[c] is (1 - e) * v[t] * [c == t] + e / C * v[c], or 0 where t is `ignore_index`, and the mean divides by
the sum of v[t] over the rows that count; for probabilities q it is ((1 - e) * q[c] + e / C) * v[c], and the mean
divides by M (Szegedy et al., "Rethinking the Inception architecture", 2015).
"""

from __future__ import annotations

from dataclasses import dataclass

from gpucnn.backend import Array, accumulator, empty, namespace, zeros
from gpucnn.reference.pointwise import rowwise, scratch


@dataclass(frozen=True)
class CrossEntropyProblem:
    ignore_index: int
    label_smoothing: float
    reduction: str  # none, mean, sum
    watched: bool = False
    """A reduced loss that is not finite is to be noted in the device flag, where the kernel has one."""


@dataclass(frozen=True)
class NLLProblem:
    ignore_index: int
    reduction: str  # none, mean, sum
    watched: bool = False


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


def _reduced(reduction: str, loss: Array, v: Array, like: Array) -> tuple[Array, Array]:
    """The loss in the dtype of `like`, and what a mean divides by: ()."""
    xp = namespace(loss)
    total = xp.asarray(v.sum())
    if reduction == "mean":
        return xp.asarray(loss.sum() / total, dtype=like.dtype), total
    return xp.asarray(loss.sum() if reduction == "sum" else loss, dtype=like.dtype), total


def _row(p: CrossEntropyProblem | NLLProblem, dy: Array, total: Array, counts: Array) -> Array:
    """The gradient of each row's loss (M,), 0 of rows that do not count; dy is () or (M,)."""
    above = dy.astype(total.dtype, copy=False)
    return namespace(counts).where(counts, above * (1 / total) if p.reduction == "mean" else above, total.dtype.type(0))


def nll_loss(p: NLLProblem, log_p: Array, targets: Array, weight: Array | None) -> tuple[Array, Array]:
    """(loss, total): loss () or (M,), and what a mean divides by."""
    loss, v, _ = _picked(p, log_p, targets, weight)
    return _reduced(p.reduction, loss, v, log_p)


def nll_loss_grad(p: NLLProblem, dy: Array, total: Array, targets: Array, weight: Array | None, classes: int) -> Array:
    """d log_p (M,C) in the dtype of dy, which is () or (M,)."""
    xp = namespace(targets)
    gradient = zeros((len(targets), classes), dy.dtype, targets)
    counts = targets != p.ignore_index
    safe = xp.where(counts, targets, 0)
    row = -_row(p, dy, total, counts)
    if weight is not None:
        row *= xp.where(counts, weight[safe].astype(row.dtype), row.dtype.type(0))
    gradient[xp.arange(len(targets)), safe] = xp.where(counts, row, row.dtype.type(0))
    return gradient


@rowwise
def _log_softmax(problem: None, x: Array, largest: Array, of_sum: Array, *, out: Array) -> None:
    """Writes `largest` and `of_sum` (B,1) too, which are of the dtype of x: views of what was passed."""
    xp = namespace(x)
    (exponentials,) = scratch(1, x)
    xp.max(x, axis=-1, keepdims=True, out=largest)
    xp.subtract(x, largest, out=out)
    xp.exp(out, out=exponentials)
    xp.sum(exponentials, axis=-1, keepdims=True, out=of_sum)
    xp.log(of_sum, out=of_sum)
    out -= of_sum


def _log_p(logits: Array) -> tuple[Array, Array]:
    """Logarithms of softmax (M,C), and what they follow from: each row's maximum, and the log of its sum of
    exp(logit - maximum), (2,M)."""
    x = logits.astype(accumulator(logits.dtype), copy=False)
    statistics = empty((2, len(x)), x.dtype, x)
    largest, of_sum = (row[:, None] for row in statistics)
    return _log_softmax(None, x, largest, of_sum), statistics


def cross_entropy(
    p: CrossEntropyProblem, logits: Array, targets: Array, weight: Array | None
) -> tuple[Array, Array, Array]:
    """(loss, statistics, total): loss () or (M,); statistics (2,M) as of `_log_p`, and what a mean divides by."""
    xp = namespace(logits)
    log_p, statistics = _log_p(logits)
    loss, v, counts = _picked(p, log_p, targets, weight)
    if p.label_smoothing:
        ones = xp.ones(log_p.shape[1], log_p.dtype)
        spread = xp.matmul(log_p, ones if weight is None else weight.astype(log_p.dtype, copy=False))
        spread *= -p.label_smoothing / log_p.shape[1]
        loss *= 1 - p.label_smoothing
        loss += xp.where(counts, spread, log_p.dtype.type(0))
    loss, total = _reduced(p.reduction, loss, v, logits)
    return loss, statistics, total


@rowwise
def _spread(
    share: Array | None, logits: Array, largest: Array, of_sum: Array, total: Array, row: Array, *, out: Array
) -> None:
    """out (B,C) = softmax * total (B,1) - row (B,1) * share (C,)."""
    xp = namespace(out)
    xp.subtract(logits, largest, out=out)
    out -= of_sum
    xp.exp(out, out=out)
    out *= total
    if share is not None:
        out -= row * share


def cross_entropy_grad(
    p: CrossEntropyProblem,
    dy: Array,
    logits: Array,
    statistics: Array,
    total: Array,
    targets: Array,
    weight: Array | None,
) -> Array:
    """d logits (M,C) in their dtype; dy is () or (M,)."""
    xp = namespace(logits)
    M, C = logits.shape
    x = logits.astype(statistics.dtype, copy=False)
    counts = targets != p.ignore_index
    safe = xp.where(counts, targets, 0)
    v = xp.ones(C, x.dtype) if weight is None else weight.astype(x.dtype, copy=False)
    share = v * (p.label_smoothing / C) if p.label_smoothing else None
    row = _row(p, dy, total, counts)
    hit = v[safe] * (1 - p.label_smoothing)
    whole = row * (hit if share is None else hit + share.sum())
    gradient = _spread(share, x, *(column[:, None] for column in (*statistics, whole, row)))
    gradient[xp.arange(M), safe] -= hit * row
    return gradient.astype(logits.dtype, copy=False)


def _mass(p: CrossEntropyProblem, target: Array, weight: Array | None, like: Array) -> Array:
    mass = target.astype(like.dtype, copy=False)
    if p.label_smoothing:
        mass = mass * (1 - p.label_smoothing) + p.label_smoothing / target.shape[1]
    return mass if weight is None else mass * weight.astype(like.dtype, copy=False)


def soft_cross_entropy(
    p: CrossEntropyProblem, logits: Array, target: Array, weight: Array | None
) -> tuple[Array, Array, Array]:
    """(loss, statistics, total) for probabilities: loss () or (M,), total M; statistics (3,M) as of `_log_p`, and the
    mass of each row."""
    xp = namespace(logits)
    log_p, statistics = _log_p(logits)
    mass = _mass(p, target, weight, log_p)
    statistics = xp.concatenate([statistics, mass.sum(axis=1)[None]])
    loss, total = _reduced(p.reduction, -(mass * log_p).sum(axis=1), xp.ones(len(log_p), log_p.dtype), logits)
    return loss, statistics, total


def _soft_row(p: CrossEntropyProblem, dy: Array, total: Array) -> Array:
    row = dy.astype(total.dtype, copy=False)
    return row[:, None] if dy.ndim else row / total if p.reduction == "mean" else row


def _again(logits: Array, statistics: Array) -> Array:
    """log_p (M,C) from what `_log_p` gave."""
    log_p = logits - statistics[0][:, None]
    log_p -= statistics[1][:, None]
    return log_p


def soft_cross_entropy_grad(
    p: CrossEntropyProblem,
    dy: Array,
    logits: Array,
    statistics: Array,
    total: Array,
    target: Array,
    weight: Array | None,
) -> Array:
    """d logits (M,C): softmax * sum(mass) - mass, times dy, which is () or (M,)."""
    gradient = _again(logits.astype(statistics.dtype, copy=False), statistics)
    namespace(gradient).exp(gradient, out=gradient)
    gradient *= statistics[2][:, None]
    gradient -= _mass(p, target, weight, gradient)
    gradient *= _soft_row(p, dy, total)
    return gradient.astype(logits.dtype, copy=False)


def soft_cross_entropy_target_grad(
    p: CrossEntropyProblem,
    dy: Array,
    logits: Array,
    statistics: Array,
    total: Array,
    target: Array,
    weight: Array | None,
) -> Array:
    """d target (M,C): (e - 1) * v * log p, times dy."""
    gradient = _again(logits.astype(statistics.dtype, copy=False), statistics)
    gradient *= p.label_smoothing - 1
    if weight is not None:
        gradient *= weight.astype(gradient.dtype, copy=False)
    gradient *= _soft_row(p, dy, total)
    return gradient.astype(logits.dtype, copy=False)

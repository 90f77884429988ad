"""Losses between an input and a target of one shape, element by element, each with the gradient by its input.

A loss is a pointwise formula and its sum; `problem.divisor` is what the sum is divided by.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpucnn.backend import Array, namespace
from gpucnn.reference.common import select
from gpucnn.reference.pointwise import Formula, Kernel, pointwise, scratch, summed


@dataclass(frozen=True)
class LossProblem:
    """Each element's loss, or with `reduce` their sum over `divisor`."""

    reduce: bool
    divisor: float = 1.0
    watched: bool = False
    """A reduced loss that is not finite is to be noted in the device flag, where the kernel has one."""


@dataclass(frozen=True)
class HuberProblem(LossProblem):
    """scale * d**2 / 2 where d = |x - t| is at most delta, else scale * delta * (d - delta / 2)."""

    delta: float = 1.0
    scale: float = 1.0


def loss(formula: Formula) -> Kernel:
    """The kernel of a loss whose elements `formula(problem, x, t, ..., out)` computes."""
    elements, total = pointwise(formula), summed(formula)

    def run(problem: LossProblem, *arrays: Array) -> Array:
        if not problem.reduce:
            return elements(problem, *arrays)
        like = arrays[0]
        return namespace(like).asarray(total(problem, *arrays) / problem.divisor, dtype=like.dtype)

    run.__name__, run.__doc__ = formula.__name__, formula.__doc__
    return run


def slope(formula: Formula) -> Kernel:
    """The kernel run(problem, x, t, dy, ...) of a gradient, dy having one element if the loss is reduced."""

    def scaled(problem: LossProblem, x: Array, t: Array, dy: Array, *rest: Array, out: Array) -> None:
        formula(problem, x, t, *rest, out=out)
        out *= dy
        if problem.divisor != 1:
            out /= problem.divisor

    scaled.__name__, scaled.__doc__ = formula.__name__, formula.__doc__
    return pointwise(scaled)


@loss
def mse(p: LossProblem, x: Array, t: Array, *, out: Array) -> None:
    namespace(x).subtract(x, t, out=out)
    out *= out


@slope
def mse_grad(p: LossProblem, x: Array, t: Array, *, out: Array) -> None:
    namespace(x).subtract(x, t, out=out)
    out *= 2


@loss
def l1(p: LossProblem, x: Array, t: Array, *, out: Array) -> None:
    xp = namespace(x)
    xp.subtract(x, t, out=out)
    xp.abs(out, out=out)


@slope
def l1_grad(p: LossProblem, x: Array, t: Array, *, out: Array) -> None:
    """The sign of x - t; 0 for NaN, as in PyTorch."""
    xp = namespace(x)
    xp.subtract(x, t, out=out)
    xp.sign(out, out=out)
    select(out, out == out, out=out)


@loss
def huber(p: HuberProblem, x: Array, t: Array, *, out: Array) -> None:
    """With c = min(d, delta) both branches are c * (d - c / 2)."""
    xp = namespace(x)
    (limited,) = scratch(1, x)
    xp.subtract(x, t, out=out)
    xp.abs(out, out=out)
    xp.minimum(out, p.delta, out=limited)
    limited *= 0.5
    out -= limited
    limited *= 2 * p.scale
    out *= limited


@slope
def huber_grad(p: HuberProblem, x: Array, t: Array, *, out: Array) -> None:
    xp = namespace(x)
    xp.subtract(x, t, out=out)
    xp.clip(out, -p.delta, p.delta, out=out)
    out *= p.scale


# -------------------------------------------------------------------------------------------------- cross-entropies

_LOG_FLOOR = -100.0
_VARIANCE_FLOOR = 1e-12


@loss
def bce(p: LossProblem, x: Array, t: Array, *, out: Array) -> None:
    """-(t * log(x) + (1 - t) * log(1 - x)) for x in [0, 1], each logarithm being at least -100, as in PyTorch."""
    xp = namespace(x)
    (other,) = scratch(1, x)
    xp.negative(x, out=other)
    xp.log1p(other, out=other)
    xp.maximum(other, _LOG_FLOOR, out=other)
    xp.log(x, out=out)
    xp.maximum(out, _LOG_FLOOR, out=out)
    out -= other
    out *= t
    out += other
    xp.negative(out, out=out)


@slope
def bce_grad(p: LossProblem, x: Array, t: Array, *, out: Array) -> None:
    """(x - t) / (x * (1 - x)), the divisor being at least 1e-12, as in PyTorch."""
    xp = namespace(x)
    (variance,) = scratch(1, x)
    xp.subtract(1, x, out=variance)
    variance *= x
    xp.maximum(variance, _VARIANCE_FLOOR, out=variance)
    xp.subtract(x, t, out=out)
    out /= variance


@slope
def bce_target_grad(p: LossProblem, x: Array, t: Array, *, out: Array) -> None:
    xp = namespace(x)
    (logarithm,) = scratch(1, x)
    xp.negative(x, out=out)
    xp.log1p(out, out=out)
    out -= xp.log(x, out=logarithm)


def _softplus_of_negative(x: Array, out: Array, work: Array) -> None:
    """out = log(1 + exp(-x)), without overflow."""
    xp = namespace(x)
    xp.abs(x, out=out)
    xp.negative(out, out=out)
    xp.exp(out, out=out)
    xp.log1p(out, out=out)
    xp.minimum(x, 0, out=work)
    out -= work


@loss
def bce_with_logits(p: LossProblem, x: Array, t: Array, pos_weight: Array | None = None, *, out: Array) -> None:
    """-(w * t * log(s) + (1 - t) * log(1 - s)) with s = sigmoid(x): (1 - t) * x + (1 + (w - 1) * t) * softplus(-x)."""
    xp = namespace(x)
    (work,) = scratch(1, x)
    _softplus_of_negative(x, out, work)
    if pos_weight is not None:
        xp.subtract(pos_weight, 1, out=work)
        work *= t
        work += 1
        out *= work
    xp.subtract(1, t, out=work)
    work *= x
    out += work


@slope
def bce_with_logits_grad(p: LossProblem, x: Array, t: Array, pos_weight: Array | None = None, *, out: Array) -> None:
    """(1 + (w - 1) * t) * sigmoid(x) - w * t."""
    xp = namespace(x)
    xp.negative(x, out=out)
    xp.exp(out, out=out)
    out += 1
    xp.reciprocal(out, out=out)
    if pos_weight is None:
        out -= t
        return
    (work,) = scratch(1, x)
    xp.subtract(pos_weight, 1, out=work)
    work *= t
    work += 1
    out *= work
    xp.multiply(pos_weight, t, out=work)
    out -= work


@slope
def bce_with_logits_target_grad(
    p: LossProblem, x: Array, t: Array, pos_weight: Array | None = None, *, out: Array
) -> None:
    """(w - 1) * softplus(-x) - x."""
    xp = namespace(x)
    if pos_weight is None:
        xp.negative(x, out=out)
        return
    (work,) = scratch(1, x)
    _softplus_of_negative(x, out, work)
    out *= xp.subtract(pos_weight, 1, out=work)
    out -= x


@loss
def kl_div(p: LossProblem, x: Array, t: Array, *, out: Array) -> None:
    """t * (log(t) - x), and 0 of a finite x for t = 0."""
    xp = namespace(x)
    (work,) = scratch(1, x)
    xp.log(t, out=out)
    out *= t
    select(out, t != 0, out=out)
    out -= xp.multiply(t, x, out=work)


@slope
def kl_div_grad(p: LossProblem, x: Array, t: Array, *, out: Array) -> None:
    namespace(x).negative(t, out=out)


@slope
def kl_div_target_grad(p: LossProblem, x: Array, t: Array, *, out: Array) -> None:
    """log(t) + 1 - x."""
    namespace(x).log(t, out=out)
    out += 1
    out -= x


@loss
def kl_div_log(p: LossProblem, x: Array, t: Array, *, out: Array) -> None:
    """exp(t) * (t - x): the target is a logarithm too."""
    xp = namespace(x)
    (work,) = scratch(1, x)
    xp.subtract(t, x, out=out)
    out *= xp.exp(t, out=work)


@slope
def kl_div_log_grad(p: LossProblem, x: Array, t: Array, *, out: Array) -> None:
    xp = namespace(x)
    xp.exp(t, out=out)
    xp.negative(out, out=out)


@slope
def kl_div_log_target_grad(p: LossProblem, x: Array, t: Array, *, out: Array) -> None:
    """exp(t) * (t - x + 1)."""
    xp = namespace(x)
    (work,) = scratch(1, x)
    xp.subtract(t, x, out=out)
    out += 1
    out *= xp.exp(t, out=work)

"""Update rules, in place on parameters and their state: lists of arrays, those of one parameter having one shape.

State is float32 where parameters are 16-bit, else of their dtype. With `master` the last list of state holds float32
copies of 16-bit parameters, which are updated in their place and rounded; where a parameter is not what its copy rounds
to, somebody else has written it, and the copy begins anew from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from gpucnn.backend import Array, accumulator, namespace


class SGDProblem(NamedTuple):
    lr: float
    momentum: float
    dampening: float
    weight_decay: float
    nesterov: bool
    first: bool
    """The first step of these parameters: the momentum buffer becomes the gradient."""
    last: bool = False
    """The last call of an optimiser's step."""
    master: bool = False
    """The last list of state holds float32 copies of the parameters."""


class AdamProblem(NamedTuple):
    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    decoupled: bool
    """Weight decay shrinks the parameter (AdamW) instead of entering the gradient (Adam)."""
    step: int
    last: bool = False
    master: bool = False


class ScaleProblem(NamedTuple):
    growth: float
    backoff: float
    interval: int
    """Steps without trouble after which the scale grows."""


def sgd(p: SGDProblem, params: Sequence[Array], grads: Sequence[Array], *velocities: Sequence[Array]) -> None:
    """Momentum as Sutskever et al., "On the importance of initialization and momentum" (2013), in PyTorch's form."""
    _each(_sgd, p, params, grads, *velocities)


def adam(
    p: AdamProblem,
    params: Sequence[Array],
    grads: Sequence[Array],
    means: Sequence[Array],
    squares: Sequence[Array],
    *masters: Sequence[Array],
) -> None:
    """Kingma and Ba, "Adam" (2015); decoupled: Loshchilov and Hutter, "Decoupled weight decay" (2019)."""
    _each(_adam, p, params, grads, means, squares, *masters)


def unscale(divides: bool, grads: Sequence[Array], loss_scale: Array, found: Array) -> None:
    """Whether gradients are finite: found, int32 (1,), is 1 if one is not. Divides them by loss_scale if told to."""
    inverse = (1 / loss_scale).reshape(())
    for grad in grads:
        wide = grad.astype(accumulator(grad.dtype), copy=False)
        finite = namespace(wide).isfinite(wide).all()
        found |= (~finite).astype(found.dtype)
        if divides:
            grad[...] = wide * inverse


def next_scale(p: ScaleProblem, scale: Array, clean: Array, found: Sequence[Array]) -> tuple[Array, Array]:
    """The scale (1,) after a step, and after how many without trouble that is; PyTorch's rule."""
    xp = namespace(scale)
    trouble = sum(found[1:], start=found[0]) != 0
    grown, shrunk = scale * scale.dtype.type(p.growth), scale * scale.dtype.type(p.backoff)
    steps = clean + clean.dtype.type(1)
    grows = steps >= p.interval
    kept = xp.where(grows & xp.isfinite(grown), grown, scale)
    return xp.where(trouble, shrunk, kept), xp.where(trouble | grows, clean.dtype.type(0), steps)


def _each(rule: Callable[..., None], p: Any, *lists: Sequence[Array]) -> None:
    """The rule for one parameter after another, 16-bit ones in float32."""
    for param, grad, *state in zip(*lists, strict=True):
        work = accumulator(param.dtype)
        wide = param.astype(work, copy=False)
        if p.master:
            master = state.pop()
            wide = namespace(param).where(master.astype(param.dtype) == param, master, wide)
        rule(p, wide, grad.astype(work, copy=False), *state)
        if p.master:
            master[...] = wide
        if wide is not param:
            param[...] = wide


def _sgd(p: SGDProblem, param: Array, grad: Array, velocity: Array | None = None) -> None:
    if p.weight_decay:
        grad = grad + p.weight_decay * param
    if velocity is not None:
        if p.first:
            velocity[...] = grad
        else:
            velocity *= p.momentum
            velocity += grad if p.dampening == 0 else (1 - p.dampening) * grad
        grad = grad + p.momentum * velocity if p.nesterov else velocity
    param -= p.lr * grad


def _adam(p: AdamProblem, param: Array, grad: Array, mean: Array, square: Array) -> None:
    if p.weight_decay:
        if p.decoupled:
            param *= 1 - p.lr * p.weight_decay
        else:
            grad = grad + p.weight_decay * param
    mean *= p.beta1
    mean += (1 - p.beta1) * grad
    square *= p.beta2
    square += (1 - p.beta2) * (grad * grad)
    scale = 1 / math.sqrt(1 - p.beta2**p.step)
    denominator = namespace(square).sqrt(square)
    denominator *= scale
    denominator += p.eps
    param -= (p.lr / (1 - p.beta1**p.step)) * (mean / denominator)

"""Update rules, in place on parameters and their state: lists of arrays, those of one parameter having one shape.

State is float32 where parameters are 16-bit, else of their dtype.
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


def sgd(p: SGDProblem, params: Sequence[Array], grads: Sequence[Array], *velocities: Sequence[Array]) -> None:
    """Momentum as Sutskever et al., "On the importance of initialization and momentum" (2013), in PyTorch's form."""
    _each(_sgd, p, params, grads, *velocities)


def adam(
    p: AdamProblem,
    params: Sequence[Array],
    grads: Sequence[Array],
    means: Sequence[Array],
    squares: Sequence[Array],
) -> None:
    """Kingma and Ba, "Adam" (2015); decoupled: Loshchilov and Hutter, "Decoupled weight decay" (2019)."""
    _each(_adam, p, params, grads, means, squares)


def _each(rule: Callable[..., None], p: Any, *lists: Sequence[Array]) -> None:
    """The rule for one parameter after another, 16-bit ones in float32."""
    for param, grad, *state in zip(*lists, strict=True):
        work = accumulator(param.dtype)
        wide = param.astype(work, copy=False)
        rule(p, wide, grad.astype(work, copy=False), *state)
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

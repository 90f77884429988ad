"""Update rules, in place on a parameter and its state; all arrays of one parameter share shape and memory order."""

from __future__ import annotations

import math
from typing import NamedTuple

from gpucnn.backend import Array, namespace


class SGDProblem(NamedTuple):
    lr: float
    momentum: float
    dampening: float
    weight_decay: float
    nesterov: bool
    first: bool
    """The first step of this parameter: the momentum buffer becomes the gradient."""


class AdamProblem(NamedTuple):
    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    decoupled: bool
    """Weight decay shrinks the parameter (AdamW) instead of entering the gradient (Adam)."""
    step: int


def sgd(p: SGDProblem, param: Array, grad: Array, velocity: Array | None) -> None:
    """Momentum as Sutskever et al., "On the importance of initialization and momentum" (2013), in PyTorch's form."""
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


def adam(p: AdamProblem, param: Array, grad: Array, mean: Array, square: Array) -> None:
    """Kingma and Ba, "Adam" (2015); decoupled: Loshchilov and Hutter, "Decoupled weight decay" (2019)."""
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

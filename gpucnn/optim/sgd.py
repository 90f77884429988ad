"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gpucnn.backend import Array
from gpucnn.ops import optim as ops
from gpucnn.optim.optimizer import Optimizer, like
from gpucnn.tensor import Tensor


class SGD(Optimizer):
    """Gradient descent with momentum (heavy ball or Nesterov) and weight decay added to the gradient.

    velocity = momentum * velocity + (1 - dampening) * g;  param -= lr * (velocity, or g + momentum * velocity).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "dampening": dampening}
        super().__init__(params, {**options, "weight_decay": weight_decay, "nesterov": nesterov})

    def check(self, options: dict[str, Any]) -> None:
        super().check(options)
        if options["nesterov"] and (options["momentum"] <= 0 or options["dampening"] != 0):
            raise ValueError("SGD: nesterov needs a momentum and no dampening")

    def update(self, param: Tensor, grad: Array, group: dict[str, Any], state: dict[str, Any]) -> None:
        momentum, first = group["momentum"], "velocity" not in state
        if first and momentum:
            state["velocity"] = like(param)
        problem = ops.SGDProblem(
            group["lr"], momentum, group["dampening"], group["weight_decay"], group["nesterov"], first
        )
        velocity = state["velocity"] if momentum else None
        ops.sgd(problem, param.data, grad, velocity, like=param.data)

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
    `master_weights`: 16-bit parameters are updated in float32 copies of them, see Optimizer.
    """

    table = ops.sgd

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        master_weights: bool = False,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        super().__init__(params, {**options, "nesterov": nesterov, "master_weights": master_weights})

    def check(self, options: dict[str, Any]) -> None:
        super().check(options)
        if options["nesterov"] and (options["momentum"] <= 0 or options["dampening"] != 0):
            raise ValueError("SGD: nesterov needs a momentum and no dampening")

    def prepare(self, param: Tensor, group: dict[str, Any], state: dict[str, Any]) -> tuple[Any, tuple[Array, ...]]:
        momentum, first = group["momentum"], "velocity" not in state
        if first and momentum:
            state["velocity"] = like(param)
        problem = ops.SGDProblem(
            group["lr"], momentum, group["dampening"], group["weight_decay"], group["nesterov"], first
        )
        return problem, (state["velocity"],) if momentum else ()

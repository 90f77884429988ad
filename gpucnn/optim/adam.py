"""Adam (Kingma and Ba 2015) and AdamW (Loshchilov and Hutter 2019)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gpucnn.backend import Array
from gpucnn.ops import optim as ops
from gpucnn.optim.optimizer import Optimizer, like
from gpucnn.tensor import Tensor


class Adam(Optimizer):
    """Steps of lr * mean / sqrt(square), both corrected for starting at 0; weight decay enters the gradient.

    `master_weights`: 16-bit parameters are updated in float32 copies of them, see Optimizer.
    """

    table = ops.adam
    decoupled = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        master_weights: bool = False,
    ) -> None:
        options = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**options, "master_weights": master_weights})

    def check(self, options: dict[str, Any]) -> None:
        super().check(options)
        betas = options["betas"]
        if len(betas) != 2 or not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"{type(self).__name__}: betas must be two numbers in [0, 1), got {betas}")

    def prepare(self, param: Tensor, group: dict[str, Any], state: dict[str, Any]) -> tuple[Any, tuple[Array, ...]]:
        if "step" not in state:
            state.update(step=0, mean=like(param), square=like(param))
        state["step"] += 1
        beta1, beta2 = group["betas"]
        problem = ops.AdamProblem(
            group["lr"], beta1, beta2, group["eps"], group["weight_decay"], self.decoupled, state["step"]
        )
        return problem, (state["mean"], state["square"])


class AdamW(Adam):
    """Adam with weight decay taken from the parameter itself instead of through the gradient."""

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        master_weights: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, master_weights)

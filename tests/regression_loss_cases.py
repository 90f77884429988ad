"""The losses of an input and a target that the tests know by name, and how they are compared with PyTorch's."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from op_checks import draw
from pointwise_checks import check, values

import gpucnn
from gpucnn import functional as F
from gpucnn.ops import regression_loss as ops
from gpucnn.ops.registry import KernelTable
from gpucnn.reference.regression_loss import HuberProblem, LossProblem
from gpucnn.testing import naive

truth = naive.regression_loss
REDUCTIONS = ["mean", "sum", "none"]


@dataclass(frozen=True)
class Case:
    """A loss: its tables, the truth's name and options, its name for users and theirs, its numbers."""

    tables: tuple[KernelTable, ...]
    name: str
    call: str
    problem: Any = LossProblem
    truth_options: tuple[tuple[str, float], ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    numbers: str = "any"  # or "small", "probabilities", and "target" for a target of these

    def formula(self, suffix: str = "") -> Any:
        return functools.partial(getattr(truth, self.name + suffix), **dict(self.truth_options))

    def operands(self, *shape: int) -> tuple[np.ndarray, np.ndarray]:
        x, t = values(*shape), values(*shape, stream=1)
        inside = [np.clip(1 / (1 + np.exp(-a)), 0.01, 0.99).astype(np.float16).astype(np.float64) for a in (x, t)]
        if self.numbers in ("any", "small"):
            return (x, t) if self.numbers == "any" else (x / 4, t / 4)
        return (inside[0] if self.numbers == "probabilities" else x), inside[1]

    def target_gradient(self, x: np.ndarray, t: np.ndarray) -> np.ndarray:
        if len(self.tables) == 2:
            return -self.formula("_grad")(x, t)
        return self.formula("_target_grad")(x, t)


def huber(delta: float, scale: float) -> Any:
    return functools.partial(HuberProblem, delta=delta, scale=scale)


HUBER = (ops.huber, ops.huber_grad)
CASES = {
    "mse": Case((ops.mse, ops.mse_grad), "mse", "mse_loss"),
    "l1": Case((ops.l1, ops.l1_grad), "l1", "l1_loss"),
    "smooth l1": Case(HUBER, "smooth_l1", "smooth_l1_loss", huber(1.0, 1.0)),
    "smooth l1 wide": Case(HUBER, "smooth_l1", "smooth_l1_loss", huber(3.0, 1 / 3), (("beta", 3.0),), (("beta", 3.0),)),
    "huber": Case(HUBER, "huber", "huber_loss", huber(1.0, 1.0)),
    "huber wide": Case(HUBER, "huber", "huber_loss", huber(3.0, 1.0), (("delta", 3.0),), (("delta", 3.0),)),
    "bce": Case((ops.bce, ops.bce_grad, ops.bce_target_grad), "bce", "binary_cross_entropy", numbers="probabilities"),
    "bce with logits": Case(
        (ops.bce_with_logits, ops.bce_with_logits_grad, ops.bce_with_logits_target_grad),
        "bce_with_logits",
        "binary_cross_entropy_with_logits",
        numbers="target",
    ),
    "kl": Case((ops.kl_div, ops.kl_div_grad, ops.kl_div_target_grad), "kl_div", "kl_div", numbers="target"),
    "kl of logarithms": Case(
        (ops.kl_div_log, ops.kl_div_log_grad, ops.kl_div_log_target_grad),
        "kl_div_log",
        "kl_div",
        options=(("log_target", True),),
        numbers="small",
    ),
}


def away_from_kinks(case: Case, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Operands between which no distance is near one where the loss has no derivative."""
    x, t = case.operands(*shape)
    if case.numbers == "any" and case.call != "kl_div":
        distance = np.abs(x - t)
        for kink in (0.0, 1.0, 3.0):
            x = np.where(abs(distance - kink) < 0.1, x + 0.3 * np.where(x > t, 1, -1), x)
    return x, t


def against_pytorch(torch: Any, call: str, arrays: tuple[np.ndarray, ...], ulps: float = 64, **options: Any) -> None:
    __tracebackhide__ = True
    ours = [gpucnn.tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    mine, other = (
        {k: make(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
        for make in (gpucnn.tensor, torch.tensor)
    )
    loss = getattr(F, call)(*ours, **mine)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "reduction: 'mean' divides")  # of kl_div
        expected = getattr(torch.nn.functional, call)(*theirs, **other)
    assert loss.shape == tuple(expected.shape)
    dy = draw("normal", loss.shape, 9)
    loss.backward(dy)
    expected.backward(torch.tensor(dy))
    check(loss.numpy(), expected.detach().numpy(), "float64", "loss", ulps)
    for name, a, b in zip(("input", "target"), ours, theirs, strict=True):
        check(a.grad.numpy(), b.grad.numpy(), "float64", f"{name} gradient", ulps)

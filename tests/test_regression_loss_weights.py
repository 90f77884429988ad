"""Weights of losses between input and target: their definition, PyTorch, gradients of weights that are learnt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from op_checks import draw
from pointwise_checks import EPS, check
from regression_loss_cases import CASES, REDUCTIONS, against_pytorch, away_from_kinks

import gpucnn
from gpucnn import functional as F
from gpucnn.testing import gradcheck

WEIGHTED = [("binary_cross_entropy", "weight"), ("binary_cross_entropy_with_logits", "weight")]
WEIGHTED += [("binary_cross_entropy_with_logits", "pos_weight")]


@pytest.mark.peers
@pytest.mark.parametrize(("call", "argument"), WEIGHTED)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (4, 5), (3, 1, 1), (1,), ()], ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_weights_are_pytorchs(call: str, argument: str, shape: tuple[int, ...], reduction: str, torch: Any) -> None:
    x, t = CASES["bce" if call == "binary_cross_entropy" else "bce with logits"].operands(2, 3, 4, 5)
    against_pytorch(torch, call, (x, t), reduction=reduction, **{argument: np.asarray(abs(draw("normal", shape, 3)))})


@pytest.mark.peers
def test_both_weights_together_are_pytorchs(torch: Any) -> None:
    operands = CASES["bce with logits"].operands(2, 3, 4, 5)
    weights = {"weight": draw("normal", (4, 1), 3), "pos_weight": np.array([2.5])}
    against_pytorch(torch, "binary_cross_entropy_with_logits", operands, **weights)


SQUARES = ["mse", "l1", "huber wide"]
"""Losses whose weights have the shape of their input and may be learnt."""


@pytest.mark.peers
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4, 5), (), (0, 3)], ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", SQUARES)
def test_weights_of_elements_are_pytorchs(name: str, reduction: str, shape: tuple[int, ...], torch: Any) -> None:
    """The mean is over the sum of the weights, but of the Huber loss over the number of elements."""
    case = CASES[name]
    numbers = (*case.operands(*shape), np.asarray(0.5 + abs(draw("normal", shape, 3))))
    ours, theirs = ([make(a, requires_grad=True) for a in numbers] for make in (gpucnn.tensor, torch.tensor))
    options = {"reduction": reduction, **dict(case.options)}
    loss = getattr(F, case.call)(*ours[:2], weight=ours[2], **options)
    expected = getattr(torch.nn.functional, case.call)(*theirs[:2], weight=theirs[2], **options)
    assert loss.shape == tuple(expected.shape)
    dy = draw("normal", loss.shape, 9)
    loss.backward(dy)
    expected.backward(torch.tensor(dy))
    check(loss.numpy(), expected.detach().numpy(), "float64", "loss", 64)
    for operand, a, b in zip(("input", "target", "weight"), ours, theirs, strict=True):
        check(a.grad.numpy(), b.grad.numpy(), "float64", f"{operand} gradient", 64)


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("name", SQUARES)
def test_weights_of_elements_by_their_definition(name: str, dtype: str) -> None:
    case = CASES[name]
    x, t = case.operands(2, 3, 4, 5)
    w = abs(draw("normal", x.shape, 3))
    weighted = case.formula()(x, t) * w
    mean = weighted.sum() / (w.size if name.startswith("huber") else w.sum())
    for reduction, expected in (("none", weighted), ("sum", weighted.sum()), ("mean", mean)):
        tensors = [gpucnn.tensor(a, dtype) for a in (x, t, w)]
        found = getattr(F, case.call)(*tensors[:2], weight=tensors[2], reduction=reduction, **dict(case.options))
        check(found.numpy(), np.asarray(expected), dtype, f"{name} {reduction} {dtype}", 32)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", SQUARES)
def test_gradients_of_weighted_losses_are_central_differences(name: str, reduction: str) -> None:
    case = CASES[name]
    leaves = [gpucnn.tensor(a, requires_grad=True) for a in (*away_from_kinks(case, 3, 4), np.full((3, 4), 0.75))]
    options = {"reduction": reduction, **dict(case.options)}
    assert gradcheck(lambda x, t, w: getattr(F, case.call)(x, t, weight=w, **options), leaves)


def test_weighted_means_of_half_precision_do_not_overflow_on_the_way() -> None:
    """Neither the losses nor the weights sum to a float16 here."""
    x, weight = (gpucnn.full((256, 256), number, dtype="float16") for number in (2.0, 4.0))
    assert F.mse_loss(x, gpucnn.zeros(256, 256, dtype="float16"), weight=weight).item() == 4.0

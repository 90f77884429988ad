"""Negative log-likelihood, and cross-entropy with class probabilities: kernels against the truth, PyTorch, corners."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, SEED, compare, draw, each_kernel, frozen, plant

import gpucnn
from gpucnn import functional as F
from gpucnn import nn
from gpucnn.ops import loss as ops
from gpucnn.reference import loss as reference
from gpucnn.reference.loss import CrossEntropyProblem, NLLProblem
from gpucnn.testing import assert_close, assert_equal, gradcheck, naive

DTYPES = ["float64", "float32", "float16", "bfloat16"]
REDUCTIONS = ["mean", "sum", "none"]
WEIGHT = [0.5625, 2.125, 1.3125, 3.1875, 0.21875]


def labels(*shape: int, ignored: int | None = None) -> np.ndarray:
    found = np.random.default_rng([SEED, *shape]).integers(0, 5, shape)
    if ignored is not None:
        found.reshape(-1)[::3] = ignored
    return found


def probabilities(*shape: int, axis: int = 1) -> np.ndarray:
    """Positive numbers that sum to 1 along an axis, up to what float16 holds of them."""
    raw = np.exp(draw("normal", shape, 5))
    return (raw / raw.sum(axis=axis, keepdims=True)).astype(np.float16).astype(np.float64)


# ------------------------------------------------------------------------------------------ negative log-likelihood

NLL: dict[str, dict[str, Any]] = {"plain": {}, "weights": {"weight": WEIGHT}, "ignore": {"ignore_index": 2}}
NLL["both"] = {"weight": WEIGHT, "ignore_index": -1}


def check_nll(variant: str, reduction: str, dtype: str) -> None:
    __tracebackhide__ = True
    options = dict(NLL[variant])
    ignored, weight = options.get("ignore_index", -100), options.get("weight")
    log_p, targets = draw("normal", (11, 5)), labels(11, ignored=ignored)
    v = None if weight is None else frozen(np.array(weight), dtype)
    dy = draw("normal", (11,), 1) if reduction == "none" else np.array(0.75)
    truth = naive.nll_loss(log_p, targets, reduction=reduction, **options)
    gradient = naive.nll_loss_grad(dy, log_p, targets, reduction=reduction, **options)
    p, d = NLLProblem(ignored, reduction), frozen(dy, dtype)
    for name, (loss, total) in each_kernel(ops.nll_loss, p, frozen(log_p, dtype), targets, v):
        assert loss.dtype == dtype, name
        compare(loss, truth, 11, f"{name} {dtype}")
        for grad_name, found in each_kernel(ops.nll_loss_grad, p, d, frozen(total), targets, v, 5):
            assert found.dtype == dtype, grad_name
            compare(found, gradient, 5, f"{grad_name} {dtype}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("variant", NLL)
def test_every_kernel_of_nll_loss(variant: str, reduction: str, dtype: str) -> None:
    check_nll(variant, reduction, dtype)


def against_pytorch(
    torch: Any, name: str, arrays: tuple[np.ndarray, ...], options: dict[str, Any], tolerance: float = 1e-12
) -> None:
    """Loss and gradients of all floating arrays, for any gradient from above."""
    __tracebackhide__ = True
    ours = [gpucnn.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    theirs = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    weight = options.get("weight")
    mine = options | {"weight": None if weight is None else gpucnn.tensor(weight, arrays[0].dtype)}
    other = options | {"weight": None if weight is None else torch.tensor(weight, dtype=theirs[0].dtype)}
    loss = getattr(F, name)(*ours, **mine)
    expected = getattr(torch.nn.functional, name)(*theirs, **other)
    assert loss.shape == tuple(expected.shape)
    dy = draw("normal", loss.shape, 9)
    loss.backward(dy.astype(arrays[0].dtype))
    expected.backward(torch.tensor(dy, dtype=theirs[0].dtype))
    close = {"rtol": tolerance, "atol": tolerance, "equal_nan": True}
    assert_close(loss, expected.detach().double().numpy(), name="loss", **close)
    for a, b in zip(ours, theirs, strict=True):
        if a.requires_grad:
            assert_close(a.grad, b.grad.double().numpy(), name="gradient", **close)


@pytest.mark.peers
@pytest.mark.parametrize("variant", NLL)
@pytest.mark.parametrize("shape", [(7, 5), (5,), (2, 5, 3), (2, 5, 3, 4), (0, 5)], ids=str)
def test_nll_loss_is_pytorchs(variant: str, shape: tuple[int, ...], torch: Any) -> None:
    places = () if len(shape) == 1 else (shape[0], *shape[2:])
    ignored = NLL[variant].get("ignore_index", -100)
    for reduction in REDUCTIONS:
        options = NLL[variant] | {"reduction": reduction}
        for t in (labels(*places), labels(*places, ignored=ignored)) if places else (labels(),):
            against_pytorch(torch, "nll_loss", (draw("normal", shape), t), options)


@pytest.mark.peers
def test_corners_of_nll_loss_are_pytorchs(torch: Any) -> None:
    """Nothing to count, classes of weight 0, infinities and NaN in and beside the places that count."""
    x = draw("normal", (4, 5))
    x[0, 0], x[1, 1], x[2, 2] = np.nan, np.inf, -np.inf
    for reduction in REDUCTIONS:
        against_pytorch(torch, "nll_loss", (x, np.full(4, -100)), {"reduction": reduction})
        for t in ([0, 1, 2, -100], [1, 0, 0, 0], [3, 3, 3, 3]):
            options = {"reduction": reduction, "weight": [1.0, 1.0, 1.0, 0.0, 1.0]}
            against_pytorch(torch, "nll_loss", (x, np.array(t)), options)


# ------------------------------------------------------------------------------------------------- probabilities

SOFT: dict[str, dict[str, Any]] = {
    "plain": {},
    "weights": {"weight": WEIGHT},
    "smoothing": {"label_smoothing": 0.2},
    "everything": {"weight": WEIGHT, "label_smoothing": 0.7},
}


def check_soft(variant: str, reduction: str, dtype: str) -> None:
    __tracebackhide__ = True
    options = SOFT[variant]
    logits = draw("normal", (11, 5)) * np.where(np.arange(11) % 4 == 1, 1000, 1)[:, None]
    target = probabilities(11, 5)
    weight = options.get("weight")
    v = None if weight is None else frozen(np.array(weight), dtype)
    dy = draw("normal", (11,), 1) if reduction == "none" else np.array(0.75)
    truth = naive.soft_cross_entropy(logits, target, reduction=reduction, **options)
    by_logits, by_target = naive.soft_cross_entropy_grad(dy, logits, target, reduction=reduction, **options)
    p = CrossEntropyProblem(-100, options.get("label_smoothing", 0.0), reduction)
    d, q = frozen(dy, dtype), frozen(target, dtype)
    x = frozen(logits, dtype)
    for name, (loss, *found) in each_kernel(ops.soft_cross_entropy, p, x, q, v):
        assert loss.dtype == dtype, name
        compare(loss, truth, 11, f"{name} {dtype}")
        saved = (x, *map(frozen, found), q, v)
        for grad_name, found in each_kernel(ops.soft_cross_entropy_grad, p, d, *saved):
            assert found.dtype == dtype, grad_name
            compare(found, by_logits, 5, f"{grad_name} {dtype}")
        for grad_name, found in each_kernel(ops.soft_cross_entropy_target_grad, p, d, *saved):
            assert found.dtype == dtype, grad_name
            compare(found, by_target, 5, f"{grad_name} {dtype}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("variant", SOFT)
def test_every_kernel_of_soft_cross_entropy(variant: str, reduction: str, dtype: str) -> None:
    check_soft(variant, reduction, dtype)


@pytest.mark.peers
@pytest.mark.parametrize("variant", SOFT)
@pytest.mark.parametrize("shape", [(7, 5), (5,), (2, 5, 3), (2, 5, 3, 4), (0, 5)], ids=str)
def test_cross_entropy_of_probabilities_is_pytorchs(variant: str, shape: tuple[int, ...], torch: Any) -> None:
    target = probabilities(*shape, axis=0 if len(shape) == 1 else 1)
    for reduction in REDUCTIONS:
        against_pytorch(
            torch, "cross_entropy", (draw("normal", shape), target), SOFT[variant] | {"reduction": reduction}
        )


@pytest.mark.peers
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_corners_of_probabilities_are_pytorchs(reduction: str, torch: Any) -> None:
    """Infinite and NaN logits, certainty, targets that are no distribution."""
    x, q = draw("normal", (4, 5)), np.eye(5)[:4]
    against_pytorch(torch, "cross_entropy", (x, q), {"reduction": reduction})
    against_pytorch(torch, "cross_entropy", (x, draw("normal", (4, 5), 3)), {"reduction": reduction})
    x[0, 1], x[1, 0], x[2] = np.nan, np.inf, -np.inf
    against_pytorch(torch, "cross_entropy", (x, q), {"reduction": reduction})


def test_certain_probabilities_are_class_indices() -> None:
    x, t = draw("normal", (4, 5, 2, 3)), labels(4, 2, 3)
    q = gpucnn.tensor(np.moveaxis(np.eye(5)[t], -1, 1))
    for smoothing in (0.0, 0.1):
        soft = F.cross_entropy(gpucnn.tensor(x), q, label_smoothing=smoothing)
        hard = F.cross_entropy(gpucnn.tensor(x), t, label_smoothing=smoothing)
        assert_close(soft, hard, rtol=1e-14, atol=0)
        logarithm = F.log_softmax(gpucnn.tensor(x), 1)
    assert_close(F.nll_loss(logarithm, t), F.cross_entropy(gpucnn.tensor(x), t), rtol=1e-14, atol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout_is_taken(layout: str) -> None:
    x, q, t = draw("normal", (2, 5, 3, 4)), probabilities(2, 5, 3, 4), labels(2, 3, 4)
    rows, mass = (np.moveaxis(a, 1, -1).reshape(-1, 5) for a in (x, q))
    by_logits, by_target = naive.soft_cross_entropy_grad(1.0, rows, mass)
    logits, target = (gpucnn.Tensor(LAYOUTS[layout](a), requires_grad=True) for a in (x, q))
    loss = F.cross_entropy(logits, target)
    loss.backward()
    assert_close(loss, naive.soft_cross_entropy(rows, mass), rtol=1e-13, atol=0)
    for leaf, gradient in ((logits, by_logits), (target, by_target)):
        assert_close(leaf.grad, np.moveaxis(gradient.reshape(2, 3, 4, 5), -1, 1), rtol=1e-12, atol=1e-14)
    log_p = gpucnn.Tensor(LAYOUTS[layout](x), requires_grad=True)
    loss = F.nll_loss(log_p, LAYOUTS[layout](t))
    loss.backward()
    assert_close(loss, naive.nll_loss(x, t), rtol=1e-13, atol=0)
    assert_close(log_p.grad, naive.nll_loss_grad(1.0, x, t), rtol=1e-13, atol=0)


def test_only_the_gradients_that_are_needed() -> None:
    x, q = gpucnn.tensor(draw("normal", (3, 5))), gpucnn.tensor(probabilities(3, 5))
    for first, second in ((True, False), (False, True)):
        logits, target = x.clone().requires_grad_(first), q.clone().requires_grad_(second)
        F.cross_entropy(logits, target).backward()
        assert [logits.grad is not None, target.grad is not None] == [first, second]


def test_gradients_are_central_differences() -> None:
    x = gpucnn.tensor(draw("normal", (3, 5, 2)), requires_grad=True)
    q = gpucnn.tensor(probabilities(3, 5, 2), requires_grad=True)
    weight = gpucnn.tensor(WEIGHT, "float64")
    for reduction in REDUCTIONS:
        assert gradcheck(lambda *a: F.cross_entropy(*a, weight, reduction=reduction, label_smoothing=0.1), [x, q])  # noqa: B023
        assert gradcheck(lambda a: F.nll_loss(a, labels(3, 2), weight, reduction=reduction), [x])  # noqa: B023


def test_layers_are_their_functions() -> None:
    x, t, weight = gpucnn.tensor(draw("normal", (4, 5))), labels(4), gpucnn.tensor(WEIGHT, "float64")
    assert_equal(nn.NLLLoss(weight, 2, "sum")(x, t), F.nll_loss(x, t, weight, 2, "sum"))
    q = gpucnn.tensor(probabilities(4, 5))
    layer = nn.CrossEntropyLoss(weight, label_smoothing=0.1, reduction="none")
    assert_equal(layer(x, q), F.cross_entropy(x, q, weight, label_smoothing=0.1, reduction="none"))
    assert list(nn.NLLLoss(weight).state_dict()) == list(nn.CrossEntropyLoss(weight).state_dict()) == ["weight"]
    assert list(nn.NLLLoss().state_dict()) == []


# ----------------------------------------------------------------------------------- wrong kernels must be caught


def forgets_weights_in_the_mean(p: NLLProblem, log_p: np.ndarray, t: np.ndarray, weight: Any) -> Any:
    loss, total = reference.nll_loss(NLLProblem(p.ignore_index, "sum"), log_p, t, weight)
    return np.asarray(loss / log_p.dtype.type((t != p.ignore_index).sum())), total


def smooths_before_weighing_nothing(p: CrossEntropyProblem, dy: np.ndarray, *saved: Any) -> Any:
    return reference.soft_cross_entropy_target_grad(CrossEntropyProblem(-100, 0.0, p.reduction), dy, *saved)


@pytest.mark.parametrize(
    ("table", "wrong", "check"),
    [
        (ops.nll_loss, forgets_weights_in_the_mean, check_nll),
        (ops.nll_loss_grad, lambda p, *a: -reference.nll_loss_grad(p, *a), check_nll),
        (ops.soft_cross_entropy_target_grad, smooths_before_weighing_nothing, check_soft),
        (
            ops.soft_cross_entropy_grad,
            lambda p, dy, x, s, n, q, w: ((np.exp(x - (s[0] + s[1])[:, None]) - q) * dy / n).astype(dy.dtype),
            check_soft,
        ),
    ],
)
def test_a_wrong_kernel_is_caught(table: Any, wrong: Any, check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    variant = "both" if check is check_nll else "everything"
    check(variant, "mean", "float32")
    plant(monkeypatch, table, wrong)
    with pytest.raises(AssertionError, match=f"{table} planted float32: .* elements are wrong"):
        check(variant, "mean", "float32")

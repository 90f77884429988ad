"""Losses between input and target: every kernel against the truth, F.* and gradients against PyTorch, corners."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, NHWC, check_threads, draw, each_kernel, frozen, names, plant
from pointwise_checks import EPS, INF, NAN, check
from regression_loss_cases import CASES, REDUCTIONS, against_pytorch, away_from_kinks

import gpucnn
from gpucnn import backend, nn
from gpucnn import functional as F
from gpucnn.ops import regression_loss as ops
from gpucnn.reference.regression_loss import LossProblem
from gpucnn.testing import assert_close, assert_equal, gradcheck


def check_kernels(name: str, dtype: str, shape: tuple[int, ...] = (7, 9)) -> None:
    """Forward and both gradients, of each element and of their sum over a divisor."""
    __tracebackhide__ = True
    case = CASES[name]
    x, t = case.operands(*shape)
    a, b, dy = frozen(x, dtype), frozen(t, dtype), draw("normal", shape, 2)
    elements = case.formula()(x, t)
    gradients = [case.formula("_grad")(x, t), case.target_gradient(x, t)]
    divisor, upstream = 7.0, np.array(0.75)
    for kernel, found in each_kernel(case.tables[0], case.problem(False), a, b):
        check(found, elements, dtype, f"{kernel} {dtype}", 16)
    for kernel, found in each_kernel(case.tables[0], case.problem(True, divisor), a, b):
        assert found.shape == ()
        check(found / np.asarray(x.size, dtype), elements.mean() / divisor, dtype, f"{kernel} sum {dtype}", 32)
    for table, gradient in zip(case.tables[1:], gradients, strict=False):
        for kernel, found in each_kernel(table, case.problem(False), a, b, frozen(dy, dtype)):
            check(found, gradient * dy, dtype, f"{kernel} {dtype}", 32)
        for kernel, found in each_kernel(table, case.problem(True, divisor), a, b, frozen(upstream, dtype)):
            check(found, gradient * 0.75 / divisor, dtype, f"{kernel} sum {dtype}", 32)


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("name", CASES)
def test_every_kernel(name: str, dtype: str, block_bytes: int) -> None:
    check_kernels(name, dtype)


def test_these_are_all_kernels() -> None:
    assert all(names(table) == ["array"] for case in CASES.values() for table in case.tables)


@pytest.mark.usefixtures("many_blocks")
def test_sums_have_the_same_bits_on_any_number_of_threads() -> None:
    x, t = draw("normal", (500, 100)).astype(np.float32), draw("normal", (500, 100), 1).astype(np.float32)
    check_threads(lambda: [ops.mse(LossProblem(True, 3.0), x, t, like=x)])
    total = ops.mse(LossProblem(True, 3.0), x, t, like=x)
    assert_close(total, ((x.astype(np.float64) - t) ** 2).sum() / 3, rtol=1e-6, atol=0)


# ------------------------------------------------------------------------------------------------ against PyTorch


@pytest.mark.peers
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4, 5), (), (0, 3)], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_losses_are_pytorchs(name: str, shape: tuple[int, ...], reduction: str, torch: Any) -> None:
    case = CASES[name]
    against_pytorch(torch, case.call, case.operands(*shape), reduction=reduction, **dict(case.options))


@pytest.mark.peers
@pytest.mark.parametrize("shape", [(3, 4), (), (0, 3), (2, 3, 4, 5)], ids=str)
@pytest.mark.parametrize("log_target", [False, True])
def test_the_mean_over_batches_is_pytorchs(log_target: bool, shape: tuple[int, ...], torch: Any) -> None:
    case = CASES["kl of logarithms" if log_target else "kl"]
    against_pytorch(torch, "kl_div", case.operands(*shape), reduction="batchmean", log_target=log_target)


@pytest.mark.peers
@pytest.mark.parametrize("name", ["mse", "l1", "smooth l1", "huber wide"])
def test_corners_are_pytorchs(name: str, torch: Any) -> None:
    """Kinks, infinities and NaN."""
    case = CASES[name]
    x = np.array([0.0, 1.0, -1.0, 3.0, -3.0, INF, -INF, NAN, 1e200, 1e-200])
    against_pytorch(torch, case.call, (x, np.zeros(10)), reduction="none", **dict(case.options))


@pytest.mark.peers
def test_corners_of_cross_entropies_are_pytorchs(torch: Any) -> None:
    """Certain and all but certain probabilities, logits whose exponentials overflow, targets beyond [0, 1]."""
    x, t = np.array([0.0, 1.0, 0.5, 1e-50, 0.0, 1.0]), np.array([0.0, 1.0, 0.5, 0.5, 1.0, 0.0])
    ours, theirs = gpucnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    for function, leaf, target in (
        (F.binary_cross_entropy, ours, gpucnn.tensor(t)),
        (torch.nn.functional.binary_cross_entropy, theirs, torch.tensor(t)),
    ):
        function(leaf, target, reduction="sum").backward()
    assert_close(ours.grad, theirs.grad, rtol=1e-7, atol=0)  # PyTorch's floor of 1e-12 is a float32
    logits = np.array([0.0, 100.0, -1000.0, 1000.0, 800.0, INF])
    against_pytorch(
        torch,
        "binary_cross_entropy_with_logits",
        (logits, np.array([0.0, 1.0, 0.3, 2.0, -1.0, 0.0])),
        reduction="none",
    )
    # PyTorch differentiates target * log(target) at 0 to NaN; ours is its limit.
    x, t = np.array([-1.0, -INF, 2.0]), np.array([0.0, 0.0, 0.0])
    expected = torch.nn.functional.kl_div(torch.tensor(x), torch.tensor(t), reduction="none")
    found = F.kl_div(gpucnn.tensor(x), gpucnn.tensor(t), reduction="none")
    assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


# ----------------------------------------------------------------------------- gradients, layouts, corners, bad input


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_central_differences(name: str, reduction: str) -> None:
    case = CASES[name]
    leaves = [gpucnn.tensor(a, requires_grad=True) for a in away_from_kinks(case, 3, 4)]
    assert gradcheck(lambda *a: getattr(F, case.call)(*a, reduction=reduction, **dict(case.options)), leaves)


@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("second", ["nhwc", "nchw", "strided"])
def test_any_memory_layout_is_taken(first: str, second: str) -> None:
    for name in ("mse", "bce with logits"):
        case = CASES[name]
        x, t = case.operands(2, 3, 4, 5)
        for reduction in ("sum", "none"):
            a, b = (gpucnn.Tensor(LAYOUTS[k](v), requires_grad=True) for k, v in ((first, x), (second, t)))
            loss = getattr(F, case.call)(a, b, reduction=reduction)
            loss.backward(np.ones(loss.shape))
            elements = case.formula()(x, t)
            assert_close(loss, elements if reduction == "none" else elements.sum(), rtol=1e-13, atol=1e-14)
            assert_close(a.grad, case.formula("_grad")(x, t), rtol=1e-13, atol=1e-14)
            assert_close(b.grad, case.target_gradient(x, t), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_channels_last_images_are_read_as_they_lie(name: str) -> None:
    case = CASES[name]
    x, t = (gpucnn.tensor(a, requires_grad=True) for a in case.operands(2, 3, 4, 5))
    with backend.count_layout_copies() as copies:
        for reduction in REDUCTIONS:
            loss = getattr(F, case.call)(x, t, reduction=reduction, **dict(case.options))
            loss.backward(loss.detach())
    assert copies.value == 0
    assert all(leaf.grad.data.transpose(NHWC).flags.c_contiguous for leaf in (x, t))


def test_half_precision_sums_do_not_overflow_on_the_way() -> None:
    """65,536 squares of 4 sum beyond float16, their mean does not."""
    x = gpucnn.tensor(np.full((256, 256), 2.0), "float16", requires_grad=True)
    loss = F.mse_loss(x, gpucnn.zeros(256, 256, dtype="float16"))
    loss.backward()
    assert loss.item() == 4.0
    assert_close(x.grad, np.full((256, 256), 4 / 65536), rtol=1e-3, atol=0)


def test_a_beta_of_zero_is_the_absolute_error() -> None:
    x, t = (gpucnn.tensor(a) for a in CASES["l1"].operands(3, 4))
    assert_equal(F.smooth_l1_loss(x, t, beta=0.0), F.l1_loss(x, t))


def test_only_the_gradients_that_are_needed() -> None:
    for case in CASES.values():
        for needed in ((True, False), (False, True)):
            leaves = [gpucnn.tensor(a, requires_grad=n) for a, n in zip(case.operands(2, 3), needed, strict=True)]
            getattr(F, case.call)(*leaves).backward()
            assert tuple(leaf.grad is not None for leaf in leaves) == needed


def test_layers_are_their_functions() -> None:
    x, t = (gpucnn.tensor(a) for a in CASES["bce"].operands(2, 3))
    w = gpucnn.tensor([0.5, 1.0, 2.0], "float64")
    for layer, expected in (
        (nn.MSELoss("sum"), F.mse_loss(x, t, "sum")),
        (nn.L1Loss("none"), F.l1_loss(x, t, "none")),
        (nn.SmoothL1Loss("sum", 0.1), F.smooth_l1_loss(x, t, "sum", 0.1)),
        (nn.HuberLoss("sum", 0.1), F.huber_loss(x, t, "sum", 0.1)),
        (nn.BCELoss(w, "sum"), F.binary_cross_entropy(x, t, w, "sum")),
        (nn.BCEWithLogitsLoss(w, "sum", w), F.binary_cross_entropy_with_logits(x, t, w, "sum", w)),
        (nn.KLDivLoss("batchmean"), F.kl_div(x, t, "batchmean")),
        (nn.KLDivLoss("sum", log_target=True), F.kl_div(x, t, "sum", True)),
    ):
        assert_equal(layer(x, t), expected)
    assert list(nn.BCEWithLogitsLoss(w, pos_weight=w).state_dict()) == ["weight", "pos_weight"]


X, HALF = gpucnn.zeros(2, 5), gpucnn.full((2, 5), 0.5)


@pytest.mark.parametrize("name", sorted({case.call for case in CASES.values()}))
def test_what_does_not_fit_is_refused(name: str) -> None:
    loss = getattr(F, name)
    with pytest.raises(ValueError, match=rf"^{name}: input \(2, 5\) and target \(5,\) must have one shape"):
        loss(X, gpucnn.zeros(5))
    with pytest.raises(TypeError, match=f"^{name}: input has dtype float32, but target has float64"):
        loss(X, gpucnn.zeros(2, 5, dtype="float64"))
    with pytest.raises(TypeError, match=f"^{name}: target must be a gpucnn.Tensor, got ndarray"):
        loss(X, np.zeros((2, 5)))
    with pytest.raises(ValueError, match=f"^{name}: reduction must be 'none', .* or 'sum', got 'all'"):
        loss(X, X, reduction="all")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.mse_loss(X, X, "batchmean"), ValueError, "'none', 'mean' or 'sum', got 'batchmean'"),
        (lambda: F.smooth_l1_loss(X, X, beta=-1), ValueError, "beta must be at least 0, got -1"),
        (lambda: F.smooth_l1_loss(X, X, beta="1"), TypeError, "beta must be a number, got '1'"),
        (lambda: F.huber_loss(X, X, delta=0), ValueError, "delta must be greater than 0, got 0"),
        (lambda: F.mse_loss(X, X, weight=gpucnn.ones(5)), ValueError, r"weight \(5,\) must have the shape of input"),
        (lambda: F.l1_loss(X, X, weight=2.0), TypeError, "l1_loss: weight must be a gpucnn.Tensor, got float"),
        (
            lambda: F.huber_loss(X, X, weight=gpucnn.ones(2, 5, dtype="float64")),
            TypeError,
            "huber_loss: input has dtype float32, but weight has float64",
        ),
        (
            lambda: F.binary_cross_entropy(gpucnn.tensor([0.5, 1.5]), gpucnn.zeros(2)),
            ValueError,
            r"binary_cross_entropy: input must lie in \[0, 1\], got 1.5 at \(1,\)",
        ),
        (
            lambda: F.binary_cross_entropy(HALF, gpucnn.tensor([[0, 0, 0, 0, 0], [0, 0, NAN, -1, 0]], "float32")),
            ValueError,
            r"binary_cross_entropy: target must lie in \[0, 1\], got nan at \(1, 2\)",
        ),
        (
            lambda: F.binary_cross_entropy(HALF, HALF, gpucnn.ones(2)),
            ValueError,
            r"weight \(2,\) does not broadcast to the shape of input, \(2, 5\)",
        ),
        (
            lambda: F.binary_cross_entropy_with_logits(X, HALF, pos_weight=gpucnn.ones(3, 2, 5)),
            ValueError,
            r"pos_weight \(3, 2, 5\) does not broadcast",
        ),
        (
            lambda: F.binary_cross_entropy_with_logits(X, HALF, gpucnn.ones(5).requires_grad_()),
            ValueError,
            r"weight is a constant .* pass weight.detach\(\)",
        ),
        (
            lambda: F.binary_cross_entropy_with_logits(X, HALF, gpucnn.ones(5, dtype="float64")),
            TypeError,
            "input has dtype float32, but weight has float64",
        ),
    ],
)
def test_bad_input_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# ----------------------------------------------------------------------------------- wrong kernels must be caught


@pytest.mark.parametrize(
    ("name", "place", "wrong"),
    [
        ("mse", 0, lambda p, x, t: np.asarray(((x - t) ** 2).mean()) if p.reduce else (x - t) ** 2),
        ("mse", 1, lambda p, x, t, dy: (x - t) * dy / x.dtype.type(p.divisor)),
        ("l1", 1, lambda p, x, t, dy: np.where(x > t, dy, 0) / x.dtype.type(p.divisor)),
        ("huber wide", 0, lambda p, x, t: np.abs(x - t)),
        ("smooth l1 wide", 1, lambda p, x, t, dy: np.clip(x - t, -3, 3) * dy / x.dtype.type(p.divisor)),
        ("bce", 1, lambda p, x, t, dy: (x - t) * dy / x.dtype.type(p.divisor)),
        ("bce with logits", 2, lambda p, x, t, dy: np.zeros_like(x)),
        ("kl", 0, lambda p, x, t: t * (t - x)),
        ("kl of logarithms", 2, lambda p, x, t, dy: np.exp(t) * dy / x.dtype.type(p.divisor)),
    ],
)
def test_a_wrong_kernel_is_caught(name: str, place: int, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    table = CASES[name].tables[place]
    plant(monkeypatch, table, wrong)
    with pytest.raises(AssertionError, match=f"{table} planted (sum )?float32: .* elements are wrong"):
        check_kernels(name, "float32")

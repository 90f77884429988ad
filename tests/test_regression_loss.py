"""Losses between input and target: every kernel against the truth, F.* and gradients against PyTorch, corners."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, NHWC, draw, each_kernel, frozen, names, plant
from pointwise_checks import EPS, INF, NAN, check, values

import gpucnn
from gpucnn import backend, nn
from gpucnn import functional as F
from gpucnn.ops import regression_loss as ops
from gpucnn.ops.registry import KernelTable
from gpucnn.reference.regression_loss import HuberProblem, LossProblem
from gpucnn.testing import assert_close, assert_equal, gradcheck, naive

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


@pytest.mark.parametrize("dtype", EPS)
def test_no_formula_reads_memory_that_it_has_not_written(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)
    for name in CASES:
        check_kernels(name, dtype)


def test_these_are_all_kernels() -> None:
    assert all(names(table) == ["array"] for case in CASES.values() for table in case.tables)


def test_sums_have_the_same_bits_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    x, t = draw("normal", (500, 100)).astype(np.float32), draw("normal", (500, 100), 1).astype(np.float32)
    monkeypatch.setattr("gpucnn.reference.common.BLOCK_BYTES", 2000)
    monkeypatch.setattr("gpucnn.reference.common.LARGE_BYTES", 1000)
    found = []
    for threads in (1, 2, 3):
        monkeypatch.setattr("gpucnn.reference.parallel._threads", threads)
        found.append(ops.mse(LossProblem(True, 3.0), x, t, like=x))
    assert_equal(found[0], found[1])
    assert_equal(found[0], found[2])
    assert_close(found[0], ((x.astype(np.float64) - t) ** 2).sum() / 3, rtol=1e-6, atol=0)


# ------------------------------------------------------------------------------------------------ against PyTorch


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


# ----------------------------------------------------------------------------- gradients, layouts, corners, bad input


def away_from_kinks(case: Case, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Operands between which no distance is near one where the loss has no derivative."""
    x, t = case.operands(*shape)
    if case.numbers == "any" and case.call != "kl_div":
        distance = np.abs(x - t)
        for kink in (0.0, 1.0, 3.0):
            x = np.where(abs(distance - kink) < 0.1, x + 0.3 * np.where(x > t, 1, -1), x)
    return x, t


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

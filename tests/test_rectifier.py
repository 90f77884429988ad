"""Rectifiers: every kernel against the truth, F.* and gradients against PyTorch; slopes learnt and slopes drawn."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, NHWC, draw, each_kernel, frozen, names, plant
from pointwise_checks import (
    EPS,
    INF,
    NAN,
    Case,
    check,
    check_against_pytorch,
    check_backward,
    check_central_differences,
    check_forward,
    check_layouts,
    check_nothing_is_copied,
    poison,
    values,
)

import gpucnn
from gpucnn import backend, nn
from gpucnn import functional as F
from gpucnn.ops import rectifier as ops
from gpucnn.random import philox4x32, split64
from gpucnn.reference import rectifier as reference
from gpucnn.reference.common import select
from gpucnn.reference.rectifier import EluProblem, HardtanhProblem, RReluProblem, ThresholdProblem
from gpucnn.testing import assert_close, assert_equal, gradcheck, naive


def with_options(
    tables: tuple[Any, Any], name: str, call: Any, problem: Any, saves_output: bool = True, **options: float
) -> Case:
    truth = functools.partial(getattr(naive, name), **options)
    gradient = functools.partial(getattr(naive, f"{name}_grad"), **options)
    return Case(*tables, truth, gradient, call, problem, saves_output, uncertain_at_nan=name not in CERTAIN)


CERTAIN = ("leaky_relu", "threshold")
HARDTANH, LEAKY, ELU = (
    (ops.hardtanh, ops.hardtanh_grad),
    (ops.leaky_relu, ops.leaky_relu_grad),
    (ops.elu, ops.elu_grad),
)
THRESHOLD, HARDSHRINK, SOFTSHRINK = (
    (ops.threshold, ops.threshold_grad),
    (ops.hardshrink, ops.hardshrink_grad),
    (ops.softshrink, ops.softshrink_grad),
)
SELU_ALPHA, SELU_SCALE = 1.6732632423543772848, 1.0507009873554804934

CASES = {
    "relu": Case(ops.relu, ops.relu_grad, naive.relu, naive.relu_grad, lambda m, t: m.relu(t, inplace=False)),
    "relu6": with_options(
        HARDTANH, "hardtanh", lambda m, t: m.relu6(t), HardtanhProblem(0.0, 6.0), min_val=0.0, max_val=6.0
    ),
    "hardtanh": with_options(HARDTANH, "hardtanh", lambda m, t: m.hardtanh(t), HardtanhProblem(-1.0, 1.0)),
    "hardtanh narrow": with_options(
        HARDTANH,
        "hardtanh",
        lambda m, t: m.hardtanh(t, -0.5, 3.0),
        HardtanhProblem(-0.5, 3.0),
        min_val=-0.5,
        max_val=3.0,
    ),
    "leaky_relu": with_options(LEAKY, "leaky_relu", lambda m, t: m.leaky_relu(t), 0.01),
    "leaky_relu flat": with_options(LEAKY, "leaky_relu", lambda m, t: m.leaky_relu(t, 0.0), 0.0, negative_slope=0.0),
    "leaky_relu steep": with_options(LEAKY, "leaky_relu", lambda m, t: m.leaky_relu(t, 3.0), 3.0, negative_slope=3.0),
    "leaky_relu folded": with_options(
        LEAKY, "leaky_relu", lambda m, t: m.leaky_relu(t, -0.5), -0.5, False, negative_slope=-0.5
    ),
    "rrelu": with_options(
        LEAKY, "leaky_relu", lambda m, t: m.rrelu(t), (1 / 8 + 1 / 3) / 2, negative_slope=(1 / 8 + 1 / 3) / 2
    ),
    "elu": with_options(ELU, "elu", lambda m, t: m.elu(t), EluProblem(1.0)),
    "elu steep": with_options(ELU, "elu", lambda m, t: m.elu(t, 2.5), EluProblem(2.5), alpha=2.5),
    "elu flat": with_options(ELU, "elu", lambda m, t: m.elu(t, 0.0), EluProblem(0.0), alpha=0.0),
    "elu folded": with_options(ELU, "elu", lambda m, t: m.elu(t, -0.5), EluProblem(-0.5), False, alpha=-0.5),
    "selu": with_options(
        ELU,
        "elu",
        lambda m, t: m.selu(t),
        EluProblem(SELU_ALPHA, SELU_SCALE),
        alpha=SELU_ALPHA,
        scale=SELU_SCALE,
    ),
    "celu": with_options(
        ELU, "elu", lambda m, t: m.celu(t, 2.0), EluProblem(2.0, 1.0, 0.5), alpha=2.0, input_scale=0.5
    ),
    "celu folded": with_options(
        ELU, "elu", lambda m, t: m.celu(t, -8.0), EluProblem(-8.0, 1.0, -0.125), False, alpha=-8.0, input_scale=-0.125
    ),
    "threshold": with_options(
        THRESHOLD,
        "threshold",
        lambda m, t: m.threshold(t, 0.5, 7.0),
        ThresholdProblem(0.5, 7.0),
        False,
        threshold=0.5,
        value=7.0,
    ),
    "hardshrink": with_options(HARDSHRINK, "hardshrink", lambda m, t: m.hardshrink(t), 0.5, False),
    "hardshrink of all": with_options(
        HARDSHRINK, "hardshrink", lambda m, t: m.hardshrink(t, -1.0), -1.0, False, lambd=-1.0
    ),
    "softshrink": with_options(SOFTSHRINK, "softshrink", lambda m, t: m.softshrink(t), 0.5),
    "softshrink none": with_options(SOFTSHRINK, "softshrink", lambda m, t: m.softshrink(t, 0.0), 0.0, lambd=0.0),
}


@pytest.mark.parametrize("kind", ["normal", "special"])
@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("name", CASES)
def test_every_kernel(name: str, dtype: str, kind: str) -> None:
    check_forward(CASES[name], dtype, kind)
    check_backward(CASES[name], dtype, kind)


@pytest.mark.parametrize("dtype", EPS)
def test_no_formula_reads_memory_that_it_has_not_written(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)
    for case in CASES.values():
        check_forward(case, dtype, "normal")
        check_backward(case, dtype, "normal")


def test_these_are_all_kernels() -> None:
    tables = [table for case in CASES.values() for table in (case.forward, case.backward)]
    assert all(names(table) == ["array"] for table in [*tables, ops.prelu, ops.prelu_grad, ops.prelu_weight_grad])
    assert names(ops.rrelu_slopes) == ["philox"]


@pytest.mark.peers
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (40,), (), (0, 3)], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_functions_are_pytorchs(name: str, shape: tuple[int, ...], torch: Any) -> None:
    for kind in ("normal", "special") if np.prod(shape) > 20 else ("normal",):
        check_against_pytorch(CASES[name], shape, kind, torch)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_central_differences(name: str) -> None:
    check_central_differences(CASES[name], kinks=(0.0, 0.5, -0.5, 1.0, -1.0, 3.0))


@pytest.mark.parametrize("name", CASES)
def test_memory_layouts(name: str) -> None:
    for layout in LAYOUTS.values():
        check_layouts(CASES[name], layout)
    check_nothing_is_copied(CASES[name])


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("name", ["relu", "hardtanh", "elu"])
def test_blocks_and_threads_change_nothing(name: str, dtype: str, block_bytes: int) -> None:
    case = CASES[name]
    x, dy = values(30, 41).astype(dtype), draw("normal", (30, 41), 1).astype(dtype)
    for view in (slice(None), (slice(None), slice(None, None, 2))):
        y = case.forward(case.problem, x[view], like=x)
        check(y, case.truth(x[view]), dtype, "y", 4)
        saved = y if case.saves_output else x[view]
        dx = case.backward(case.problem, dy[view], saved, like=x)
        check(dx, case.truth_grad(dy[view], x[view]), dtype, "dx", 16)


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("bound", [0.1, 1 / 3, 1e-4])
def test_bounds_that_the_dtype_rounds_still_have_no_slope(dtype: str, bound: float) -> None:
    """The gradient asks which outputs equal the bounds: these are the bounds as the dtype holds them."""
    x = gpucnn.tensor([-1.0, -bound, 0.0, bound, 1.0], dtype, requires_grad=True)
    F.hardtanh(x, -bound, bound).sum().backward()
    assert x.grad.tolist() == [0, 0, 1, 0, 0]


# --------------------------------------------------------------------------------------------------- learnt slopes

PRELU_SHAPES = [((2, 3, 4, 5), 3), ((2, 3, 4, 5), 1), ((4, 3), 3), ((3, 5, 2), 5), ((7,), 1), ((), 1), ((0, 3, 2), 3)]


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize(("shape", "weights"), PRELU_SHAPES, ids=str)
def test_prelu(shape: tuple[int, ...], weights: int, dtype: str) -> None:
    x, w = values(*shape), draw("normal", (weights,), 2)
    dy = draw("normal", shape, 1)
    along = w.reshape(-1, *(1,) * (len(shape) - 2)) if weights > 1 else w.reshape((1,) * len(shape))
    for layout in LAYOUTS.values() if shape else [np.asarray]:
        leaf, weight = gpucnn.Tensor(layout(x.astype(dtype)), requires_grad=True), gpucnn.tensor(w, dtype)
        y = F.prelu(leaf, weight.requires_grad_())
        y.backward(layout(dy.astype(dtype)))
        check(y.numpy(), naive.prelu(x, along), dtype, "y", 4)
        check(leaf.grad.numpy(), naive.prelu_grad(dy, x, along), dtype, "input gradient", 4)
        terms = naive.prelu_weight_grad(dy, x)
        if weights > 1:
            terms = terms.sum(axis=tuple(axis for axis in range(len(shape)) if axis != 1))
        check(weight.grad.numpy(), terms.sum().reshape(1) if weights == 1 else terms, dtype, "weight gradient", 64)


def test_every_kernel_of_prelu() -> None:
    for dtype in EPS:
        x, dy = (values(5, 4, 3, stream=i, kind=kind).astype(dtype) for i, kind in enumerate(("special", "normal")))
        w = draw("normal", (4, 1), 2).astype(dtype)
        with np.errstate(all="ignore"):
            for name, found in each_kernel(ops.prelu, None, frozen(x), frozen(w)):
                check(found, naive.prelu(x, w), dtype, name, 2)
            for name, found in each_kernel(ops.prelu_grad, None, frozen(dy), frozen(x), frozen(w)):
                check(found, naive.prelu_grad(dy, x, w), dtype, name, 2)
            for name, found in each_kernel(ops.prelu_weight_grad, None, frozen(dy), frozen(x)):
                check(found, naive.prelu_weight_grad(dy, x), dtype, name, 2)


@pytest.mark.peers
@pytest.mark.parametrize(("shape", "weights"), PRELU_SHAPES, ids=str)
def test_prelu_is_pytorchs(shape: tuple[int, ...], weights: int, torch: Any) -> None:
    arrays = values(*shape), draw("normal", (weights,), 2)
    ours = [gpucnn.tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, expected = F.prelu(*ours), torch.nn.functional.prelu(*theirs)
    dy = draw("normal", shape, 1)
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    assert_close(y, expected.detach(), rtol=1e-15, atol=0)
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-12)


def test_prelu_copies_nothing_and_asks_only_for_what_is_needed() -> None:
    x, w = gpucnn.tensor(values(2, 3, 4, 5), requires_grad=True), gpucnn.tensor([0.5, 0.0, -1.0], "float64")
    with backend.count_layout_copies() as copies:
        y = F.prelu(x, w)
        y.backward(y.detach())
    assert copies.value == 0
    assert w.grad is None
    assert y.data.transpose(NHWC).flags.c_contiguous
    weight = w.requires_grad_()
    F.prelu(x.detach(), weight).sum().backward()
    assert weight.grad.shape == (3,)
    x = gpucnn.tensor(np.where(abs(values(2, 3, 4)) < 0.1, 0.5, values(2, 3, 4)), requires_grad=True)
    assert gradcheck(F.prelu, [x, weight.detach().requires_grad_()])


# ---------------------------------------------------------------------------------------------------- drawn slopes


def drawn(shape: tuple[int, ...], lower: float, upper: float, seed: int, call: int) -> np.ndarray:
    """The slopes by the definition of RReluProblem, one counter at a time."""
    words = [
        int(philox4x32((i & 0xFFFFFFFF, i >> 32, *split64(call)), split64(seed))[0]) for i in range(int(np.prod(shape)))
    ]
    return (lower + (upper - lower) * np.array(words, np.float64) / 2**32).reshape(shape)


@pytest.mark.parametrize("dtype", EPS)
def test_every_kernel_of_rrelu(dtype: str) -> None:
    x = values(2, 3, 4, 5, kind="special").astype(dtype)
    truth = np.where(x <= 0, drawn(x.shape, 0.125, 0.5, 7, 2**33), 1.0)
    for name, found in each_kernel(ops.rrelu_slopes, RReluProblem(x.shape, 0.125, 0.5, 7, 2**33), frozen(x)):
        check(found, truth, dtype, name, 1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rrelu_in_training_is_a_function_of_seed_call_and_place(layout: str) -> None:
    x, dy = values(2, 3, 4, 5), draw("normal", (2, 3, 4, 5), 1)
    gpucnn.manual_seed(11)
    for call in range(2):
        leaf = gpucnn.Tensor(LAYOUTS[layout](x), requires_grad=True)
        y = F.rrelu(leaf, 0.25, 0.75, training=True)
        y.backward(LAYOUTS[layout](dy))
        slopes = np.where(x <= 0, drawn(x.shape, 0.25, 0.75, 11, call), 1.0)
        assert_close(y, x * slopes, rtol=1e-15, atol=0)
        assert_close(leaf.grad, dy * slopes, rtol=1e-15, atol=0)


def test_rrelu_spreads_its_slopes_evenly_and_copies_nothing() -> None:
    x = gpucnn.tensor(-np.ones((4, 5, 30, 30)), requires_grad=True)
    with backend.count_layout_copies() as copies:
        y = F.rrelu(x, 0.2, 0.6, training=True)
        y.backward(y.detach())
    assert copies.value == 0
    slopes = -y.numpy()
    assert 0.2 <= slopes.min() < 0.201 < 0.599 < slopes.max() <= 0.6
    assert abs(slopes.mean() - 0.4) < 5 * 0.4 / math.sqrt(12 * slopes.size)
    assert y.data.transpose(NHWC).flags.c_contiguous


def test_rrelu_layer_draws_in_training_alone() -> None:
    layer, x = nn.RReLU(0.25, 0.75), gpucnn.tensor(-np.ones(50))
    assert len(set(layer(x).tolist())) > 40
    before = gpucnn.random.state()
    assert set(layer.eval()(x).tolist()) == {-0.5}
    assert gpucnn.random.state() == before


# -------------------------------------------------------------------------------------------------------- bad input

X = gpucnn.ones(2, 5)


@pytest.mark.parametrize("name", sorted({name.partition(" ")[0] for name in CASES}))
def test_what_is_no_floating_tensor_is_refused(name: str) -> None:
    rest = (0.5, 1.0) if name == "threshold" else ()
    with pytest.raises(TypeError, match=f"^{name}: input must be a gpucnn.Tensor, got ndarray"):
        getattr(F, name)(np.ones(4), *rest)
    with pytest.raises(TypeError, match=f"^{name}: input must have a floating dtype, got int64"):
        getattr(F, name)(gpucnn.tensor(np.ones(4, np.int64)), *rest)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.hardtanh(X, 2, 1), ValueError, "hardtanh: min_val=2 is greater than max_val=1"),
        (lambda: F.hardtanh(X, "a"), TypeError, "hardtanh: min_val must be a number, got 'a'"),
        (lambda: F.leaky_relu(X, X), TypeError, "leaky_relu: negative_slope must be a number"),
        (lambda: F.elu(X, None), TypeError, "elu: alpha must be a number, got None"),
        (lambda: F.celu(X, 0), ValueError, "celu: alpha must not be 0"),
        (lambda: F.softshrink(X, -0.1), ValueError, "softshrink: lambd must be at least 0, got -0.1"),
        (lambda: F.softshrink(X, NAN), ValueError, "softshrink: lambd must be at least 0, got nan"),
        (lambda: F.rrelu(X, 0.5, 0.25), ValueError, "rrelu: lower must not exceed upper, .* got 0.5 and 0.25"),
        (lambda: F.rrelu(X, 0.5, INF, True), ValueError, "both be finite, got 0.5 and inf"),
        (lambda: F.threshold(X, 0.5, [1]), TypeError, r"threshold: value must be a number, got \[1\]"),
        (
            lambda: F.prelu(X, gpucnn.ones(3)),
            ValueError,
            r"prelu: weight must have shape \(1,\), or \(5,\) for the channels of input \(2, 5\), got \(3,\)",
        ),
        (lambda: F.prelu(X, gpucnn.ones(1, 5)), ValueError, r"prelu: weight must have shape .* got \(1, 5\)"),
        (lambda: F.prelu(gpucnn.ones(4), gpucnn.ones(4)), ValueError, r"or \(1,\) for the channels"),
        (lambda: F.prelu(X, gpucnn.ones(5, dtype="float64")), TypeError, "input has dtype float32, but weight"),
        (lambda: F.prelu(X, 0.25), TypeError, "prelu: weight must be a gpucnn.Tensor, got float"),
        (lambda: nn.PReLU(0), ValueError, "PReLU: num_parameters must be at least 1, got 0"),
        (lambda: nn.Hardtanh(1.0, 1.0), ValueError, "Hardtanh: min_val must be less than max_val, got 1.0 and 1.0"),
    ],
)
def test_bad_input_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# ----------------------------------------------------------------------------------- wrong kernels must be caught


WRONG: list[tuple[str, str, str, Any]] = [  # case, pass, kind of numbers, kernel
    ("relu", "forward", "special", lambda p, x: np.where(x > 0, x, 0)),
    ("relu", "backward", "special", lambda p, dy, y: select(dy, y > 0)),
    ("relu", "backward", "normal", lambda p, dy, y: dy * (y > 0.5)),
    ("relu6", "backward", "special", lambda p, dy, y: dy * (y > 0)),
    ("hardtanh", "backward", "special", lambda p, dy, y: dy * ((y >= p.min_val) & (y <= p.max_val))),
    ("leaky_relu steep", "forward", "normal", lambda p, x: np.maximum(x, x * x.dtype.type(p))),
    ("leaky_relu flat", "forward", "special", lambda p, x: np.maximum(x, x * x.dtype.type(p))),
    ("leaky_relu folded", "backward", "special", lambda p, dy, x: np.where(x >= 0, dy, dy * x.dtype.type(p))),
    ("elu", "forward", "special", lambda p, x: np.maximum(x, 0) + np.exp(x) - 1),
    ("selu", "backward", "normal", lambda p, dy, y: np.where(y > 0, dy, dy * (y + 1)).astype(dy.dtype)),
    ("threshold", "forward", "special", lambda p, x: np.where(x < p.threshold, p.value, x).astype(x.dtype)),
    ("hardshrink", "forward", "special", lambda p, x: x * (abs(x) >= p)),
    ("softshrink", "forward", "normal", lambda p, x: x * (abs(x) > p)),
]


@pytest.mark.parametrize(("name", "direction", "kind", "wrong"), WRONG)
def test_a_wrong_kernel_is_caught(
    name: str, direction: str, kind: str, wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = check_forward if direction == "forward" else check_backward
    table = getattr(CASES[name], direction)
    run(CASES[name], "float32", kind)
    with np.errstate(all="ignore"):
        plant(monkeypatch, table, wrong)
        with pytest.raises(AssertionError, match=f"{table} planted float32: .* elements are wrong"):
            run(CASES[name], "float32", kind)


def test_selection_by_bits_keeps_what_multiplication_would_spoil() -> None:
    x, slopes = np.array([INF, -INF, NAN, 2.0]), np.zeros(4)
    with np.errstate(all="ignore"):
        assert_equal(reference.prelu(None, x, slopes), np.array([INF, NAN, NAN, 2.0]))
        assert_equal(reference.prelu_weight_grad(None, np.ones(4), x), np.array([0.0, -INF, NAN, 0.0]))

"""Fully connected layers: every kernel against the truth, F.linear and its gradients against PyTorch, corners."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, compare, draw, each_kernel, frozen, names, plant

import gpucnn
from gpucnn import functional as F
from gpucnn.ops import linear
from gpucnn.reference import linear as reference
from gpucnn.testing import assert_close, assert_equal, gradcheck, naive

SIZES = [  # rows, inputs, outputs
    (1, 1, 1),
    (1, 129, 33),
    (7, 33, 1),
    (0, 3, 4),
    (3, 1, 5),
    (64, 400, 120),
    (7, 129, 33),
    (128, 31, 2),
    (2, 0, 3),
    (3, 1030, 5),
    (2, 9, 520),
]
TABLES = {"y": linear.fprop, "dx": linear.dgrad, "dw": linear.wgrad, "db": linear.bgrad}


@pytest.fixture
def cut(block_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrix products in one piece, and in as many as there can be."""
    if block_bytes == 1:
        monkeypatch.setattr("gpucnn.reference.parallel._PIECE_OPERATIONS", 1)
        monkeypatch.setattr("gpucnn.reference.parallel._PIECE_SIDE", 1)


def check_kernels(size: tuple[int, int, int], dtype: str, kind: str) -> None:
    __tracebackhide__ = True
    M, I, O = size  # noqa: E741
    x, w, b, dy = draw(kind, (M, I)), draw(kind, (O, I), 1), draw(kind, (O,), 2), draw(kind, (M, O), 3)
    x_, w_, b_, dy_ = (frozen(a, dtype) for a in (x, w, b, dy))
    plans: list[tuple[str, tuple[Any, ...], np.ndarray, int]] = [
        ("y", (x_, w_, b_), naive.linear(x, w, b), I + 1),
        ("y", (x_, w_, None), naive.linear(x, w), I),
        ("y", (x_, w_, b_, True), np.maximum(naive.linear(x, w, b), 0), I + 1),
        ("dx", (dy_, w_), naive.linear_input_grad(dy, w), O),
        ("dw", (x_, dy_), naive.linear_weight_grad(dy, x), M),
        ("db", (dy_,), naive.linear_bias_grad(dy), M),
    ]
    for result, arrays, expected, terms in plans:
        for name, found in each_kernel(TABLES[result], linear.LinearProblem(M, I, O), *arrays):
            assert found.dtype == dtype, name
            compare(found, expected, terms, f"{name} {dtype}", exact=kind == "integers")


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        ("float32", "integers"),
        ("float64", "integers"),
        ("float64", "normal"),
        ("float32", "normal"),
        ("float16", "normal"),
    ],
)
def test_every_kernel(size: tuple[int, int, int], dtype: str, kind: str, cut: None) -> None:
    check_kernels(size, dtype, kind)


def test_these_are_all_kernels() -> None:
    assert [names(table) for table in TABLES.values()] == [["matmul"], ["matmul"], ["matmul"], ["rows"]]


@pytest.mark.parametrize("rows", [5_000, 200_000])
def test_long_sums_keep_their_digits(rows: int) -> None:
    """Equal addends of one sign, where the rounding errors of a running sum all point one way."""
    dy = np.full((rows, 3), 0.7, np.float32)
    for name, db in each_kernel(linear.bgrad, linear.LinearProblem(rows, 1, 3), dy):
        compare(db, np.full(3, rows * float(np.float32(0.7))), rows, name)


def test_half_precision_is_added_up_in_float32() -> None:
    x, w, b = (gpucnn.tensor(np.full(s, v), "float16") for s, v in (((1, 3000), 8), ((1, 3000), 4), ((1,), -65504)))
    assert F.linear(x, w, b).item() == 3000 * 32 - 65504  # the sum before the bias, 96,000, is no float16
    assert F.linear(x, w).item() == math.inf  # and nothing warns of it


@pytest.mark.peers
@pytest.mark.parametrize("shape", [(5, 7), (7,), (2, 3, 7), (2, 3, 4, 7), (0, 7), (3, 0, 7)], ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_values_and_gradients_are_pytorchs(shape: tuple[int, ...], bias: bool, dtype: str, torch: Any) -> None:
    arrays = [draw("normal", s, i) for i, s in enumerate([shape, (4, 7)] + [(4,)] * bias)]
    ours = [gpucnn.tensor(a, dtype, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, dtype=getattr(torch, dtype), requires_grad=True) for a in arrays]
    y, expected = F.linear(*ours), torch.nn.functional.linear(*theirs)
    assert y.shape == tuple(expected.shape)
    dy = draw("normal", y.shape, 9)
    y.backward(gpucnn.tensor(dy, dtype))
    expected.backward(torch.tensor(dy, dtype=expected.dtype))
    compare(y, expected.detach().double().numpy(), 8, "y")
    for name, a, b in zip(("dx", "dw", "db"), ours, theirs, strict=False):
        compare(a.grad, b.grad.double().numpy(), 24, name)


@pytest.mark.peers
def test_nan_and_infinity_spread_as_in_pytorch(torch: Any) -> None:
    x, w, b = draw("normal", (4, 5)), draw("normal", (3, 5)), draw("normal", (3,))
    x[0, 0], x[1, 1], x[2], b[1] = math.nan, math.inf, 0, -math.inf
    w[:, 1] = abs(w[:, 1]) + 1
    dy = draw("normal", (4, 3))
    dy[:, 0], dy[0, 1], dy[1, 1] = math.inf, math.inf, -math.inf
    ours = [gpucnn.tensor(a, requires_grad=True) for a in (x, w, b)]
    theirs = [torch.tensor(a, requires_grad=True) for a in (x, w, b)]
    y, expected = F.linear(*ours), torch.nn.functional.linear(*theirs)
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    for a, e in [(y, expected.detach()), *((a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))]:
        assert_close(a, e, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 7)], ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
def test_linear_relu_is_relu_of_linear(shape: tuple[int, ...], bias: bool) -> None:
    arrays = [draw("integers", s, i).astype("f4") for i, s in enumerate([shape, (4, 7)] + [(4,)] * bias)]
    found = []
    for run in (lambda *a: F.relu(F.linear(*a)), F.linear_relu):
        leaves = [gpucnn.tensor(array, requires_grad=True) for array in arrays]
        y = run(*leaves)
        y.backward(gpucnn.tensor(draw("integers", y.shape, 9).astype("f4")))
        found.append([y, *(leaf.grad for leaf in leaves)])
    for ours, theirs in zip(*found, strict=True):
        assert_equal(ours, theirs, signed_zeros=False)
    with pytest.raises(ValueError, match=r"linear_relu: input \(4, 6\) must end in the 7 features"):
        F.linear_relu(gpucnn.zeros(4, 6), leaves[1])


def test_linear_relu_keeps_nan_and_its_gradient_is_a_central_difference() -> None:
    leaves = [gpucnn.tensor(draw("normal", s), requires_grad=True) for s in ((2, 3, 5), (4, 5), (4,))]
    assert gradcheck(F.linear_relu, leaves)
    broken = leaves[0].detach().numpy().copy()
    broken[0, 0, 0] = math.nan
    assert np.isnan(F.linear_relu(gpucnn.tensor(broken), leaves[1]).numpy()[0, 0]).all()


def test_gradients_are_central_differences() -> None:
    leaves = [gpucnn.tensor(draw("normal", s), requires_grad=True) for s in ((2, 3, 5), (4, 5), (4,))]
    assert gradcheck(F.linear, leaves)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("operand", ["x", "w", "b", "dy"])
def test_any_memory_layout_is_taken(operand: str, layout: str) -> None:
    arrays = {n: draw("integers", s) for n, s in (("x", (6, 5)), ("w", (4, 5)), ("b", (4,)), ("dy", (6, 4)))}
    x, w, b, dy = arrays.values()
    given = arrays | {operand: LAYOUTS[layout](arrays[operand])}
    leaves = [gpucnn.Tensor(given[name], requires_grad=True) for name in ("x", "w", "b")]
    y = F.linear(*leaves)
    y.backward(given["dy"])
    assert_equal(y, naive.linear(x, w, b), signed_zeros=False)
    assert_equal(leaves[0].grad, naive.linear_input_grad(dy, w), signed_zeros=False)
    assert_equal(leaves[1].grad, naive.linear_weight_grad(dy, x), signed_zeros=False)
    assert_equal(leaves[2].grad, naive.linear_bias_grad(dy), signed_zeros=False)


def test_an_empty_batch_has_zero_weight_gradients() -> None:
    leaves = [gpucnn.zeros(*s, requires_grad=True) for s in ((0, 5), (4, 5), (4,))]
    y = F.linear(*leaves)
    assert y.shape == (0, 4)
    y.backward(np.zeros((0, 4), np.float32))
    for leaf in leaves:
        assert_equal(leaf.grad, np.zeros(leaf.shape, np.float32))


@pytest.mark.parametrize(
    ("result", "wrong"),
    [
        ("y", lambda p, x, w, b: reference.fprop(p, x, w, None)),
        ("y", lambda p, x, w, b: reference.fprop(p, x[:, :-1], w[:, :-1], b)),
        ("dx", lambda p, dy, w: reference.dgrad(p, dy, w[:, ::-1])),
        ("dw", lambda p, x, dy: reference.wgrad(p, x[1:], dy[1:])),
        ("db", lambda p, dy: reference.bgrad(p, dy[:-1])),
    ],
    ids=["no-bias", "last-input-missing", "filters-reversed", "one-row-unsummed", "last-row-missing"],
)
def test_a_wrong_kernel_is_caught(result: str, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, TABLES[result], wrong)
    with pytest.raises(AssertionError, match=f"{TABLES[result]} planted float32: .* elements are wrong"):
        check_kernels((9, 33, 7), "float32", "normal")

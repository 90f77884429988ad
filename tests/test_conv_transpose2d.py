"""Transposed convolution: conv2d's kernels in their other roles against the truth, F and nn against PyTorch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from conv_transpose2d_cases import CASES, CORNERS, Case, terms_of, truth
from op_checks import LAYOUTS, NCHW, NHWC, SEED, check_threads, compare, draw, each_kernel, frozen, names, nhwc, plant

import gpucnn
from gpucnn import backend, nn
from gpucnn import functional as F
from gpucnn.ops import conv2d, conv_transpose2d
from gpucnn.problem import Conv2dProblem
from gpucnn.reference import conv2d as reference
from gpucnn.testing import assert_close, assert_equal, gradcheck, naive


def check_kernels(case: Case, dtype: str, kind: str) -> None:
    """Every kernel that this op may run on, in the layout of the ops, elementwise right."""
    __tracebackhide__ = True
    t, p, terms = truth(case, kind), case.problem, terms_of(case)
    x, w, dy = nhwc(t.x, dtype), nhwc(t.w, dtype), nhwc(t.dy, dtype)
    before_bias = t.y - t.b[:, None, None] if case.bias else t.y
    found = [
        *((r, before_bias, "y") for r in each_kernel(conv2d.dgrad, p, x, w)),
        *((r, t.dx, "dx") for r in each_kernel(conv2d.fprop, p, dy, w, None)),
        *((r, t.dw, "dw") for r in each_kernel(conv2d.wgrad, p, dy, x)),
        *((r, t.db, "db") for r in each_kernel(conv2d.bgrad, conv_transpose2d.pointwise(p), dy)),
        *(
            (r, before_bias + t.b[:, None, None], "db")
            for r in each_kernel(conv_transpose2d.add_bias, p, nhwc(before_bias, dtype).copy(), frozen(t.b, dtype))
        ),
    ]
    for (name, result), expected, what in found:
        assert result.flags.c_contiguous, name
        assert result.dtype == dtype, name
        logical = result.transpose(NCHW) if result.ndim == 4 else result
        compare(logical, expected, terms[what], f"{name} {dtype}", exact=kind == "integers")


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_are_exact_on_small_integers(case: Case, dtype: str, block_bytes: int) -> None:
    check_kernels(case, dtype, "integers")


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_results_round_no_more_than_they_must(case: Case, dtype: str) -> None:
    """All of F.conv_transpose2d, forward and backward."""
    t, terms = truth(case, "normal"), terms_of(case)
    leaves = [gpucnn.tensor(a, dtype, requires_grad=True) for a in (t.x, t.w, t.b)[: 2 + case.bias]]
    y = F.conv_transpose2d(*leaves, **case.arguments)
    y.backward(gpucnn.tensor(t.dy, dtype))
    for name, found in zip(("y", "dx", "dw", "db"), (y, *[leaf.grad for leaf in leaves]), strict=False):
        assert found.dtype == dtype
        compare(found, getattr(t, name), terms[name], f"{name} {dtype}")


def test_these_are_all_kernels_and_the_cases_reach_them() -> None:
    assert names(conv_transpose2d.add_bias) == ["rows"]
    for table in (conv2d.dgrad, conv2d.fprop, conv2d.wgrad):
        for spec in table.specs("reference"):
            assert sum(spec.supports(case.problem) is None for case in CASES) >= 3, f"{table} {spec.name}"


def test_the_truth_by_hand() -> None:
    """Stride 2 lays filters of 2 x 2 side by side; at stride 1 they overlap in the middle; padding crops."""
    x, w = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 1, 2, 2), np.array([[1.0, 10.0], [100.0, 0.0]])
    filters = w.reshape(1, 1, 2, 2)
    assert np.array_equal(naive.conv_transpose2d(x, filters, stride=2)[0, 0], np.kron(x[0, 0], w))
    overlapping = [[1, 12, 20], [103, 234, 40], [300, 400, 0]]
    assert np.array_equal(naive.conv_transpose2d(x, filters)[0, 0], overlapping)
    assert np.array_equal(naive.conv_transpose2d(x, filters, [5.0], padding=1)[0, 0], [[239]])
    assert np.array_equal(
        naive.conv_transpose2d(x, filters, stride=(1, 2), padding=(1, 0), output_padding=(0, 1))[0, 0],
        [[103, 30, 204, 40, 0]],
    )


def test_it_is_the_transpose_of_conv2d() -> None:
    """<conv2d(a), b> = <a, conv_transpose2d(b)> for every a and b: whole numbers, so exactly."""
    for case in CORNERS:
        p = case.problem
        a, b = draw("integers", (p.N, p.C, p.H, p.W), 5), draw("integers", case.x_shape, 6)
        w = gpucnn.tensor(draw("integers", case.weight_shape, 7))
        rest = {name: case.arguments[name] for name in ("stride", "padding", "groups", "dilation")}
        there = F.conv2d(gpucnn.tensor(a), w, **rest).numpy()[:, :, : case.H, : case.W]
        back = F.conv_transpose2d(gpucnn.tensor(b), w, **case.arguments).numpy()
        assert np.sum(there * b) == np.sum(a * back), case


# ------------------------------------------------------------------------------------------------ against PyTorch


@pytest.mark.peers
@pytest.mark.parametrize("case", [c for c in CASES if c.N], ids=str)
def test_values_and_gradients_are_pytorchs(case: Case, torch: Any) -> None:
    t = truth(case, "normal")
    arrays = [t.x, t.w] + [t.b] * case.bias
    ours = [gpucnn.tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    y = F.conv_transpose2d(*ours, **case.arguments)
    expected = torch.nn.functional.conv_transpose2d(*theirs, **case.arguments)
    y.backward(t.dy)
    expected.backward(torch.tensor(t.dy))
    assert_close(y, expected.detach(), rtol=1e-12, atol=1e-11, dtype="float64", name="y")
    for name, a, b in zip(("dx", "dw", "db"), ours, theirs, strict=False):
        assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-11, dtype="float64", name=name)


@pytest.mark.peers
def test_arguments_come_in_pytorchs_order_and_are_refused_where_it_refuses(torch: Any) -> None:
    """Small problems of every kind, valid and not; by position."""
    rng = np.random.default_rng(SEED)
    done = refused = 0
    for _ in range(400):
        groups, (C, K, H, W, R, S) = rng.choice([1, 2]), rng.integers(1, 4, 6)
        two = [tuple(rng.integers(low, high, 2).tolist()) for low, high in ((1, 4), (0, 4), (0, 3), (1, 4))]
        x, w = rng.standard_normal((1, C * groups, H, W)), rng.standard_normal((C * groups, K, R, S))
        arguments = (None, *two[:3], int(groups), two[3])
        try:
            expected = torch.nn.functional.conv_transpose2d(torch.tensor(x), torch.tensor(w), *arguments)
        except RuntimeError:
            refused += 1
            with pytest.raises(ValueError, match=r"output_padding must be smaller|the output would have"):
                F.conv_transpose2d(gpucnn.tensor(x), gpucnn.tensor(w), *arguments)
            continue
        done += 1
        y = F.conv_transpose2d(gpucnn.tensor(x), gpucnn.tensor(w), *arguments)
        assert_close(y, expected, rtol=1e-12, atol=1e-12, name=str((x.shape, w.shape, arguments)))
    assert done > 50
    assert refused > 50


@pytest.mark.peers
def test_nan_and_infinity_spread_as_in_pytorch(torch: Any) -> None:
    x, w = draw("normal", (2, 3, 4, 4)), draw("normal", (3, 4, 3, 3))
    x[0, 1, 2, 2], x[1, 0, 0, 0], x[1, 2, 3, 3] = math.nan, math.inf, -math.inf
    y = F.conv_transpose2d(gpucnn.tensor(x), gpucnn.tensor(w), None, 2, 1)
    expected = torch.nn.functional.conv_transpose2d(torch.tensor(x), torch.tensor(w), None, 2, 1)
    assert_close(y, expected, rtol=1e-12, atol=1e-12, equal_nan=True)


# --------------------------------------------------------------------------------------- gradients, layouts, corners


@pytest.mark.parametrize(
    "case",
    [
        Case(2, 3, 4, 3, 4, 3, 2, (2, 1), (1, 0), (1, 0)),
        Case(2, 4, 3, 3, 2, 2, 3, (1, 2), (0, 2), (1, 1), 2, (2, 1)),
    ],
    ids=str,
)
def test_gradients_are_central_differences(case: Case) -> None:
    t = truth(case, "normal")
    assert gradcheck(
        lambda *a: F.conv_transpose2d(*a, **case.arguments),
        [gpucnn.tensor(a, requires_grad=True) for a in (t.x, t.w, t.b)],
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("operand", ["x", "w", "b", "dy"])
def test_any_memory_layout_is_taken(operand: str, layout: str) -> None:
    case = Case(2, 4, 4, 3, 6, 3, 2, (2, 1), (1, 0), (1, 0), 2)
    t = truth(case, "integers")
    arrays = {name: getattr(t, name).astype(np.float32) for name in ("x", "w", "b", "dy")}
    arrays[operand] = LAYOUTS[layout](arrays[operand])
    leaves = [gpucnn.Tensor(arrays[name], requires_grad=True) for name in ("x", "w", "b")]
    y = F.conv_transpose2d(*leaves, **case.arguments)
    y.backward(arrays["dy"])
    for name, found in zip(("y", "dx", "dw", "db"), (y, *[leaf.grad for leaf in leaves]), strict=True):
        assert_equal(found, getattr(t, name), dtype="float32", signed_zeros=False, name=name)


def test_an_unbatched_image_is_a_batch_of_one() -> None:
    case = Case(1, 3, 4, 3, 4, 3, 3, (2, 2), (1, 1), (1, 1))
    t = truth(case, "integers")
    x = gpucnn.tensor(t.x[0], requires_grad=True)
    y = F.conv_transpose2d(x, gpucnn.tensor(t.w), gpucnn.tensor(t.b), **case.arguments)
    y.backward(t.dy[0])
    assert_equal(y, t.y[0], signed_zeros=False)
    assert_equal(x.grad, t.dx[0], signed_zeros=False)


def test_an_empty_batch_has_empty_results_and_zero_weight_gradients() -> None:
    leaves = [gpucnn.zeros(*s, requires_grad=True) for s in ((0, 4, 3, 5), (4, 1, 3, 2), (2,))]
    y = F.conv_transpose2d(*leaves, stride=2, groups=2)
    assert (y.shape, y.dtype) == ((0, 2, 7, 10), np.float32)
    y.backward(np.zeros(y.shape, np.float32))
    for leaf in leaves:
        assert_equal(leaf.grad, np.zeros(leaf.shape, np.float32))


def test_only_the_gradients_that_are_needed_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("computed for nobody")

    w = gpucnn.ones(1, 2, 3, 3, requires_grad=True)
    y = F.conv_transpose2d(gpucnn.ones(1, 1, 4, 4), w, gpucnn.zeros(2))
    for table in (conv2d.fprop, conv2d.bgrad):
        plant(monkeypatch, table, never)
    y.backward(np.ones(y.shape, np.float32))
    assert_equal(w.grad, np.full((1, 2, 3, 3), 16, np.float32))


def test_a_chain_in_channels_last_copies_nothing() -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 6, 6)), "float32", requires_grad=True)
    down, up = nn.Conv2d(3, 5, 3, 2, 1), nn.ConvTranspose2d(5, 4, 3, 2, 1, 1)
    with backend.count_layout_copies() as copies:
        y = F.relu(up(F.relu(down(x))))
        y.backward(gpucnn.tensor(draw("normal", y.shape), "float32"))
    assert y.shape == (2, 4, 6, 6)
    assert copies.value == 0
    assert all(t.grad.data.transpose(NHWC).flags.c_contiguous for t in (x, down.weight, up.weight))


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    x, w, b = draw("normal", (4, 16, 24, 24)), draw("normal", (16, 32, 4, 4)), draw("normal", (32,))

    def run() -> list[np.ndarray]:
        leaves = [gpucnn.tensor(a, "float32", requires_grad=True) for a in (x, w, b)]
        y = F.conv_transpose2d(*leaves, stride=2, padding=1)
        y.backward(y.detach())
        return [y.numpy(), *[leaf.grad.numpy() for leaf in leaves]]

    check_threads(run)


def test_a_kernel_is_forced_by_name() -> None:
    x, w = gpucnn.ones(1, 2, 4, 4), gpucnn.ones(2, 2, 3, 3)
    assert_equal(F.conv_transpose2d(x, w, kernel="im2col"), F.conv_transpose2d(x, w).numpy())
    with pytest.raises(ValueError, match=r"conv2d dgrad: no kernel 'tap' on backend 'reference'"):
        F.conv_transpose2d(x, w, kernel="tap")


X, W = gpucnn.zeros(2, 4, 8, 8), gpucnn.zeros(4, 6, 3, 3)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"weight": gpucnn.zeros(6, 4, 3, 3)}, ValueError, r"input \(2, 4, 8, 8\) has C=4 .*weight .* expects 6"),
        ({"input": gpucnn.zeros(8, 8)}, ValueError, r"input must have shape \(N, C, H, W\) or \(C, H, W\), got"),
        ({"input": gpucnn.zeros(2, 4, 0, 8)}, ValueError, "channels, image and kernel must not be empty"),
        (
            {"weight": gpucnn.zeros(4, 3, 3)},
            ValueError,
            r"weight must have shape \(C, K/groups, R, S\), got \(4, 3, 3\)",
        ),
        ({"weight": gpucnn.zeros(4, 6, 0, 3)}, ValueError, "channels, image and kernel must not be empty"),
        (
            {"bias": gpucnn.zeros(4)},
            ValueError,
            r"bias must have shape \(6,\), one number an output channel, got \(4,\)",
        ),
        ({"bias": gpucnn.zeros(6), "groups": 2}, ValueError, r"bias must have shape \(12,\)"),
        ({"groups": 3}, ValueError, "groups must divide the channels of input: groups=3, input has C=4"),
        ({"groups": 0}, ValueError, "groups must be at least 1, got 0"),
        ({"groups": 1.0}, TypeError, "groups must be an integer"),
        ({"stride": 0}, ValueError, "stride must be at least 1"),
        ({"stride": (1, 2, 3)}, ValueError, r"stride takes an int or a pair \(vertical, horizontal\)"),
        ({"stride": 1.5}, TypeError, "stride must be an integer, got 1.5"),
        ({"dilation": (1, 0)}, ValueError, "dilation must be at least 1"),
        ({"padding": -1}, ValueError, "padding must not be negative"),
        ({"padding": "same"}, TypeError, "padding must be an integer, got 'same'"),
        ({"padding": 5}, ValueError, r"the output would have 0 x 0 cells \(input \(2, 4, 8, 8\), weight .*padding=5"),
        ({"output_padding": -1}, ValueError, "output_padding must not be negative"),
        (
            {"output_padding": 1},
            ValueError,
            "output_padding must be smaller than stride or dilation, got .*=1, stride=1",
        ),
        ({"output_padding": (1, 2), "stride": 2}, ValueError, r"output_padding=\(1, 2\), stride=2, dilation=1"),
        ({"weight": gpucnn.zeros(4, 6, 3, 3, dtype="float64")}, TypeError, "input has dtype float32, but weight has"),
        ({"input": np.zeros((2, 4, 8, 8))}, TypeError, "input must be a gpucnn.Tensor, got ndarray"),
    ],
)
def test_bad_arguments_are_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="conv_transpose2d: .*" + message):
        F.conv_transpose2d(**({"input": X, "weight": W} | changes))


# ----------------------------------------------------------------------------------- wrong kernels must be caught


def filters_turned(p: Conv2dProblem, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return reference.dgrad_im2col(p, x, np.ascontiguousarray(w[:, ::-1, ::-1]))


def last_row_unwritten(p: Conv2dProblem, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    y = reference.dgrad_im2col(p, x, w)
    y[:, -1] = np.nan
    return y


def first_channel_alone(p: Conv2dProblem, y: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return y + bias[0]


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        (conv2d.dgrad, filters_turned),
        (conv2d.dgrad, last_row_unwritten),
        (conv_transpose2d.add_bias, first_channel_alone),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_wrong_kernel_is_caught(table: Any, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(3, 4, 4, 4, 5, 3, 3, (2, 2), (1, 1), (1, 1))
    check_kernels(case, "float32", "integers")
    plant(monkeypatch, table, wrong)
    with pytest.raises(AssertionError, match=f"{table} planted float32: .* elements are wrong"):
        check_kernels(case, "float32", "integers")

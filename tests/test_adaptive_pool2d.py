"""Adaptive pooling: every kernel against the truth, both functions with gradients against PyTorch, corners."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from adaptive_pool2d_cases import EVEN, UNEVEN, Case, values
from op_checks import (
    LAYOUTS,
    NCHW,
    SEED,
    check_no_copies,
    check_threads,
    compare,
    draw,
    each_kernel,
    named,
    names,
    nhwc,
    plant,
)

import gpucnn
from gpucnn import functional as F
from gpucnn import nn
from gpucnn.ops import adaptive_pool2d as ops
from gpucnn.reference import adaptive_pool2d as reference
from gpucnn.reference.adaptive_pool2d import AdaptivePool2dProblem
from gpucnn.testing import assert_close, assert_equal, gradcheck, naive

# ------------------------------------------------------------------------------------------------------------ kernels


@functools.cache
def average_truth(case: Case) -> tuple[np.ndarray, ...]:
    """x, y, dy, dx."""
    N, C, H, W, P, Q = case
    x, dy = draw("normal", (N, C, H, W)), draw("normal", (N, C, P, Q), 1)
    return x, naive.adaptive_avg_pool2d(x, (P, Q)), dy, naive.adaptive_avg_pool2d_grad(dy, x.shape)


def problem(case: Case) -> AdaptivePool2dProblem:
    N, C, H, W, P, Q = case
    return AdaptivePool2dProblem(N, H, W, C, P, Q)


def check_average(case: Case, dtype: str) -> None:
    __tracebackhide__ = True
    x, y, dy, dx = average_truth(case)
    p, terms = problem(case), max(1, case[2] * case[3])
    for table, array, expected in ((ops.average_fprop, x, y), (ops.average_dgrad, dy, dx)):
        for name, found in each_kernel(table, p, nhwc(array, dtype)):
            assert (found.flags.c_contiguous, found.dtype) == (True, np.dtype(dtype)), name
            compare(found.transpose(NCHW), expected, terms, name)


@pytest.mark.parametrize("case", UNEVEN, ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_average_kernels(case: Case, dtype: str, block_bytes: int) -> None:
    check_average(case, dtype)


@functools.cache
def max_truth(case: Case, kind: str) -> tuple[np.ndarray, ...]:
    """x, y, indices, dy, dx."""
    N, C, H, W, P, Q = case
    x, dy = values(kind, (N, C, H, W)), draw("integers", (N, C, P, Q))
    y, indices = naive.adaptive_max_pool2d(x, (P, Q))
    return x, y, indices, dy, naive.max_pool2d_grad(dy, indices, x.shape)


def check_max(case: Case, kind: str, dtype: str) -> None:
    __tracebackhide__ = True
    x, y, indices, dy, dx = max_truth(case, kind)
    p = problem(case)
    for name, (found, places) in each_kernel(ops.max_fprop, p, nhwc(x, dtype)):
        assert found.flags.c_contiguous, name
        assert_equal(found.transpose(NCHW), y, dtype=dtype, signed_zeros=False, name=name)
        assert_equal(places.transpose(NCHW), indices, dtype=np.int64, name=f"{name}, indices")
    for name, found in each_kernel(ops.max_dgrad, p, nhwc(dy, dtype), nhwc(indices)):
        assert_equal(found.transpose(NCHW), dx, dtype=dtype, signed_zeros=False, name=name)


@pytest.mark.parametrize("case", UNEVEN, ids=str)
@pytest.mark.parametrize("kind", ["ties", "special"])
def test_max_kernels_are_exact(case: Case, kind: str, block_bytes: int) -> None:
    for dtype in ("float32", "float64", "float16"):
        check_max(case, kind, dtype)


def test_these_are_all_kernels() -> None:
    assert [names(t) for t in (ops.average_fprop, ops.average_dgrad, ops.max_fprop)] == [["separable"]] * 3
    assert names(ops.max_dgrad) == ["gather"]


@pytest.mark.usefixtures("many_blocks")
def test_the_number_of_threads_changes_no_bit() -> None:
    p = AdaptivePool2dProblem(3, 13, 11, 5, 6, 4)
    x, dy = (draw("normal", shape) for shape in ((3, 13, 11, 5), (3, 6, 4, 5)))

    def run() -> list[Any]:
        y, indices = reference.max_fprop(p, x)
        average = reference.average_fprop(p, x), reference.average_dgrad(p, dy)
        return [*average, y, indices, reference.max_dgrad(p, dy, indices)]

    check_threads(run)


# ----------------------------------------------------------------------------------------------------- against PyTorch


@pytest.mark.peers
@pytest.mark.parametrize("case", [case for case in UNEVEN + EVEN if case[0]], ids=str)
@pytest.mark.parametrize("kind", ["ties", "special"])
def test_adaptive_max_pool2d_is_pytorchs(case: Case, kind: str, torch: Any) -> None:
    x, dy, size = values(kind, case[:4]), draw("integers", (*case[:2], *case[4:])), case[4:]
    ours, theirs = gpucnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, indices = F.adaptive_max_pool2d(ours, size, return_indices=True)
    expected, places = torch.nn.functional.adaptive_max_pool2d(theirs, size, return_indices=True)
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    assert_equal(y, expected.detach(), signed_zeros=False, name="y")
    assert_equal(indices, places, name="indices")
    assert_equal(ours.grad, theirs.grad, signed_zeros=False, name="dx")
    assert_equal(F.adaptive_max_pool2d(gpucnn.tensor(x), size), y.numpy(), name="y without indices")


@pytest.mark.peers
@pytest.mark.parametrize("case", [case for case in UNEVEN + EVEN if case[0]], ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_adaptive_avg_pool2d_is_pytorchs(case: Case, dtype: str, torch: Any) -> None:
    x, dy = draw("normal", case[:4]), draw("normal", (*case[:2], *case[4:]), 1)
    ours = gpucnn.tensor(x, dtype, requires_grad=True)
    theirs = torch.tensor(x, dtype=getattr(torch, dtype), requires_grad=True)
    y = F.adaptive_avg_pool2d(ours, case[4:])
    expected = torch.nn.functional.adaptive_avg_pool2d(theirs, case[4:])
    y.backward(gpucnn.tensor(dy, dtype))
    expected.backward(torch.tensor(dy, dtype=expected.dtype))
    compare(y, expected.detach().double().numpy(), case[2] * case[3], "y")
    compare(ours.grad, theirs.grad.double().numpy(), case[2] * case[3], "dx")


@pytest.mark.peers
@pytest.mark.parametrize("size", [(3, 2), (5, 1), (1, 1)], ids=str)
def test_infinities_and_nan_reach_what_pytorchs_reach(size: tuple[int, int], torch: Any) -> None:
    x, dy = values("special", (2, 3, 5, 7)), values("special", (2, 3, *size))
    ours, theirs = gpucnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, expected = F.adaptive_avg_pool2d(ours, size), torch.nn.functional.adaptive_avg_pool2d(theirs, size)
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    assert_close(y, expected.detach(), rtol=1e-12, atol=1e-12, equal_nan=True, name="y")
    assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-12, equal_nan=True, name="dx")


# ------------------------------------------------------------------------------------------ sizes, gradients, layouts


@pytest.mark.parametrize("case", EVEN + UNEVEN[:3], ids=str)
def test_whole_windows_are_those_of_an_ordinary_pooling(case: Case) -> None:
    x, y, dy, dx = average_truth(case)
    leaf = gpucnn.tensor(x, requires_grad=True)
    found = F.adaptive_avg_pool2d(leaf, case[4:])
    found.backward(dy)
    compare(found, y, case[2] * case[3])
    compare(leaf.grad, dx, case[2] * case[3])
    x, y, indices, dy, dx = max_truth(case, "ties")
    leaf = gpucnn.tensor(x, requires_grad=True)
    found, places = F.adaptive_max_pool2d(leaf, case[4:], return_indices=True)
    found.backward(dy)
    assert_equal(found, y, signed_zeros=False)
    assert_equal(places, indices)
    assert_equal(leaf.grad, dx, signed_zeros=False)


@pytest.mark.parametrize(
    ("size", "outputs"),
    [
        (3, (3, 3)),
        ([2, 4], (2, 4)),
        ((None, 3), (5, 3)),
        ((2, None), (2, 7)),
        ((np.int64(2), True), (2, 1)),
    ],
    ids=str,
)
@pytest.mark.parametrize("pool", [F.adaptive_avg_pool2d, F.adaptive_max_pool2d])
def test_output_sizes(pool: Any, size: Any, outputs: tuple[int, int]) -> None:
    x = gpucnn.tensor(draw("integers", (2, 3, 5, 7)))
    y = pool(x, size)
    assert_equal(y, pool(x, outputs).numpy())
    assert y.shape == (2, 3, *outputs)
    assert_equal(pool(x[0], size), y.numpy()[0])


@pytest.mark.parametrize("size", [0, (0, 3), (3, 0), (5, 0)], ids=str)
@pytest.mark.parametrize("pool", [F.adaptive_avg_pool2d, F.adaptive_max_pool2d])
def test_no_outputs_at_all(pool: Any, size: Any) -> None:
    x = gpucnn.ones(2, 3, 5, 7, requires_grad=True)
    y = pool(x, size)
    assert y.numel() == 0
    y.backward(np.zeros(y.shape, np.float32))
    assert_equal(x.grad, np.zeros(x.shape, np.float32))


@pytest.mark.parametrize("size", [1, 2, (3, 2), (4, 4), (2, 7)], ids=str)
@pytest.mark.parametrize("pool", [F.adaptive_avg_pool2d, F.adaptive_max_pool2d])
def test_gradients_are_central_differences(pool: Any, size: Any) -> None:
    numbers = np.random.default_rng(SEED).permutation(2 * 2 * 4 * 5).reshape(2, 2, 4, 5) / 100  # none near another
    assert gradcheck(lambda x: pool(x, size), [gpucnn.tensor(numbers, requires_grad=True)])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("operand", ["x", "dy"])
def test_any_memory_layout_is_taken(operand: str, layout: str) -> None:
    case = UNEVEN[0]
    x, y, dy, dx = average_truth(case)
    x, dy = (LAYOUTS[layout](a) if name == operand else a.copy() for name, a in (("x", x), ("dy", dy)))
    leaf = gpucnn.Tensor(x, requires_grad=True)
    found = F.adaptive_avg_pool2d(leaf, case[4:])
    found.backward(dy)
    compare(found, y, 9)
    compare(leaf.grad, dx, 9)
    x, y, indices, dy, dx = max_truth(case, "ties")
    x, dy = (LAYOUTS[layout](a) if name == operand else a.copy() for name, a in (("x", x), ("dy", dy)))
    leaf = gpucnn.Tensor(x, requires_grad=True)
    found, places = F.adaptive_max_pool2d(leaf, case[4:], return_indices=True)
    found.backward(dy)
    assert_equal(found, y, signed_zeros=False)
    assert_equal(places, indices)
    assert_equal(leaf.grad, dx, signed_zeros=False)


@pytest.mark.parametrize("size", [1, (3, 2), (2, 3)], ids=str)
@pytest.mark.parametrize("pool", [F.adaptive_avg_pool2d, F.adaptive_max_pool2d])
def test_channels_last_stays_channels_last_without_a_copy(pool: Any, size: Any) -> None:
    check_no_copies(lambda x: pool(x, size), (2, 3, 4, 6))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("size", [1, 3], ids=str)
@pytest.mark.parametrize("pool", [F.adaptive_avg_pool2d, F.adaptive_max_pool2d])
def test_an_empty_batch(pool: Any, size: int, dtype: str) -> None:
    x = gpucnn.zeros(0, 3, 5, 7, dtype=dtype, requires_grad=True)
    y = pool(x, size)
    assert (y.shape, y.dtype) == ((0, 3, size, size), np.dtype(dtype))
    y.backward(np.zeros(y.shape, dtype))
    assert (x.grad.shape, x.grad.dtype) == (x.shape, np.dtype(dtype))


@pytest.mark.parametrize("size", [1, (3, 1)], ids=str)
def test_average_of_half_precision_is_summed_in_float32(size: Any) -> None:
    x = gpucnn.tensor(np.full((1, 1, 64, 64), 100), "float16")
    y = F.adaptive_avg_pool2d(x, size)
    assert_equal(y, np.full(y.shape, 100.0))  # the sum, 409,600 or a third of it, is no float16


@pytest.mark.parametrize(
    ("layer", "run"),
    [
        (nn.AdaptiveAvgPool2d(1), lambda x: F.adaptive_avg_pool2d(x, 1)),
        (nn.GlobalAvgPool2d(), lambda x: F.adaptive_avg_pool2d(x, 1)),
        (nn.AdaptiveMaxPool2d([2, 3]), lambda x: F.adaptive_max_pool2d(x, (2, 3))),
    ],
    ids=named,
)
def test_layers(layer: nn.Module, run: Any) -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 5, 7)))
    assert_equal(layer(x), run(x).numpy())
    assert list(layer.parameters()) == []


def test_the_layer_gives_its_indices() -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 5, 7)))
    for found, expected in zip(nn.AdaptiveMaxPool2d(3, True)(x), F.adaptive_max_pool2d(x, 3, True), strict=True):
        assert_equal(found, expected.numpy())
    assert repr(nn.AdaptiveMaxPool2d((3, None))) == "AdaptiveMaxPool2d(output_size=(3, None))"
    assert repr(nn.AdaptiveAvgPool2d(7)) == "AdaptiveAvgPool2d(output_size=7)"


@pytest.mark.parametrize(
    ("shape", "size", "error", "message"),
    [
        ((2, 3, 5, 7), -1, ValueError, "output_size must not be negative, got -1"),
        ((2, 3, 5, 7), (3,), ValueError, r"an int or a pair \(vertical, horizontal\), got \(3,\)"),
        ((2, 3, 5, 7), (3, 3, 3), ValueError, "an int or a pair"),
        ((2, 3, 5, 7), 2.0, TypeError, "output_size must be an integer, got 2.0"),
        ((2, 3, 5, 7), (2, 2.0), TypeError, "output_size must be an integer, got 2.0"),
        ((2, 3, 5, 7), None, TypeError, "output_size must be an integer, got None"),
        ((5, 7), 2, ValueError, r"input must have shape \(N, C, H, W\) or \(C, H, W\), got \(5, 7\)"),
        ((2, 3, 0, 7), 2, ValueError, r"image must not be empty, got input \(2, 3, 0, 7\)"),
    ],
    ids=str,
)
@pytest.mark.parametrize("op", ["adaptive_avg_pool2d", "adaptive_max_pool2d"])
def test_bad_arguments(op: str, shape: tuple[int, ...], size: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{op}: .*{message}"):
        getattr(F, op)(gpucnn.zeros(*shape), size)


@pytest.mark.parametrize("size", [1, 2], ids=str)
def test_without_channels_there_are_averages_but_no_maxima(size: int) -> None:
    """As in PyTorch."""
    x = gpucnn.zeros(2, 0, 4, 5, requires_grad=True)
    y = F.adaptive_avg_pool2d(x, size)
    assert y.shape == (2, 0, size, size)
    y.backward(np.zeros(y.shape, np.float32))
    assert x.grad.shape == x.shape
    with pytest.raises(ValueError, match=r"adaptive_max_pool2d: channels must not be empty, got input \(2, 0, 4, 5\)"):
        F.adaptive_max_pool2d(x, size)


@pytest.mark.parametrize("op", ["adaptive_avg_pool2d", "adaptive_max_pool2d"])
def test_what_is_no_floating_tensor(op: str) -> None:
    with pytest.raises(TypeError, match=f"{op}: input must have a floating dtype, got int64"):
        getattr(F, op)(gpucnn.tensor(np.ones((1, 1, 2, 2), np.int64)), 1)
    with pytest.raises(TypeError, match=f"{op}: input must be a gpucnn.Tensor, got ndarray"):
        getattr(F, op)(np.ones((1, 1, 2, 2)), 1)


# ------------------------------------------------------------------------------------- wrong kernels must be caught


def windows_of_one_size(p: AdaptivePool2dProblem, x: np.ndarray) -> np.ndarray:
    y = np.empty((p.N, p.P, p.Q, p.C), x.dtype)
    for a, b in np.ndindex(p.P, p.Q):
        rows, columns = slice(a * p.H // p.P, (a + 1) * p.H // p.P), slice(b * p.W // p.Q, (b + 1) * p.W // p.Q)
        y[:, a, b] = x[:, rows, columns].mean(axis=(1, 2))
    return y


def last_tie_wins(p: AdaptivePool2dProblem, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    turned = np.ascontiguousarray(x[:, ::-1, ::-1])
    y, indices = reference.max_fprop(p, turned)
    return y[:, ::-1, ::-1].copy(), (p.H * p.W - 1 - indices)[:, ::-1, ::-1]


def shared_cells_get_one_share(p: AdaptivePool2dProblem, dy: np.ndarray, indices: np.ndarray) -> np.ndarray:
    dx = np.zeros((p.N, p.H * p.W, p.C), dy.dtype)
    np.put_along_axis(dx, indices.reshape(p.N, -1, p.C), dy.reshape(p.N, -1, p.C), axis=1)
    return dx.reshape(p.N, p.H, p.W, p.C)


def not_divided(p: AdaptivePool2dProblem, dy: np.ndarray) -> np.ndarray:
    return reference.average_dgrad(p, dy) * dy.dtype.type(4)


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        (ops.average_fprop, windows_of_one_size),
        (ops.average_dgrad, not_divided),
        (ops.max_fprop, last_tie_wins),
        (ops.max_dgrad, shared_cells_get_one_share),
    ],
    ids=["windows-of-one-size", "not-divided", "last-tie-wins", "shared-cells-get-one-share"],
)
def test_a_wrong_kernel_is_caught(table: Any, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> None:
        check_average(UNEVEN[0], "float32")
        check_max(UNEVEN[0], "ties", "float32")

    check()
    plant(monkeypatch, table, wrong)
    with pytest.raises(AssertionError, match=f"{table} planted.* elements are wrong"):
        check()

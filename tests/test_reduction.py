"""Sums and means over axes: kernels against exact sums, tensors and gradients against PyTorch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, compare, draw, each_kernel, frozen, names, plant

import gpucnn
from gpucnn.ops import reduction
from gpucnn.testing import assert_close, assert_equal, gradcheck

AXES = [(), (0,), (1,), (3,), (0, 2, 3), (2, 3), (1, 3), (0, 1, 2, 3)]


def check_kernels(x: np.ndarray, axes: tuple[int, ...], dtype: str, layout: str) -> None:
    """sum and mean of float64 `x` (rounded to `dtype` already) laid out in memory as named."""
    __tracebackhide__ = True
    given = frozen(LAYOUTS[layout](x.astype(dtype)))
    terms = math.prod(x.shape[axis] for axis in axes)
    for keepdims in (False, True):
        total = x.sum(axis=axes, keepdims=keepdims, dtype=np.float64)
        for table, expected in ((reduction.sum_, total), (reduction.mean, total / terms)):
            for name, found in each_kernel(table, (axes, keepdims), given):
                assert isinstance(found, np.ndarray), name
                assert found.dtype == dtype, name
                compare(found, expected, terms, f"{name} {dtype}")


@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("layout", ["nhwc", "nchw", "strided", "reversed"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_every_kernel(axes: tuple[int, ...], layout: str, dtype: str) -> None:
    check_kernels(draw("normal", (3, 5, 7, 4)), axes, dtype, layout)


def test_these_are_all_kernels() -> None:
    assert names(reduction.sum_) == names(reduction.mean) == ["array"]


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("axes", [(0, 2, 3), (2, 3), (0, 1, 2, 3)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_long_sums_keep_their_digits(axes: tuple[int, ...], layout: str, dtype: str) -> None:
    """Equal addends of one sign, where the rounding errors of a running sum all point one way."""
    value = float(np.dtype(dtype).type(0.7))
    x = np.full((16, 3, 64, 64), value if dtype == "float32" else value / 64)
    check_kernels(x.astype(dtype).astype(np.float64), axes, dtype, layout)


@pytest.mark.peers
@pytest.mark.parametrize("dim", [None, 0, -1, (0, 2), (1, -1), (0, 1, 2, 3)], ids=str)
@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("name", ["sum", "mean"])
def test_values_and_gradients_are_pytorchs(name: str, dim: Any, keepdim: bool, torch: Any) -> None:
    x = draw("normal", (2, 3, 4, 5))
    ours, theirs = gpucnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, expected = getattr(ours, name)(dim, keepdim), getattr(theirs, name)(dim, keepdim)
    assert y.shape == tuple(expected.shape)
    dy = draw("normal", y.shape, 1)
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    assert_close(y, expected.detach(), rtol=1e-13, atol=1e-13)
    assert_close(ours.grad, theirs.grad, rtol=1e-13, atol=1e-13)


def test_gradients_are_central_differences() -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 2, 3)), requires_grad=True)
    assert gradcheck(lambda t: t.sum((0, 3)) * t.mean((1, 2)).sum(), [x])


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_integers_are_summed_in_64_bits(dtype: str) -> None:
    total = gpucnn.tensor(np.ones(300), dtype).sum()
    assert (total.item(), total.dtype.itemsize) == (300, 8)


def test_nothing_sums_to_zero_and_has_no_mean() -> None:
    x = gpucnn.zeros(0, 3, requires_grad=True)
    assert_equal(x.sum(0), np.zeros(3, np.float32))
    assert_equal(x.mean(0), np.full(3, math.nan, np.float32))
    x.mean(0).backward(np.ones(3, np.float32))
    assert x.grad.shape == (0, 3)
    assert gpucnn.tensor(2.0).sum().item() == gpucnn.tensor(2.0).mean().item() == 2


def test_infinities_cancel_without_a_warning() -> None:
    x = gpucnn.tensor([[math.inf, -math.inf], [math.inf, 1.0]], requires_grad=True)
    assert_equal(x.sum(1), np.array([math.nan, math.inf], np.float32))
    assert_equal(x.mean(1), np.array([math.nan, math.inf], np.float32))
    y = gpucnn.tensor(np.full(8, 60_000), "float16")
    assert (y.sum().item(), y.mean().item()) == (math.inf, 60_000)


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        (reduction.sum_, lambda p, x: x[1:].sum(axis=p[0], keepdims=p[1], dtype=x.dtype)),
        (reduction.mean, lambda p, x: x.sum(axis=p[0], keepdims=p[1]) / x.dtype.type(x.shape[0])),
    ],
    ids=["first-row-missing", "one-axis-counted"],
)
def test_a_wrong_kernel_is_caught(table: Any, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, table, wrong)
    with pytest.raises(AssertionError, match=f"{table} planted float32: .* elements are wrong"):
        check_kernels(draw("normal", (3, 5, 7, 4)), (0, 2, 3), "float32", "nhwc")

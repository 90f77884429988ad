"""Softmax and its logarithm: every kernel against the truth, F.* and gradients against PyTorch, corners."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, NHWC, check_threads, draw, each_kernel, frozen, names, plant
from pointwise_checks import EPS, INF, NAN, check

import gpucnn
from gpucnn import backend, nn
from gpucnn import functional as F
from gpucnn.ops import softmax as ops
from gpucnn.testing import assert_close, assert_equal, gradcheck, naive

TABLES = {
    "softmax": (ops.softmax, ops.softmax_grad, naive.softmax, naive.softmax_grad),
    "log_softmax": (ops.log_softmax, ops.log_softmax_grad, naive.log_softmax, naive.log_softmax_grad),
}


def check_kernels(name: str, dtype: str, shape: tuple[int, ...] = (6, 3, 40)) -> None:
    """Rows of usual numbers, wide ones, and ones whose exponentials overflow."""
    __tracebackhide__ = True
    forward, backward, truth_of, gradient_of = TABLES[name]
    spread = np.array([1, 30, 1000]) if dtype != "float16" else np.array([1, 30, 300])
    x = (draw("normal", shape) * spread[:, None]).astype(np.float16).astype(np.float64)
    dy, truth = draw("normal", shape, 1), truth_of(x)
    gradient = gradient_of(dy, x)
    for kernel, y in each_kernel(forward, None, frozen(x, dtype)):
        check(y, truth, dtype, f"{kernel} {dtype}", 16)
        for grad_name, dx in each_kernel(backward, None, frozen(dy, dtype), frozen(truth, dtype)):
            check(dx, gradient, dtype, f"{grad_name} {dtype}", 64)


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("name", TABLES)
def test_every_kernel(name: str, dtype: str, block_bytes: int) -> None:
    check_kernels(name, dtype)
    check_kernels(name, dtype, (2, 3, 1))


def test_these_are_all_kernels() -> None:
    for row in TABLES.values():
        for table in row[:2]:
            assert names(table) == ["array"]
            assert [spec.name for spec in table.specs("cuda")] == ["rows"]


@pytest.mark.usefixtures("many_blocks")
def test_the_number_of_threads_changes_no_bit() -> None:
    x = draw("normal", (500, 10)).astype(np.float32)
    check_threads(lambda: [ops.log_softmax(None, x, like=x)])


@pytest.mark.peers
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin"])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_functions_are_pytorchs(name: str, dim: int, torch: Any) -> None:
    x = draw("normal", (3, 4, 5)) * 100
    x[0, 0, 0], x[1, 1, 1], x[2, :, 2], x[:, 3, 3] = -INF, NAN, -INF, INF
    ours, theirs = gpucnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, expected = getattr(F, name)(ours, dim), getattr(torch.nn.functional, name)(theirs, dim)
    dy = draw("normal", x.shape, 1)
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    assert_close(y, expected.detach(), rtol=1e-12, atol=1e-15, equal_nan=True, name="y")
    assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-12, equal_nan=True, name="gradient")


@pytest.mark.peers
@pytest.mark.parametrize("shape", [(), (4,), (3, 4), (2, 3, 4), (2, 3, 4, 5), (0, 3), (3, 0)], ids=str)
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin"])
def test_the_axis_that_is_not_named_is_pytorchs(name: str, shape: tuple[int, ...], torch: Any) -> None:
    x = draw("normal", shape)
    with pytest.warns(UserWarning, match=f"^{name}: dim was not given, [01] is used"):
        y = getattr(F, name)(gpucnn.tensor(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = getattr(torch.nn.functional, name)(torch.tensor(x))
    assert_close(y, expected, rtol=1e-13, atol=1e-15)


def test_a_number_alone_is_certain() -> None:
    x = gpucnn.tensor(3.0, requires_grad=True)
    y = F.softmax(x, 0)
    y.backward()
    assert (y.shape, y.item(), x.grad.item()) == ((), 1.0, 0.0)
    assert F.log_softmax(x, -1).item() == 0.0
    with pytest.raises(ValueError, match="axis 1 is out of range for 1 axes"):
        F.softmax(x, 1)


def test_dtype_is_what_is_computed_in() -> None:
    x = gpucnn.tensor([[1.0, 2.0], [30.0, 3.0]], "float16", requires_grad=True)
    y = F.log_softmax(x, 1, dtype="float64")
    y.sum().backward()
    assert (y.dtype, x.grad.dtype) == (np.float64, np.float16)
    assert_close(y, naive.log_softmax(x.numpy().astype(np.float64)), rtol=1e-14, atol=1e-15)
    assert_close(F.softmax(gpucnn.tensor([1, 2]), 0, dtype="float32"), naive.softmax([1, 2]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dim", [0, 1, 3])
def test_any_memory_layout_is_taken(layout: str, dim: int) -> None:
    x, dy = draw("normal", (2, 3, 4, 5)), draw("normal", (2, 3, 4, 5), 1)
    for name, (_, _, truth_of, gradient_of) in TABLES.items():
        leaf = gpucnn.Tensor(LAYOUTS[layout](x), requires_grad=True)
        y = getattr(F, name)(leaf, dim)
        y.backward(LAYOUTS[layout](dy))
        assert_close(y, truth_of(x, dim), rtol=1e-13, atol=1e-15)
        assert_close(leaf.grad, gradient_of(dy, x, dim), rtol=1e-12, atol=1e-14)


def test_softmax_of_channels_copies_nothing() -> None:
    x = gpucnn.tensor(draw("normal", (2, 5, 3, 4)), requires_grad=True)
    with backend.count_layout_copies() as copies:
        y = F.softmax(F.log_softmax(x, 1), 1)
        y.backward(y.detach())
    assert copies.value == 0
    assert all(t.data.transpose(NHWC).flags.c_contiguous for t in (y, x.grad))


def test_gradients_are_central_differences() -> None:
    x = gpucnn.tensor(draw("normal", (3, 5, 4)), requires_grad=True)
    assert gradcheck(lambda z: F.softmax(z, 1) * F.log_softmax(z, 0) + F.softmin(z, 2), [x])


def test_layers() -> None:
    x = gpucnn.tensor(draw("normal", (2, 5, 3, 4)))
    assert_equal(nn.Softmax(1)(x), F.softmax(x, 1))
    assert_equal(nn.Softmin(2)(x), F.softmin(x, 2))
    assert_equal(nn.LogSoftmax(0)(x), F.log_softmax(x, 0))
    assert_equal(nn.Softmax2d()(x), F.softmax(x, 1))
    assert_equal(nn.Softmax2d()(x[0]), F.softmax(x[0], 0))
    with pytest.raises(ValueError, match=r"Softmax2d: input must have shape \(N,C,H,W\) or \(C,H,W\), got \(5, 3\)"):
        nn.Softmax2d()(x[0, :, :, 0])


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin"])
def test_bad_input_is_refused(name: str) -> None:
    function = getattr(F, name)
    with pytest.raises(ValueError, match="axis 2 is out of range for 2 axes"):
        function(gpucnn.zeros(2, 5), 2)
    with pytest.raises(TypeError, match=f"^{name}: input must have a floating dtype, got int64"):
        function(gpucnn.tensor([1, 2]), 0)
    with pytest.raises(TypeError, match=f"^{name}: input must be a gpucnn.Tensor, got list"):
        function([1.0, 2.0], 0)


@pytest.mark.parametrize(
    ("name", "place", "wrong"),
    [
        ("softmax", 0, lambda p, x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
        ("softmax", 1, lambda p, dy, y: y * dy),
        ("log_softmax", 0, lambda p, x: x - np.log(np.exp(x).sum(-1, keepdims=True))),
        ("log_softmax", 1, lambda p, dy, y: dy - np.exp(y) * dy.mean(-1, keepdims=True)),
    ],
)
def test_a_wrong_kernel_is_caught(name: str, place: int, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    table = TABLES[name][place]
    plant(monkeypatch, table, wrong)
    with np.errstate(all="ignore"), pytest.raises(AssertionError, match=f"{table} planted .* elements are wrong"):
        check_kernels(name, "float32")

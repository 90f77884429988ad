"""F.local_response_norm: every kernel against the truth, PyTorch, windows wider than the channels, refusals."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from norm_checks import DTYPES, near, rms
from op_checks import LAYOUTS, NHWC, draw, each_kernel, frozen, plant

import gpucnn
from gpucnn import backend
from gpucnn import functional as F
from gpucnn.ops import norm as ops
from gpucnn.reference import local_response_norm as reference
from gpucnn.reference.local_response_norm import LocalResponseProblem
from gpucnn.testing import assert_close, assert_equal, gradcheck, naive

SHAPES = [(2, 7, 3, 2), (3, 1, 2, 2), (2, 96, 3, 3), (2, 6, 5), (2, 4, 2, 2, 2)]
SIZES = [1, 2, 3, 4, 5, 20]
STRONG = {"alpha": 0.7, "beta": 0.75, "k": 2.0}
ids = {"ids": lambda value: str(value)}


@functools.cache
def truth(shape: tuple[int, ...], size: int, alpha: float, beta: float, k: float) -> tuple[np.ndarray, ...]:
    """x, dy, y, dx."""
    x, dy = draw("normal", shape) * 2, draw("normal", shape, 1)
    y = naive.local_response_norm(x, size, alpha, beta, k)
    return x, dy, y, naive.local_response_norm_grad(dy, x, size, alpha, beta, k)


def check(shape: tuple[int, ...], size: int, dtype: str, **options: float) -> None:
    __tracebackhide__ = True
    x, dy, y, dx = (array.transpose(NHWC).reshape(-1, shape[1]) for array in truth(shape, size, **options))
    p = LocalResponseProblem(size, **options)
    for name, found in each_kernel(ops.local_fprop, p, frozen(x, dtype)):
        assert found.dtype == dtype
        near(found, y, size, name=name)
    for name, found in each_kernel(ops.local_dgrad, p, frozen(dy, dtype), frozen(x, dtype)):
        assert found.dtype == dtype
        near(found, dx, size, 2 * rms(dy), name=name)


@pytest.mark.parametrize("shape", [s for s in SHAPES if len(s) == 4], **ids)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_kernel(shape: tuple[int, ...], size: int, dtype: str) -> None:
    check(shape, size, dtype, **STRONG)


@pytest.mark.parametrize(
    "options",
    [{"alpha": 1e-4, "beta": 0.75, "k": 1.0}, {"alpha": 2.0, "beta": 0.5, "k": 0.5}, {"alpha": 1, "beta": -1, "k": 3}],
    ids=["default", "root", "negative power"],
)
def test_other_numbers(options: dict[str, float], block_bytes: int) -> None:
    check((2, 7, 3, 2), 5, "float32", **options)


@pytest.mark.parametrize("shape", SHAPES, **ids)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_shape_and_memory_layout(shape: tuple[int, ...], layout: str) -> None:
    x, dy, y, dx = truth(shape, 3, **STRONG)
    leaf = gpucnn.Tensor(LAYOUTS[layout](x.astype(np.float32)), requires_grad=True)
    found = F.local_response_norm(leaf, 3, **STRONG)
    found.backward(LAYOUTS[layout](dy.astype(np.float32)))
    near(found, y, 3)
    near(leaf.grad, dx, 3, 2 * rms(dy))


def test_numbers_that_come_out_exactly() -> None:
    """Sums of squares 3, 5, 3 over windows of 3; with k = 1 and beta = 1 everything is a fraction of few digits."""
    x = np.array([1.0, 1.0, 1.0, 1.0]).reshape(1, 4, 1)
    y = F.local_response_norm(gpucnn.tensor(x, "float64"), 2, alpha=2.0, beta=1.0, k=0.0)
    assert_equal(y, np.array([1.0, 0.5, 0.5, 0.5]).reshape(1, 4, 1))  # a window of 2 looks one channel ahead
    y = F.local_response_norm(gpucnn.tensor(x, "float64"), 3, alpha=3.0, beta=2.0, k=2.0)
    assert_equal(y, np.array([1 / 16, 1 / 25, 1 / 25, 1 / 16]).reshape(1, 4, 1))


def test_gradients_are_central_differences() -> None:
    for shape in ((2, 7, 3, 2), (2, 6, 5)):
        x = gpucnn.tensor(truth(shape, 3, **STRONG)[0], requires_grad=True)
        for size in (1, 2, 5, 20):
            assert gradcheck(lambda x, size=size: F.local_response_norm(x, size, **STRONG), [x])


def test_half_precision_squares_in_float32() -> None:
    x = gpucnn.tensor(np.full((1, 3, 1, 1), 1000.0), "float16")
    y = F.local_response_norm(x, 3, alpha=1e-4)
    assert_close(y, naive.local_response_norm(x.numpy(), 3), rtol=2e-3, atol=0)


def test_corners() -> None:
    nothing = gpucnn.zeros(0, 3, 2, 2, requires_grad=True)
    y = F.local_response_norm(nothing, 3)
    y.backward(np.zeros(y.shape, np.float32))
    assert (y.shape, nothing.grad.shape) == ((0, 3, 2, 2), (0, 3, 2, 2))
    assert np.isnan(F.local_response_norm(gpucnn.zeros(1, 3, 1), 3, k=0.0).numpy()).all()  # 0 / 0
    x = gpucnn.tensor(truth((2, 7, 3, 2), 3, **STRONG)[0])
    wide, wider = (F.local_response_norm(x, size, alpha=0.5 * size) for size in (13, 2**40))
    assert_close(wider, wide.numpy(), rtol=1e-12, atol=0)
    special = gpucnn.tensor(np.array([np.inf, 1, 1, 1, np.nan]).reshape(1, 5, 1), "float32")
    y = F.local_response_norm(special, 3, alpha=1.0).numpy().reshape(-1)
    assert np.isnan(y).tolist() == [True, False, False, True, True]
    assert y[1] == 0


def test_channels_last_stays_channels_last_without_a_copy() -> None:
    x = gpucnn.tensor(truth((2, 7, 3, 2), 3, **STRONG)[0], requires_grad=True)
    with backend.count_layout_copies() as copies:
        y = F.local_response_norm(x, 3)
        y.backward(y.detach())
    assert copies.value == 0
    assert y.data.strides == x.grad.data.strides == x.data.strides


@pytest.mark.peers
@pytest.mark.parametrize("shape", SHAPES, **ids)
@pytest.mark.parametrize("size", SIZES)
def test_pytorch_agrees(shape: tuple[int, ...], size: int, torch: Any) -> None:
    x, dy, _, _ = truth(shape, 3, **STRONG)
    leaf, mine = torch.tensor(x, requires_grad=True), gpucnn.tensor(x, requires_grad=True)
    y, z = (
        torch.nn.functional.local_response_norm(leaf, size, 0.6, 0.8, 1.5),
        F.local_response_norm(mine, size, 0.6, 0.8, 1.5),
    )
    y.backward(torch.tensor(dy))
    z.backward(dy)
    assert_close(z, y.detach().numpy(), rtol=1e-12, atol=1e-12)
    assert_close(mine.grad, leaf.grad.numpy(), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((gpucnn.ones(2, 6), 3), ValueError, r"input must have 3 axes or more, \(N, C, ...\), got \(2, 6\)"),
        ((gpucnn.ones(2, 6, 3), 0), ValueError, "size must be at least 1, got 0"),
        ((gpucnn.ones(2, 6, 3), -1), ValueError, "size must be at least 1"),
        ((gpucnn.ones(2, 6, 3), 3.0), TypeError, "size must be an integer, got 3.0"),
        ((gpucnn.ones(2, 6, 3), 3, "much"), TypeError, "alpha must be a number, got 'much'"),
        ((gpucnn.ones(2, 6, 3), 3, 1.0, None), TypeError, "beta must be a number"),
        ((gpucnn.tensor([[[1]]]), 3), TypeError, "input must have a floating dtype"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"local_response_norm: {message}"):
        F.local_response_norm(*arguments)


def window_mirrored(p: LocalResponseProblem, x: np.ndarray) -> np.ndarray:
    return reference.fprop(p, np.ascontiguousarray(x[:, ::-1]))[:, ::-1]


def alpha_not_divided(p: LocalResponseProblem, x: np.ndarray) -> np.ndarray:
    return reference.fprop(LocalResponseProblem(p.size, p.alpha * p.size, p.beta, p.k), x)


def own_channel_alone(p: LocalResponseProblem, dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    return (dy / reference._base(p, x) ** p.beta).astype(x.dtype)


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        (ops.local_fprop, window_mirrored),
        (ops.local_fprop, alpha_not_divided),
        (ops.local_dgrad, own_channel_alone),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_kernel_is_caught(table: Any, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, table, wrong)
    with pytest.raises(AssertionError, match=f"{table} planted.* elements are wrong"):
        check((2, 7, 3, 2), 4, "float32", **STRONG)

"""Power-average pooling: every kernel against the truth, F.lp_pool2d with gradients against PyTorch, corners."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
from op_checks import (
    LAYOUTS,
    NCHW,
    SEED,
    check_no_copies,
    check_threads,
    compare,
    draw,
    each_kernel,
    frozen,
    names,
    nhwc,
    plant,
)

import gpucnn
from gpucnn import functional as F
from gpucnn import nn
from gpucnn.ops import pool2d as ops
from gpucnn.problem import pool2d_problem
from gpucnn.reference import lp_pool2d as reference
from gpucnn.reference.lp_pool2d import LpPool2dProblem
from gpucnn.testing import assert_close, assert_equal, gradcheck, naive

INF = math.inf
NORMS = [1, 2, 3, 1.5, 0.5, -1, -2.5]
WINDOWS: list[tuple[Any, ...]] = [
    ((2, 3, 6, 8), 2, None, False),
    ((2, 3, 7, 9), (3, 2), (2, 1), False),
    ((1, 2, 7, 6), 2, 2, True),  # windows cut short at the bottom
    ((2, 2, 8, 7), (3, 4), (2, 3), True),
    ((1, 5, 9, 8), 2, 3, False),  # rows and columns that no window sees
    ((0, 3, 4, 4), 2, None, False),
    ((1, 33, 4, 3), (4, 3), None, False),
]


def images(norm: float, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of which powers and roots are real; and where the power grows at 0 some zeros, whole windows of them."""
    x = draw("normal", shape)
    if norm not in (1, 2):
        x = np.abs(x) + (0.25 if norm < 1 else 0)
    if norm >= 1:
        x[..., :5, :4] = 0
    return x


@functools.cache
def truth(norm: float, windows: tuple[Any, ...]) -> tuple[np.ndarray, ...]:
    """x, y, dy, dx."""
    shape, kernel, stride, ceil_mode = windows
    x = images(norm, shape)
    y = naive.lp_pool2d(x, norm, kernel, stride, ceil_mode)
    dy = draw("normal", y.shape, 1)
    return x, y, dy, naive.lp_pool2d_grad(dy, x, norm, kernel, stride)


def problem(norm: float, windows: tuple[Any, ...]) -> LpPool2dProblem:
    shape, kernel, stride, ceil_mode = windows
    return LpPool2dProblem(pool2d_problem("lp_pool2d", shape, kernel, stride, 0, 1, ceil_mode), norm)


def check(norm: float, windows: tuple[Any, ...], dtype: str) -> None:
    __tracebackhide__ = True
    x, y, dy, dx = truth(norm, windows)
    p = problem(norm, windows)
    terms = 16 * p.windows.R * p.windows.S  # powers and roots round as well
    given, gradient = nhwc(x, dtype), nhwc(dy, dtype)
    for name, (found, sums) in each_kernel(ops.lp_fprop, p, given):
        assert (found.flags.c_contiguous, found.dtype) == (True, np.dtype(dtype)), name
        compare(found.transpose(NCHW), y, terms, name)
        for grad_name, dx_found in each_kernel(ops.lp_dgrad, p, gradient, given, frozen(sums)):
            assert (dx_found.flags.c_contiguous, dx_found.dtype) == (True, np.dtype(dtype)), grad_name
            compare(dx_found.transpose(NCHW), dx, terms, grad_name)


@pytest.mark.parametrize("windows", WINDOWS, ids=str)
@pytest.mark.parametrize("norm", NORMS)
def test_kernels_of_a_finite_power(norm: float, windows: tuple[Any, ...], block_bytes: int) -> None:
    for dtype in ("float64", "float32", "float16"):
        check(norm, windows, dtype)


@pytest.mark.parametrize("windows", WINDOWS, ids=str)
@pytest.mark.parametrize("norm", [INF, -INF])
def test_kernels_of_infinite_powers_are_exact(norm: float, windows: tuple[Any, ...]) -> None:
    shape, kernel, stride, ceil_mode = windows
    x = draw("integers", shape)
    y = naive.lp_pool2d(x, norm, kernel, stride, ceil_mode)
    for dtype in ("float64", "float32", "float16"):
        for name, (found, _) in each_kernel(ops.lp_fprop, problem(norm, windows), nhwc(x, dtype)):
            assert_equal(found.transpose(NCHW), y, dtype=dtype, signed_zeros=False, name=name)


def test_these_are_all_kernels() -> None:
    assert [names(table) for table in (ops.lp_fprop, ops.lp_dgrad)] == [["powers", "magnitudes"]] * 2
    powers, magnitudes = ops.lp_fprop.specs("reference")
    assert powers.supports(problem(INF, WINDOWS[0])) == "needs a finite norm_type, got inf"
    assert magnitudes.supports(problem(2, WINDOWS[0])) == "needs an infinite norm_type, got 2"


@pytest.mark.parametrize("norm", [2.0, 3.0, INF])
@pytest.mark.usefixtures("many_blocks")
def test_the_number_of_threads_changes_no_bit(norm: float) -> None:
    p = problem(norm, ((5, 3, 7, 6), 3, 2, True))
    x, dy = nhwc(draw("normal", (5, 3, 7, 6))), nhwc(draw("normal", (5, 3, 3, 3)))

    def run() -> list[Any]:
        y, saved = ops.lp_fprop(p, x, like=x)
        return [y, ops.lp_dgrad(p, dy, x, saved, like=x)]

    check_threads(run)


# ----------------------------------------------------------------------------------------------------- against PyTorch


@pytest.mark.peers
@pytest.mark.parametrize("windows", [windows for windows in WINDOWS if windows[0][0]], ids=str)
@pytest.mark.parametrize("norm", [*NORMS, INF, -INF, -1.5])
@pytest.mark.parametrize("kind", ["fitting", "signed", "zeros"])
def test_lp_pool2d_is_pytorchs(norm: float, kind: str, windows: tuple[Any, ...], torch: Any) -> None:
    """Also where powers are infinite or no numbers."""
    shape, *arguments = windows
    x = {"fitting": images, "signed": lambda _, s: draw("normal", s), "zeros": lambda _, s: draw("integers", s) // 3}
    image = x[kind](norm, shape)
    ours, theirs = gpucnn.tensor(image, requires_grad=True), torch.tensor(image, requires_grad=True)
    y = F.lp_pool2d(ours, norm, *arguments)
    expected = torch.nn.functional.lp_pool2d(theirs, norm, *arguments)
    dy = draw("normal", y.shape)
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    close = functools.partial(assert_close, rtol=1e-10, atol=1e-10, equal_nan=True)
    close(y, expected.detach(), name="y")
    close(ours.grad, theirs.grad, name="dx")


# ----------------------------------------------------------------------------------------- gradients, layouts, corners


@pytest.mark.parametrize("norm", [1, 2, 3, 2.5, -1, INF, -INF])
@pytest.mark.parametrize(("kernel", "stride", "ceil_mode"), [(2, None, False), ((3, 2), (2, 1), True)])
def test_gradients_are_central_differences(norm: float, kernel: Any, stride: Any, ceil_mode: bool) -> None:
    numbers = (np.random.default_rng(SEED).permutation(2 * 2 * 5 * 4).reshape(2, 2, 5, 4) + 40) / 40
    assert gradcheck(
        lambda x: F.lp_pool2d(x, norm, kernel, stride, ceil_mode), [gpucnn.tensor(numbers, requires_grad=True)]
    )


def test_a_window_of_zeros_hands_on_no_gradient() -> None:
    x = gpucnn.zeros(1, 1, 2, 4, requires_grad=True)
    y = F.lp_pool2d(x, 2, 2)
    y.backward(np.full(y.shape, INF, np.float32))
    assert_equal(x.grad, np.zeros(x.shape))


def test_half_precision_keeps_its_powers_in_float32() -> None:
    x = gpucnn.tensor(np.full((1, 1, 8, 8), 300.0), "float16", requires_grad=True)
    y = F.lp_pool2d(x, 2, 8)
    assert y.item() == 2400  # 300**2 is no float16
    y.backward()
    assert_equal(x.grad, np.full(x.shape, 0.125))


@pytest.mark.parametrize("norm", [2, INF])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("operand", ["x", "dy"])
def test_any_memory_layout_is_taken(operand: str, layout: str, norm: float) -> None:
    x, dy = draw("normal", (2, 3, 6, 8)), draw("normal", (2, 3, 3, 4), 1)
    plain = gpucnn.tensor(x, requires_grad=True)
    expected = F.lp_pool2d(plain, norm, 2)
    expected.backward(dy)
    x, dy = (LAYOUTS[layout](a) if name == operand else a for name, a in (("x", x), ("dy", dy)))
    leaf = gpucnn.Tensor(x, requires_grad=True)
    found = F.lp_pool2d(leaf, norm, 2)
    found.backward(dy)
    assert_equal(found, expected.numpy())
    assert_equal(leaf.grad, plain.grad.numpy())


@pytest.mark.parametrize("norm", [2, 3, INF, -INF])
def test_channels_last_stays_channels_last_without_a_copy(norm: float) -> None:
    check_no_copies(lambda x: F.lp_pool2d(x, norm, 3, 2, True), (2, 3, 6, 8))


def test_an_unbatched_image_and_an_empty_batch() -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 6, 8)), requires_grad=True)
    assert_equal(F.lp_pool2d(x[0], 2, 2), F.lp_pool2d(x, 2, 2).numpy()[0])
    for norm in (2, INF):
        none = F.lp_pool2d(x[:0], norm, 2)
        assert none.shape == (0, 3, 3, 4)
        none.backward(np.zeros(none.shape))
    assert_equal(x.grad, np.zeros(x.shape))


def test_the_layer() -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 6, 8)))
    assert_equal(nn.LPPool2d(2, 3)(x), F.lp_pool2d(x, 2, 3).numpy())
    layer = nn.LPPool2d(4, (3, 2), stride=(2, 1), ceil_mode=True)
    assert_equal(layer(x), F.lp_pool2d(x, 4, (3, 2), (2, 1), True).numpy())
    assert repr(layer) == "LPPool2d(norm_type=4, kernel_size=(3, 2), stride=(2, 1), ceil_mode=True)"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 2), ValueError, "norm_type must be a number other than 0, got 0"),
        ((math.nan, 2), ValueError, "norm_type must be a number other than 0, got nan"),
        (("2", 2), TypeError, "norm_type must be a number, got '2'"),
        ((None, 2), TypeError, "norm_type must be a number, got None"),
        ((2, 0), ValueError, "kernel_size must be at least 1, got 0"),
        ((2, 2, 0), ValueError, "stride must be at least 1, got 0"),
        ((2, 9), ValueError, "a window of 9 x 9 is larger than the padded input 4 x 6"),
        ((2, {2}), TypeError, "kernel_size takes an int or a tuple of ints, got \\{2\\}"),
    ],
    ids=str,
)
def test_bad_arguments(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^lp_pool2d: .*{message}"):
        F.lp_pool2d(gpucnn.zeros(2, 3, 4, 6), *arguments)


# ------------------------------------------------------------------------------------- wrong kernels must be caught


def mean_for_sum(p: LpPool2dProblem, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, sums = reference.lp_fprop(p, x)
    cells = p.windows.R * p.windows.S
    return y / x.dtype.type(cells ** (1 / p.norm_type)), sums


def cut_windows_not_scaled(p: LpPool2dProblem, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, sums = reference.lp_fprop(p, x)
    y[:, -1] *= x.dtype.type((p.windows.H % 2 or 2) / 2) ** x.dtype.type(1 / p.norm_type)
    return y, sums


def absolute_values(p: LpPool2dProblem, dy: np.ndarray, x: np.ndarray, sums: np.ndarray) -> np.ndarray:
    return reference.lp_dgrad(p, dy, abs(x), sums)


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        (ops.lp_fprop, mean_for_sum),
        (ops.lp_fprop, cut_windows_not_scaled),
        (ops.lp_dgrad, absolute_values),
    ],
    ids=["mean-for-sum", "cut-windows-not-scaled", "absolute-values"],
)
def test_a_wrong_kernel_is_caught(table: Any, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = ((1, 2, 7, 6), 2, 2, True)
    check(2, windows, "float32")
    plant(monkeypatch, table, wrong)
    with pytest.raises(AssertionError, match=f"{table} planted.* elements are wrong"):
        check(2, windows, "float32")

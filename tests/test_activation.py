"""Smooth activations beyond what all have in common: digits in tails, huge numbers, the normal distribution, GLU."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from activation_cases import SMOOTH
from op_checks import check_threads, draw, each_kernel, frozen, names
from pointwise_checks import EPS, INF, NAN, Case, check, check_nothing_is_copied, values

import gpucnn
from gpucnn import functional as F
from gpucnn.ops import activation as ops
from gpucnn.reference.special import normal_tail
from gpucnn.testing import assert_close, assert_equal, gradcheck, naive

# -------------------------------------------------------------------------------------- digits in tails, large arrays


TAILS = {  # where a function of tiny or huge results keeps its relative accuracy
    "sigmoid": np.linspace(-80, 80, 61),
    "logsigmoid": np.linspace(-80, 80, 61),
    "softplus": np.linspace(-80, 80, 61),
    "silu": np.linspace(-80, 80, 61),
    "mish": np.linspace(-40, 40, 61),
    "tanh": np.array([1e-30, -1e-30, 1e-8, 1e-3]),
    "softsign": np.array([1e-30, -1e-8, 1e3, 1e30]),
    "hardswish": np.array([1e-30, -1e-8, 3e38, -3e38]),
}


@pytest.mark.parametrize("name", TAILS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_tails_keep_their_digits(name: str, dtype: str) -> None:
    x = TAILS[name].astype(dtype)
    truth = SMOOTH[name].truth(x)
    for kernel, found in each_kernel(SMOOTH[name].forward, SMOOTH[name].problem, frozen(x)):
        assert_close(found, truth, rtol=16 * EPS[dtype], atol=0, dtype=dtype, name=kernel)


@pytest.mark.parametrize("name", SMOOTH)
def test_huge_numbers_overflow_nowhere(name: str) -> None:
    """Where the truth is finite so are function and gradient, of the largest numbers that the dtype has."""
    case = SMOOTH[name]
    for dtype in ("float64", "float32"):
        largest = float(np.finfo(dtype).max)
        x = np.array([1e4, -1e4, 1e15, -1e15, largest, -largest]).astype(dtype)
        expected = case.truth(x)
        with np.errstate(all="ignore"):
            for kernel, found in each_kernel(case.forward, case.problem, frozen(x)):
                check(found, expected, dtype, kernel, 4)
                saved = frozen(found if case.saves_output else x)
                for grad_name, dx in each_kernel(case.backward, case.problem, frozen(np.ones_like(x)), saved):
                    check(dx, case.truth_grad(np.ones(6), x), dtype, grad_name, 16)


@pytest.mark.usefixtures("many_blocks")
def test_the_number_of_threads_changes_no_bit() -> None:
    x = draw("normal", (300, 101)).astype(np.float32)
    check_threads(lambda: [ops.gelu(None, x, like=x)])


# -------------------------------------------------------------------------------------------- the normal distribution


@pytest.mark.parametrize(("dtype", "end"), [("float64", 8.5), ("float32", 6.0)])
def test_the_normal_tail_is_the_c_librarys_erfc(dtype: str, end: float) -> None:
    """To a few units in the last place, relative also where little is left, as far as exp(-x**2/2) has its digits."""
    special = [0.0, -0.0, 1e-30, -1e-30, INF, -INF, NAN, 1e30, -1e30, 40.0]
    x = np.concatenate([np.linspace(-end, end, 5001), special]).astype(dtype)
    tail, bell, limited = np.empty((3, *x.shape), dtype)
    normal_tail(x, tail, bell, limited)
    exact = [abs(v) for v in x.astype(np.float64).tolist()]
    truth = np.array([math.erfc(v / math.sqrt(2)) / 2 for v in exact])
    rounded = 1 + np.square(exact) / 2  # what the exponential makes of half a unit in its argument
    for found, expected in ((tail, truth), (bell, np.exp(-np.square(exact) / 2))):
        near = np.array(exact) <= end
        error = (found[near] / expected[near] - 1) / rounded[near]
        assert_close(error, np.zeros_like(error), rtol=0, atol=3 * EPS[dtype])
        assert_equal(found[~near], np.where(np.isnan(exact), NAN, 0)[~near].astype(dtype))
    assert np.nanmax(limited) <= 40


# ------------------------------------------------------------------------------------------------------------- glu


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_glu(dtype: str, dim: int) -> None:
    x = values(4, 6, 2, 8)
    leaf = gpucnn.tensor(x, dtype, requires_grad=True)
    y = F.glu(leaf, dim)
    dy = draw("normal", y.shape, 1)
    y.backward(dy.astype(dtype))
    check(y.numpy(), naive.glu(x, dim), dtype, "y", 8)
    check(leaf.grad.numpy(), naive.glu_grad(dy, x, dim), dtype, "gradient", 16)


@pytest.mark.peers
@pytest.mark.parametrize("shape", [(2, 6, 3, 4), (4,), (0, 6)], ids=str)
def test_glu_is_pytorchs(shape: tuple[int, ...], torch: Any) -> None:
    for dim in [d for d in range(len(shape)) if shape[d] % 2 == 0]:
        ours, theirs = (make(values(*shape), requires_grad=True) for make in (gpucnn.tensor, torch.tensor))
        y, expected = F.glu(ours, dim), torch.nn.functional.glu(theirs, dim)
        dy = draw("normal", y.shape, 1)
        y.backward(dy)
        expected.backward(torch.tensor(dy))
        assert_close(y, expected.detach(), rtol=1e-14, atol=1e-15)
        assert_close(ours.grad, theirs.grad, rtol=1e-13, atol=1e-14)


def test_these_are_all_kernels_of_glu() -> None:
    assert names(ops.glu) == names(ops.glu_grad) == ["array"]


def test_glu_of_channels_copies_nothing_and_has_the_right_gradient() -> None:
    glu = Case(ops.glu, ops.glu_grad, naive.glu, naive.glu_grad, lambda m, t: m.glu(t, 1))
    check_nothing_is_copied(glu)
    assert gradcheck(lambda t: F.glu(t, 1), [gpucnn.tensor(draw("normal", (2, 4, 3)), requires_grad=True)])


# -------------------------------------------------------------------------------------------------------- bad input


X = gpucnn.ones(2, 5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.gelu(X, "erf"), ValueError, "approximate must be 'none' or 'tanh', got 'erf'"),
        (lambda: F.softplus(X, beta="1"), TypeError, "softplus: beta must be a number, got '1'"),
        (lambda: F.softplus(X, threshold=None), TypeError, "softplus: threshold must be a number, got None"),
        (lambda: F.softplus(X, X), TypeError, "softplus: beta must be a number, got Tensor"),
        (lambda: F.glu(X, 2), ValueError, "axis 2 is out of range for 2 axes"),
        (lambda: F.glu(X), ValueError, r"glu: axis 1 is cut into halves, but its size in \(2, 5\) is odd"),
        (lambda: F.glu(gpucnn.tensor(1.0)), ValueError, "out of range for 0 axes"),
    ],
)
def test_bad_input_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()

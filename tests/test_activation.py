"""Smooth activations: every kernel against the truth, F.* and gradients against PyTorch, tails, corners, layouts."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, draw, each_kernel, frozen, names, plant
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
from gpucnn import functional as F
from gpucnn.ops import activation as ops
from gpucnn.reference.activation import SoftplusProblem
from gpucnn.reference.special import normal_tail
from gpucnn.testing import assert_close, assert_equal, gradcheck, naive

CASES = {
    "sigmoid": Case(ops.sigmoid, ops.sigmoid_grad, naive.sigmoid, naive.sigmoid_grad, lambda m, t: m.sigmoid(t)),
    "tanh": Case(ops.tanh, ops.tanh_grad, naive.tanh, naive.tanh_grad, lambda m, t: m.tanh(t)),
    "tanhshrink": Case(
        *(ops.tanhshrink, ops.tanhshrink_grad, naive.tanhshrink, naive.tanhshrink_grad),
        lambda m, t: m.tanhshrink(t),
        saves_output=False,
    ),
    "softsign": Case(ops.softsign, ops.softsign_grad, naive.softsign, naive.softsign_grad, lambda m, t: m.softsign(t)),
    "logsigmoid": Case(
        ops.logsigmoid, ops.logsigmoid_grad, naive.logsigmoid, naive.logsigmoid_grad, lambda m, t: m.logsigmoid(t)
    ),
    "hardsigmoid": Case(
        *(ops.hardsigmoid, ops.hardsigmoid_grad, naive.hardsigmoid, naive.hardsigmoid_grad),
        lambda m, t: m.hardsigmoid(t, inplace=False),
        saves_output=False,
    ),
    "softplus": Case(
        *(ops.softplus, ops.softplus_grad, naive.softplus, naive.softplus_grad),
        lambda m, t: m.softplus(t),
        SoftplusProblem(1.0, 20.0),
        saves_output=False,
    ),
    "softplus narrow": Case(
        *(ops.softplus, ops.softplus_grad),
        functools.partial(naive.softplus, beta=2.0, threshold=1.5),
        functools.partial(naive.softplus_grad, beta=2.0, threshold=1.5),
        lambda m, t: m.softplus(t, 2.0, 1.5),
        SoftplusProblem(2.0, 1.5),
        saves_output=False,
    ),
    "silu": Case(
        ops.silu, ops.silu_grad, naive.silu, naive.silu_grad, lambda m, t: m.silu(t, inplace=False), saves_output=False
    ),
    "hardswish": Case(
        *(ops.hardswish, ops.hardswish_grad, naive.hardswish, naive.hardswish_grad),
        lambda m, t: m.hardswish(t, inplace=False),
        saves_output=False,
        uncertain_at_nan=True,
    ),
    "mish": Case(ops.mish, ops.mish_grad, naive.mish, naive.mish_grad, lambda m, t: m.mish(t), saves_output=False),
    "gelu": Case(ops.gelu, ops.gelu_grad, naive.gelu, naive.gelu_grad, lambda m, t: m.gelu(t), saves_output=False),
    "gelu tanh": Case(
        *(ops.gelu_tanh, ops.gelu_tanh_grad, naive.gelu_tanh, naive.gelu_tanh_grad),
        lambda m, t: m.gelu(t, approximate="tanh"),
        saves_output=False,
    ),
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
    assert all(names(table) == ["array"] for table in [*tables, ops.glu, ops.glu_grad])


@pytest.mark.peers
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (40,), (), (0, 3)], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_functions_are_pytorchs(name: str, shape: tuple[int, ...], torch: Any) -> None:
    for kind in ("normal", "special") if np.prod(shape) > 20 else ("normal",):
        check_against_pytorch(CASES[name], shape, kind, torch)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_central_differences(name: str) -> None:
    check_central_differences(CASES[name], kinks=(0.0, 0.75, 3.0, -3.0))


@pytest.mark.parametrize("name", CASES)
def test_memory_layouts(name: str) -> None:
    for layout in LAYOUTS.values():
        check_layouts(CASES[name], layout)
    check_nothing_is_copied(CASES[name])


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
    truth = CASES[name].truth(x)
    for kernel, found in each_kernel(CASES[name].forward, CASES[name].problem, frozen(x)):
        assert_close(found, truth, rtol=16 * EPS[dtype], atol=0, dtype=dtype, name=kernel)


@pytest.mark.parametrize("name", CASES)
def test_huge_numbers_overflow_nowhere(name: str) -> None:
    """Where the truth is finite so are function and gradient, of the largest numbers that the dtype has."""
    case = CASES[name]
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


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("name", ["sigmoid", "gelu", "mish"])
def test_blocks_and_threads_change_nothing(name: str, dtype: str, block_bytes: int) -> None:
    """Arrays of many blocks, of one row, and of views that cannot be made flat."""
    case = CASES[name]
    x = values(30, 41).astype(dtype)
    for laid_out in (x, x[:, ::2], x.T, np.broadcast_to(x[:1], x.shape)):
        for kernel, found in each_kernel(case.forward, case.problem, laid_out):
            check(found, case.truth(laid_out), dtype, kernel, 4)


def test_large_arrays_are_shared_among_threads_with_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    x = draw("normal", (300, 101)).astype(np.float32)
    monkeypatch.setattr("gpucnn.reference.common.BLOCK_BYTES", 2000)
    found = [ops.gelu(None, x, like=x)]
    monkeypatch.setattr("gpucnn.reference.common.LARGE_BYTES", 1000)
    found.append(ops.gelu(None, x, like=x))
    assert_equal(*found)


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


def test_glu_of_channels_copies_nothing_and_has_the_right_gradient() -> None:
    glu = Case(ops.glu, ops.glu_grad, naive.glu, naive.glu_grad, lambda m, t: m.glu(t, 1))
    check_nothing_is_copied(glu)
    assert gradcheck(lambda t: F.glu(t, 1), [gpucnn.tensor(draw("normal", (2, 4, 3)), requires_grad=True)])


# -------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("name", sorted({name.partition(" ")[0] for name in CASES} | {"glu"}))
def test_what_is_no_floating_tensor_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=f"^{name}: input must be a gpucnn.Tensor, got ndarray"):
        getattr(F, name)(np.ones(4))
    with pytest.raises(TypeError, match=f"^{name}: input must have a floating dtype, got int64"):
        getattr(F, name)(gpucnn.tensor(np.ones(4, np.int64)))


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


# ----------------------------------------------------------------------------------- wrong kernels must be caught


WRONG: list[tuple[str, str, str, Any]] = [  # case, pass, kind of numbers, kernel
    ("sigmoid", "forward", "special", lambda p, x: np.exp(x) / (1 + np.exp(x))),
    ("tanh", "forward", "normal", lambda p, x: x - x**3 / 3),
    ("tanh", "backward", "normal", lambda p, dy, y: dy * (1 - y)),
    ("logsigmoid", "forward", "special", lambda p, x: -np.log(1 + np.exp(-x))),
    ("softplus narrow", "backward", "normal", lambda p, dy, x: dy / (1 + np.exp(-x * p.beta))),
    ("hardsigmoid", "backward", "special", lambda p, dy, x: dy * (abs(x) <= 3) / x.dtype.type(6)),
    ("hardswish", "backward", "special", lambda p, dy, x: dy * np.clip(x / 3 + 0.5, 0, 1)),
    ("silu", "backward", "normal", lambda p, dy, x: dy / (1 + np.exp(-x))),
    ("mish", "forward", "special", lambda p, x: x * np.tanh(np.log(1 + np.exp(x))) * (x < 80)),
    ("gelu", "forward", "normal", lambda p, x: x / (1 + np.exp(-1.702 * x)).astype(x.dtype)),
    ("gelu tanh", "forward", "normal", lambda p, x: ops.gelu(p, x, like=x)),
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

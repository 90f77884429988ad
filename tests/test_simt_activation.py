"""Activations on the CPU: every function and gradient, dtype and memory order, and what their binding refuses."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from activation_cases import ACTIVATIONS
from kernel_checks import Planted
from map_checks import (
    DTYPES,
    EPS,
    Function,
    check_all_are_known,
    check_broadcasting,
    check_sizes,
    check_values,
    inputs_of,
)
from op_checks import draw
from pointwise_checks import Case

import gpucnn
from gpucnn import functional as F
from gpucnn.backend import supported_dtype
from gpucnn.testing import assert_close, naive


def _inside(x: np.ndarray) -> np.ndarray:
    """Numbers in (0, 1), as sigmoids are."""
    return 1 / (1 + np.exp(-x))


def _gate(b: np.ndarray) -> np.ndarray:
    return np.asarray(naive.sigmoid(b))


def _elu_grad_of_output(dy: Any, y: Any) -> Any:
    return np.where(y <= 0, (y / 1.5 + 2) * 0.5 * dy, dy) * 1.5


_of_input = functools.partial(Function, ulps=16, undefined_at_infinity=True)

FUNCTIONS = {
    "sigmoid": Function(naive.sigmoid),
    "tanh": Function(naive.tanh),
    "tanhshrink": Function(naive.tanhshrink, undefined_at_infinity=True),
    "softsign": Function(naive.softsign, undefined_at_infinity=True),
    "logsigmoid": Function(naive.logsigmoid),
    "softplus": Function(functools.partial(naive.softplus, beta=2.0, threshold=1.5), (2.0, 1.5)),
    "hardsigmoid": Function(naive.hardsigmoid),
    "silu": Function(naive.silu, undefined_at_infinity=True),
    "hardswish": Function(naive.hardswish, undefined_at_infinity=True),
    "mish": Function(naive.mish, undefined_at_infinity=True),
    "gelu": Function(naive.gelu, undefined_at_infinity=True),
    "gelu_tanh": Function(naive.gelu_tanh, undefined_at_infinity=True),
    "glu": Function(lambda a, b: a * _gate(b)),
    "sigmoid_grad": Function(lambda dy, y: dy * y * (1 - y), domain=_inside),
    "tanh_grad": Function(lambda dy, y: dy * (1 - y * y), domain=_inside),
    "tanhshrink_grad": _of_input(naive.tanhshrink_grad),
    "softsign_grad": Function(lambda dy, y: dy * (1 - np.abs(y)) ** 2, domain=_inside, undefined_at_infinity=True),
    "logsigmoid_grad": Function(lambda dy, y: -np.expm1(y) * dy, domain=lambda x: -np.abs(x)),
    "softplus_grad": _of_input(functools.partial(naive.softplus_grad, beta=2.0, threshold=1.5), (2.0, 1.5)),
    "hardsigmoid_grad": _of_input(naive.hardsigmoid_grad),
    "silu_grad": _of_input(naive.silu_grad),
    "hardswish_grad": _of_input(lambda dy, x: np.where(np.isnan(x), dy, naive.hardswish_grad(dy, x))),
    "mish_grad": _of_input(naive.mish_grad),
    "gelu_grad": _of_input(naive.gelu_grad),
    "gelu_tanh_grad": _of_input(naive.gelu_tanh_grad),
    "gate_grad": _of_input(lambda dy, a, b: dy * a * _gate(b) * (1 - _gate(b))),
    "relu": Function(lambda x: np.maximum(x, 0)),
    "relu_grad": Function(lambda dy, y: np.where(y != 0, dy, 0), domain=np.round),
    "hardtanh": Function(lambda x: np.clip(x, -0.5, 1), (-0.5, 1.0)),
    "hardtanh_grad": Function(lambda dy, y: np.where((y > -1) & (y < 2), dy, 0), (-1.0, 2.0), np.round),
    "leaky_relu": Function(lambda x: np.where(x > 0, x, x * 0.125), (0.125,)),
    "leaky_relu_grad": Function(lambda dy, x: np.where(x > 0, dy, dy * 0.125), (0.125,), np.round),
    "threshold": Function(lambda x: np.where(x <= 1, 7, x), (1.0, 7.0), np.round),
    "threshold_grad": Function(lambda dy, x: np.where(x <= 1, 0, dy), (1.0,), np.round),
    "hardshrink": Function(lambda x: np.where(np.abs(x) <= 1, 0, x), (1.0,), np.round),
    "hardshrink_grad": Function(lambda dy, x: np.where(np.abs(x) <= 1, 0, dy), (1.0,), np.round),
    "softshrink": Function(lambda x: x - np.clip(x, -0.5, 0.5), (0.5,)),
    "elu": Function(lambda x: np.where(x <= 0, np.expm1(x * 0.5) * 2, x) * 1.5, (2.0, 1.5, 0.5)),
    "elu_grad_of_output": Function(_elu_grad_of_output, (2.0, 1.5, 0.5)),
    "elu_grad_of_input": _of_input(
        lambda dy, x: np.where(x <= 0, np.exp(x * 0.5) * dy, dy) * 1.5, parameters=(2.0, 1.5, 0.5)
    ),
    "prelu": Function(lambda x, w: np.where(x > 0, x, x * w)),
    "prelu_grad": Function(lambda dy, x, w: np.where(x > 0, dy, dy * w)),
    "prelu_weight_grad": Function(lambda dy, x: np.where(x > 0, 0, dy * x)),
}
BROADCAST = ("glu", "gate_grad", "prelu", "prelu_grad", "prelu_weight_grad")


def test_these_are_all_functions(simt: ModuleType) -> None:
    check_all_are_known(simt, "activation", FUNCTIONS)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_function_is_right(simt: ModuleType, dtype: str) -> None:
    for name, inputs in inputs_of(simt, "activation").items():
        check_values(simt, "activation", name, FUNCTIONS[name], inputs, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_size_and_address_gives_the_same_bits(simt: ModuleType, dtype: str) -> None:
    for name, inputs in inputs_of(simt, "activation").items():
        check_sizes(simt, "activation", name, FUNCTIONS[name], inputs, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_operands_broadcast_and_lie_in_any_order(simt: ModuleType, dtype: str) -> None:
    inputs = inputs_of(simt, "activation")
    for name in BROADCAST:
        check_broadcasting(simt, "activation", name, FUNCTIONS[name], inputs[name], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_ops_and_their_gradients_are_the_truths(simt: ModuleType, name: str, dtype: str) -> None:
    """As users call them; strict, so that nothing falls to the reference."""
    check_op(ACTIVATIONS[name], dtype)


def check_op(case: Case, dtype: str) -> None:
    __tracebackhide__ = True
    held = supported_dtype(dtype)
    values, dy = (draw("normal", (2, 3, 4, 5), i).astype(held) for i in range(2))
    x = gpucnn.tensor(values, requires_grad=True)
    y = case.call(F, x)
    y.backward(gpucnn.tensor(dy))
    allowed = 4 * EPS[dtype]
    assert_close(y.numpy(), case.truth(values.astype(np.float64)), rtol=allowed, atol=allowed)
    slope = case.truth_grad(dy.astype(np.float64), values.astype(np.float64))
    allowed = 16 * EPS[dtype]  # of what is rounded in y
    assert_close(x.grad.numpy(), slope, rtol=allowed, atol=allowed, name="gradient")


def test_the_result_has_the_largest_number_of_axes(simt: ModuleType) -> None:
    for size in (0, 1):
        x = np.full((size, 3), -2, np.float32)
        y = np.empty_like(x)
        simt.activation("relu", "float32", (x,), y, (), 0)
        assert not y.any()
    with pytest.raises(ValueError, match="activation: relu: this function takes arrays that lie alike"):
        simt.activation("relu", "float32", (np.ones((4, 6), np.float32)[::2],), np.empty((2, 6), np.float32), (), 0)
    with pytest.raises(ValueError, match="activation: no function 'relus'; there are sigmoid, tanh"):
        simt.activation("relus", "float32", (np.ones(3, np.float32),), np.empty(3, np.float32), (), 0)


WRONG: dict[str, Any] = {
    "the slope at 0": lambda run, name, dtype, arrays, y, *a: (
        run(name, dtype, arrays, y, *a),
        np.copyto(y, arrays[0], where=arrays[1] == 0),
    ),
    "unwritten": lambda run, name, dtype, arrays, y, *a: run(name, dtype, arrays, y.copy(), *a),
    "another function": lambda run, name, dtype, arrays, y, *a: run("tanh_grad", dtype, arrays, y, *a),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_caught(simt: ModuleType, wrong: str) -> None:
    check_values(simt, "activation", "relu_grad", FUNCTIONS["relu_grad"], 2, "float32")
    with pytest.raises(AssertionError, match=r"elements are wrong|never written"):
        check_values(
            Planted(simt, activation=WRONG[wrong]), "activation", "relu_grad", FUNCTIONS["relu_grad"], 2, "float32"
        )

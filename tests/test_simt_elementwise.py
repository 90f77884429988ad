"""Functions of single elements on the CPU: every function, dtype and memory order, and what their binding refuses."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import Planted
from map_checks import (
    DTYPES,
    Function,
    check_all_are_known,
    check_broadcasting,
    check_sizes,
    check_values,
    inputs_of,
)
from op_checks import draw

import gpucnn
from gpucnn.testing import assert_equal


def _shifted(x: np.ndarray) -> np.ndarray:
    """Small numbers that are often equal."""
    return np.round(2 * x) / 2


def _logsumexp_grad(dy: Any, x: Any, y: Any) -> Any:
    return dy * np.exp(x - np.where(y == -np.inf, 0, y)).astype(np.float32)  # which overflows and vanishes earlier


def _norm_grad(p: float) -> Any:
    def slope(dy: Any, x: Any, y: Any) -> Any:
        return np.where((y == 0) | ((x == 0) & (p < 1)), 0, dy * np.sign(x) * (np.abs(x) / y) ** (p - 1))

    return slope


FUNCTIONS = {
    "add": Function(np.add),
    "subtract": Function(np.subtract),
    "multiply": Function(np.multiply),
    "divide": Function(np.divide),
    "maximum": Function(np.maximum, domain=_shifted),
    "minimum": Function(np.minimum, domain=_shifted),
    "negative": Function(np.negative),
    "absolute": Function(np.abs),
    "sign": Function(lambda x: (x > 0) * 1.0 - (x < 0)),
    "exp": Function(np.exp),
    "log": Function(np.log),
    "square_root": Function(np.sqrt),
    "square": Function(np.square),
    "reciprocal": Function(lambda x: 1 / x),
    "divided_by": Function(lambda x: x / 3, (3.0,)),
    "power": Function(lambda x: x**2.5, (2.5,)),
    "clamp": Function(lambda x: np.clip(x, -0.5, 0.75), (-0.5, 0.75)),
    "maximum_grad": Function(lambda dy, a, b: np.where(a < b, 0, np.where(a == b, dy / 2, dy)), domain=_shifted),
    "clamp_grad": Function(lambda dy, x: np.where((x >= -0.5) & (x <= 1), dy, 0), (-0.5, 1.0), _shifted),
    "logsumexp_grad": Function(_logsumexp_grad, ulps=16),
    "norm_1_grad": Function(lambda dy, x: np.sign(x) * dy),
    "norm_2_grad": Function(lambda dy, x, y: x * np.where(y == 0, 0, dy / y), domain=lambda x: x + 2 * np.sign(x)),
    "norm_grad": Function(_norm_grad(2.5), (2.5,), lambda x: np.abs(x) + 0.25),
}
BROADCAST = (
    *("add", "subtract", "multiply", "divide", "maximum", "minimum", "maximum_grad"),
    *("logsumexp_grad", "norm_1_grad", "norm_2_grad", "norm_grad"),
)


def test_these_are_all_functions(simt: ModuleType) -> None:
    check_all_are_known(simt, "elementwise", FUNCTIONS)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_function_is_right(simt: ModuleType, dtype: str) -> None:
    for name, inputs in inputs_of(simt, "elementwise").items():
        check_values(simt, "elementwise", name, FUNCTIONS[name], inputs, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_size_and_address_gives_the_same_bits(simt: ModuleType, dtype: str) -> None:
    for name, inputs in inputs_of(simt, "elementwise").items():
        check_sizes(simt, "elementwise", name, FUNCTIONS[name], inputs, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_operands_broadcast_and_lie_in_any_order(simt: ModuleType, dtype: str) -> None:
    inputs = inputs_of(simt, "elementwise")
    for name in BROADCAST if simt.flavour == "plain" and dtype == "float32" else BROADCAST[:2] + BROADCAST[6:7]:
        check_broadcasting(simt, "elementwise", name, FUNCTIONS[name], inputs[name], dtype)


def test_every_function_that_broadcasts_is_run_so(simt: ModuleType) -> None:
    for name, inputs in inputs_of(simt, "elementwise").items():
        for dtype in DTYPES:
            held = gpucnn.backend.supported_dtype(dtype)
            for length in (3, 16):  # elements, and packs
                arrays = [np.ones((5, 1, length) if i == 0 else (2, length), held) for i in range(inputs)]
                y = np.empty(np.broadcast_shapes(*[array.shape for array in arrays]), held)
                if name in BROADCAST:
                    simt.elementwise(name, dtype, tuple(arrays), y, FUNCTIONS[name].parameters, 0)
                    assert_equal(y, np.full_like(y, y.reshape(-1)[0]), name=name)
        if inputs > 1 and name not in BROADCAST:
            x = np.ones((2, 3), np.float32)
            with pytest.raises(ValueError, match=f"elementwise: {name}: this function takes arrays that lie alike"):
                simt.elementwise(name, "float32", (x[:1], x), np.empty_like(x), FUNCTIONS[name].parameters, 0)


def test_integers_are_exact(simt: ModuleType) -> None:
    a, b = draw("integers", (33, 65)), draw("integers", (65,), 1)
    for name, formula in (("add", np.add), ("subtract", np.subtract), ("multiply", np.multiply)):
        for dtype in DTYPES:
            held = gpucnn.backend.supported_dtype(dtype)
            y = np.empty(a.shape, held)
            simt.elementwise(name, dtype, (a.astype(held), b.astype(held)), y, (), 0)
            assert_equal(y.astype(np.float64), formula(a, b), signed_zeros=False, name=f"{name} {dtype}")


def test_more_than_the_grid_holds(simt: ModuleType) -> None:
    """16,384 float32 elements are one pass of the whole grid on the CPU."""
    x = draw("integers", (40_003,)).astype(np.float32)
    y = np.empty_like(x)
    simt.elementwise("add", "float32", (x, x), y, (), 0)
    assert_equal(y, 2 * x)
    rows = draw("integers", (300, 65)).astype(np.float32)
    y = np.empty_like(rows)
    simt.elementwise("add", "float32", (rows, rows[0]), y, (), 0)
    assert_equal(y, rows + rows[0])


def test_nothing_is_done_for_no_elements(simt: ModuleType) -> None:
    empty = np.empty((0, 3), np.float32)
    simt.elementwise("add", "float32", (empty, np.ones(3, np.float32)), empty.copy(), (), 0)
    with pytest.raises(ValueError, match="elementwise: add: the shapes do not broadcast"):
        simt.elementwise("add", "float32", (empty, np.ones(2, np.float32)), empty.copy(), (), 0)


def test_more_axes_than_a_walk_has_are_laid_out_first(simt: ModuleType) -> None:
    shape = (2, 1) * 5
    a, b = draw("integers", shape).astype(np.float32), draw("integers", shape[::-1], 1).astype(np.float32)
    y = gpucnn.tensor(a) + gpucnn.tensor(b)
    assert_equal(y, a + b)
    with pytest.raises(ValueError, match="elementwise: add: the arrays lie too differently: more than 8 axes"):
        simt.elementwise("add", "float32", (a, b), np.empty((2,) * 10, np.float32), (), 0)


def test_parameters_beyond_float32_are_infinite(simt: ModuleType) -> None:
    x = np.array([-1e38, 2.0, 3e38], np.float32)
    y = np.empty_like(x)
    simt.elementwise("clamp", "float32", (x,), y, (-1e300, 1e300), 0)
    assert_equal(y, x)


WRONG: dict[str, Any] = {
    "the last element": lambda run, name, dtype, arrays, y, *a: (
        run(name, dtype, arrays, y, *a),
        y.reshape(-1)[-1:].fill(7.5),
    ),
    "unwritten": lambda run, name, dtype, arrays, y, *a: run(name, dtype, arrays, y.copy(), *a),
    "operands swapped": lambda run, name, dtype, arrays, *a: run(name, dtype, arrays[::-1], *a),
    "another function": lambda run, name, *a: run({"subtract": "add"}.get(name, name), *a),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_caught(simt: ModuleType, wrong: str) -> None:
    check_values(simt, "elementwise", "subtract", FUNCTIONS["subtract"], 2, "float32")
    planted = Planted(simt, elementwise=WRONG[wrong])
    with pytest.raises(AssertionError, match=r"elements are wrong|never written"):
        check_values(planted, "elementwise", "subtract", FUNCTIONS["subtract"], 2, "float32")


X = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("plus", "float32", (X, X)), ValueError, "no function 'plus'; there are add, subtract"),
        (("add", "float64", (X, X)), ValueError, "dtype must be float32, float16 or bfloat16, got float64"),
        (("add", "float32", (X,)), ValueError, "add takes 2 arrays, got 1"),
        (("add", "float32", (X, X.astype(np.float64))), TypeError, r"'b' of shape \(2, 3\) must be float32"),
        (("add", "float16", (X, X)), TypeError, r"must be float16 \('<f2'\) and is '<f4'"),
        (("add", "float32", (X, X[:, :2])), ValueError, "the shapes do not broadcast"),
        (("add", "float32", (X, np.ones((2, 2, 3), np.float32))), ValueError, "more axes than the result"),
        (("add", "float32", (X, [1.0])), TypeError, "'b' must be an array in CPU memory"),
        (("add", "float32", (X, np.ones(16, np.uint8)[1:13].view(np.float32))), ValueError, "not aligned to 4 bytes"),
    ],
)
def test_what_it_cannot_do_is_refused(simt: ModuleType, arguments: Any, error: Any, message: str) -> None:
    y = np.full((2, 3), 7, X.dtype if arguments[1] != "float16" else np.float16)
    with pytest.raises(error, match=f"elementwise: .*{message}"):
        simt.elementwise(*arguments, y, (), 0)
    assert (y == 7).all()


def test_parameters_are_counted(simt: ModuleType) -> None:
    with pytest.raises(ValueError, match="elementwise: clamp takes 2 parameters, got 1"):
        simt.elementwise("clamp", "float32", (X,), X.copy(), (1.0,), 0)


def test_results_that_no_kernel_could_write_are_refused(simt: ModuleType) -> None:
    buffer = np.ones(12, np.float32)
    read_only = buffer[:6].copy().reshape(2, 3)
    read_only.flags.writeable = False
    for y, message in (
        (read_only, "'y' of shape .* is read-only"),
        (buffer[1:7].reshape(2, 3), "overlap in memory without being the same array"),
        (buffer[:6].reshape(3, 2).T, "overlap in memory"),
    ):
        with pytest.raises(ValueError, match=f"elementwise: .*{message}"):
            simt.elementwise("add", "float32", (buffer[:6].reshape(2, 3), X), y, (), 0)
    repeated = np.broadcast_to(np.zeros(3, np.float32), (2, 3))
    repeated.flags.writeable = True
    with pytest.raises(ValueError, match=r"'y' of shape .* has elements that share memory"):
        simt.elementwise("add", "float32", (X, X), repeated, (), 0)
    assert (buffer == 1).all()


def test_an_op_and_its_gradients_run_on_the_kernels(simt: ModuleType) -> None:
    """Strict: nothing falls to the reference."""
    values, bias = draw("integers", (2, 3, 4, 5)).astype(np.float32), draw("integers", (3, 1, 1), 1).astype(np.float32)
    x, b = gpucnn.tensor(values, requires_grad=True), gpucnn.tensor(bias)
    y = (x * b - b).maximum(x) / 2
    y.backward(gpucnn.tensor(np.ones_like(values)))
    products = values * bias - bias
    assert_equal(y, np.maximum(products, values) / 2, signed_zeros=False)
    slope = np.where(products > values, bias, np.where(products == values, (bias + 1) / 2, 1)) / 2
    assert_equal(x.grad, slope.astype(np.float32), signed_zeros=False)

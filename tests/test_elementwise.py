"""Arithmetic: kernels against the truth, tensors with broadcasting and gradients against PyTorch."""

from __future__ import annotations

import itertools
import math
import operator
from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, NHWC, SEED, draw, each_kernel, frozen, names, plant

import gpucnn
from gpucnn import backend
from gpucnn import functional as F
from gpucnn.ops import elementwise as ops
from gpucnn.reference import elementwise as reference
from gpucnn.reference.common import select
from gpucnn.testing import assert_close, assert_equal, gradcheck

INF, NAN = math.inf, math.nan
EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10}
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, 1e-30, -1e-30, 88.0, -88.0, 104.0, -104.0, 6e4, -6e4, 0.1])

BINARY = {
    "add": (ops.add, np.add),
    "subtract": (ops.subtract, np.subtract),
    "multiply": (ops.multiply, np.multiply),
    "divide": (ops.divide, np.divide),
    "maximum": (ops.maximum, np.maximum),
    "minimum": (ops.minimum, np.minimum),
}
UNARY = {
    "negative": (ops.negative, np.negative),
    "exp": (ops.exp, np.exp),
    "log": (ops.log, np.log),
    "absolute": (ops.absolute, np.abs),
    "square_root": (ops.square_root, np.sqrt),
    "sign": (ops.sign, lambda x: (x > 0) * 1.0 - (x < 0)),
}


def values(*shape: int, stream: int = 0, kind: str = "normal") -> np.ndarray:
    """Normal numbers with the special ones among them, all of them float16 numbers."""
    x = draw("normal", shape, stream)
    if kind == "special":
        with np.errstate(all="ignore"):
            x.reshape(-1)[: SPECIAL.size] = SPECIAL.astype(np.float16)
        np.random.default_rng([SEED, stream]).shuffle(x.reshape(-1))
    return x


def check(found: np.ndarray, truth: np.ndarray, dtype: str, name: str, ulps: float = 4) -> None:
    """Within a few units in the last place, of 1 where the truth is less; infinite beyond the dtype's range."""
    __tracebackhide__ = True
    with np.errstate(all="ignore"):
        truth = np.where(np.abs(truth) > np.finfo(dtype).max, truth.astype(dtype).astype(np.float64), truth)
    allowed = ulps * EPS[dtype]
    assert_close(found, truth, rtol=allowed, atol=allowed, dtype=dtype, equal_nan=True, name=name)


def check_unary(name: str, dtype: str, kind: str) -> None:
    __tracebackhide__ = True
    table, formula = UNARY[name]
    x = values(5, 7, kind=kind).astype(dtype)
    with np.errstate(all="ignore"):
        truth = formula(x.astype(np.float64))
        for kernel, found in each_kernel(table, None, frozen(x)):
            check(found, truth, dtype, kernel)


@pytest.mark.parametrize("kind", ["normal", "special"])
@pytest.mark.parametrize("dtype", EPS)
def test_every_kernel(dtype: str, kind: str) -> None:
    for name in UNARY:
        check_unary(name, dtype, kind)
    a, b = values(4, 9, kind=kind).astype(dtype), values(4, 9, stream=1, kind=kind).astype(dtype)
    with np.errstate(all="ignore"):
        for table, formula in BINARY.values():
            for kernel, found in each_kernel(table, None, frozen(a), frozen(b)):
                check(found, formula(a.astype(np.float64), b.astype(np.float64)), dtype, kernel)
        for exponent in (2, -1, 0.5, 3.0, 0):
            for kernel, found in each_kernel(ops.power, exponent, frozen(a)):
                check(found, a.astype(np.float64) ** exponent, dtype, f"{kernel} {exponent}")


def test_these_are_all_kernels() -> None:
    tables = [table for table, *_ in itertools.chain(BINARY.values(), UNARY.values())]
    assert all(names(table) == ["array"] for table in [*tables, ops.power])


@pytest.mark.parametrize(
    "shapes", [((40, 300), (40, 300)), ((40, 300), (1,)), ((), (40, 300)), ((300,), (40, 300))], ids=str
)
def test_large_arrays_are_computed_in_pieces_alike(shapes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is shared among threads, and what is not because shapes or strides differ."""
    monkeypatch.setattr(reference, "LARGE_BYTES", 1000)
    monkeypatch.setattr(reference, "_PIECE_BYTES", 2000)
    for dtype in EPS:
        a, b = (draw("normal", shape, i).astype(dtype) for i, shape in enumerate(shapes))
        with np.errstate(all="ignore"):
            for table, formula in BINARY.values():
                for x, y in ((a, b), (b, a), (a, b[..., ::-1])):
                    for kernel, found in each_kernel(table, None, frozen(x), frozen(y)):
                        assert_equal(found, formula(x, y), name=kernel)
            for table, formula in UNARY.values():
                for kernel, found in each_kernel(table, None, frozen(a)):
                    check(found, formula(a.astype(np.float64)), dtype, kernel)


def test_selection_keeps_bits_and_lets_nothing_else_through() -> None:
    x = np.array([NAN, INF, -0.0, 5.0, NAN, INF])
    keep = np.array([True, True, True, True, False, False])
    for dtype in EPS:
        assert_equal(select(x.astype(dtype), keep), np.array([NAN, INF, -0.0, 5.0, 0.0, 0.0]).astype(dtype))
    out = np.full(6, 7.0)
    assert select(x, keep, out=out).base is out or np.shares_memory(select(x, keep, out=out), out)
    assert_equal(out, np.array([NAN, INF, -0.0, 5.0, 0.0, 0.0]))


# ------------------------------------------------------------------------------------------------ against PyTorch

SHAPES = [
    ((2, 3, 4, 5), (2, 3, 4, 5)),
    ((2, 3, 4, 5), (3, 1, 1)),
    ((2, 3, 4, 5), (5,)),
    ((2, 3, 4, 5), ()),
    ((2, 3, 4, 5), (2, 1, 1, 5)),
    ((2, 3, 4, 5), (1, 3, 4, 1)),
    ((1, 3, 1, 5), (2, 1, 4, 1)),
    ((2, 3, 4, 5), (2, 2, 3, 4, 5)),
    ((2, 1, 1, 1, 1), (2, 3, 4, 5)),
    ((4, 1), (1, 5)),
    ((), ()),
    ((0, 3), (3,)),
    ((1,), (0, 3)),
]


@pytest.mark.peers
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("op", ["add", "sub", "mul", "truediv"])
def test_arithmetic_is_pytorchs(op: str, shapes: tuple[Any, Any], torch: Any) -> None:
    arrays = [draw("normal", s, i) + 3 for i, s in enumerate(shapes)]
    for given in (arrays, arrays[::-1]):
        ours = [gpucnn.tensor(a, requires_grad=True) for a in given]  # four axes are laid out channels-last
        theirs = [torch.tensor(a, requires_grad=True) for a in given]
        y, expected = getattr(operator, op)(*ours), getattr(operator, op)(*theirs)
        assert y.shape == tuple(expected.shape)
        dy = draw("normal", y.shape, 7)
        y.backward(dy)
        expected.backward(torch.tensor(dy))
        assert_close(y, expected.detach(), rtol=1e-14, atol=0, name="y")
        for a, b in zip(ours, theirs, strict=True):
            assert_close(a.grad, b.grad, rtol=1e-13, atol=1e-13, name="gradient")


FUNCTIONS: dict[str, Any] = {  # name: function of (tensor, module)
    "abs": lambda t, m: abs(t),
    "sqrt": lambda t, m: t.sqrt(),
    "sign": lambda t, m: t.sign() * t,
    "clamp": lambda t, m: t.clamp(-0.5, 0.5),
    "exp": lambda t, m: t.exp(),
    "log": lambda t, m: t.log(),
    "negative": lambda t, m: -t,
    "square": lambda t, m: t**2,
    "inverse": lambda t, m: t**-1,
    "power 1.5": lambda t, m: t**1.5,
    "power 0": lambda t, m: t**0,
}


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["normal", "special"])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (40,), ()], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_pytorchs(name: str, shape: tuple[int, ...], kind: str, torch: Any) -> None:
    """With NaN and infinities among the numbers and the gradients, of which nothing warns."""
    kind = kind if shape else "normal"
    x, dy = values(*shape, kind=kind), values(*shape, stream=1, kind=kind)
    ours, theirs = gpucnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, expected = FUNCTIONS[name](ours, F), FUNCTIONS[name](theirs, torch)
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    assert_close(y, expected.detach(), rtol=1e-14, atol=1e-15, equal_nan=True, name="y")
    assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-14, equal_nan=True, name="gradient")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x * x + 3).log() / (2 - x),
        lambda x: (x**3 - 1 / x).exp() * -x,
        lambda x: abs(x).sqrt() * x.maximum(x[:1] + 1) - x.minimum(2 * x[:, :1] - 0.7),
        lambda x: x.clamp(-0.25, 0.25).where(x > 0, x.square()) * x.masked_fill(x > 0.1, 3).clamp(x[:1] - 1, x[1:] + 1),
    ],
    ids=["log", "exp", "maximum", "where"],
)
def test_gradients_are_central_differences(function: Any) -> None:
    x = draw("normal", (2, 3, 2, 2)) / 4
    x = np.where(abs(x) < 0.1, 0.3, x)
    assert gradcheck(function, [gpucnn.tensor(x, requires_grad=True)])


# ------------------------------------------------------------------------------------------------ layouts and dtypes


def test_channels_last_stays_channels_last_without_a_copy() -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 4, 5)), requires_grad=True)
    with backend.count_layout_copies() as copies:
        y = F.tanh(F.relu(x * 2 + gpucnn.tensor(np.ones((3, 1, 1)))) / x - x**2)
        y = y.clamp(-0.5, 0.9).maximum(x[:, :, :1]).where(x > 0, abs(y)) + x.mean((2, 3), True).expand(2, 3, 4, 5)
        y = y * x[:, 1:2] + x[:, :1]
        y.backward(y.detach())
    assert copies.value == 0
    for tensor in (y, x.grad):
        assert tensor.data.transpose(NHWC).flags.c_contiguous


@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("second", ["nhwc", "nchw", "strided"])
def test_any_memory_layout_is_taken(first: str, second: str) -> None:
    a, b = draw("integers", (2, 3, 4, 5)), draw("integers", (2, 3, 4, 5), 1)
    x, y = (gpucnn.Tensor(LAYOUTS[layout](v), requires_grad=True) for layout, v in ((first, a), (second, b)))
    z = F.relu(x * y) - y
    z.backward(LAYOUTS[first](b))
    assert_equal(z, np.maximum(a * b, 0) - b, signed_zeros=False)
    assert_equal(x.grad, b * (a * b > 0) * b, signed_zeros=False)
    assert_equal(y.grad, b * (a * b > 0) * a - b, signed_zeros=False)


def test_a_gradient_has_the_dtype_and_digits_of_its_tensor() -> None:
    bias = gpucnn.tensor(np.zeros(3), "float16", requires_grad=True)
    rows = gpucnn.tensor(np.ones((5000, 3)), "float16")
    (rows + bias).backward(np.full((5000, 3), 0.5, np.float16))
    assert_equal(bias.grad, np.full(3, 2500, np.float16))  # a running sum of halves would stop at 1024
    narrow = gpucnn.tensor(np.ones(3), "float32", requires_grad=True)
    (narrow * gpucnn.tensor(np.ones(3), "float64")).backward(np.ones(3))
    assert narrow.grad.dtype == np.float32


@pytest.mark.parametrize("dtype", EPS)
def test_numbers_do_not_widen(dtype: str) -> None:
    x = gpucnn.tensor(np.ones(3), dtype)
    for y in (x * 2, 1.5 - x, x / np.float64(3), x ** np.float64(2), x ** np.int64(2), -x, x.relu(), x + True):
        assert y.dtype == dtype


# ----------------------------------------------------------------------------------- wrong kernels must be caught


@pytest.mark.parametrize(
    ("table", "wrong", "run"),
    [
        (ops.exp, lambda p, x: 1 + x + x * x / 2, lambda: check_unary("exp", "float32", "normal")),
        (ops.negative, lambda p, x: np.abs(x), lambda: check_unary("negative", "float32", "special")),
        (ops.sign, lambda p, x: np.sign(x), lambda: check_unary("sign", "float32", "special")),
    ],
    ids=["exp-series", "negative-forgets-signs", "sign-of-nan"],
)
def test_a_wrong_kernel_is_caught(table: Any, wrong: Any, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    plant(monkeypatch, table, wrong)
    with pytest.raises(AssertionError, match=f"{table} planted: .* elements are wrong"):
        run()

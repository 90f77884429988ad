"""Reductions on the CPU: every function, shape of kernel and dtype, in any order of threads, and what is refused."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS, Memory, Planted, sample
from op_checks import SEED, compare, draw, frozen

import gpucnn
from gpucnn.backend import supported_dtype
from gpucnn.ops import reduction as ops
from gpucnn.reference.reduction import NormProblem, VarProblem
from gpucnn.testing import assert_close, assert_equal, naive
from gpucnn.testing.pairwise import pairwise

DTYPES = ("float32", "float16", "bfloat16")

SHAPES = [
    *((5, n, 1) for n in (0, 1, 2, 3, 7, 8, 9, 31, 32, 33, 64, 127, 128, 129, 255, 257, 2048, 2049)),
    *((300, n, 1) for n in (1, 8, 16)),
    (1, 16_384, 1),
    (1, 16_385, 1),
    (2, 20_011, 1),
    *((2, n, 3) for n in (0, 1, 2, 31, 33, 257)),
    *((2, 33, n) for n in (2, 4, 7, 8, 9, 31, 32, 33, 64, 127, 128, 129, 136, 257)),
    (1, 256, 8),
    (1, 257, 8),
    (3, 300, 5),
    (2, 700, 16),
    (1, 513, 264),
    (0, 3, 4),
    (2, 3, 0),
]
"""(outer, reduced, inner): groups of 1 to 32 lanes and whole blocks, splits, tiles of columns in part."""

# name: (truth over the middle axis of float64 x and centre, centre or None, exponent)
FUNCTIONS: dict[str, Any] = {
    "sum": (lambda x, c: x.sum(1), None, 1),
    "sum_of_squares": (lambda x, c: (x * x).sum(1), None, 1),
    "sum_of_powers": (lambda x, c: (np.abs(x) ** 1.5).sum(1), None, 1.5),
    "sum_of_exponentials": (lambda x, c: np.exp(x - c[:, None]).sum(1), 0.5, 1),
    "sum_of_squared_deviations": (lambda x, c: ((x - c[:, None]) ** 2).sum(1), 0.75, 1),
    "count_of_equal": (lambda x, c: (x == c[:, None]).sum(1) * 1.0, 1.0, 1),
    "largest": (lambda x, c: x.max(1, initial=-np.inf), None, 1),
    "smallest": (lambda x, c: x.min(1, initial=np.inf), None, 1),
    "product": (lambda x, c: x.prod(1), None, 1),
}
FINISHES: dict[str, Any] = {
    "none": lambda y, c: y,
    "divide": lambda y, c: y / 3,
    "root": lambda y, c: np.sqrt(np.abs(y) / 3),
    "log": lambda y, c: np.log(y) + (0 if c is None else c),
    "power": lambda y, c: y**0.4,
}
OF_POSITIVE = ("log", "power", "root")


def given(name: str, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """Of products few are not 1, lest they leave the dtype's range."""
    x = draw(kind, shape)
    if name == "product":
        rng = np.random.default_rng([SEED, *shape])
        return rng.choice([1.0, -1.0, 2.0, 0.5], shape, p=[0.9, 0.08, 0.01, 0.01])
    return x if kind == "integers" else x / 2


def run(
    module: Any,
    name: str,
    x: np.ndarray,
    dtype: str,
    finish: str = "none",
    by: float = 1.0,
    wide: tuple[bool, bool] = (False, False),
    call: str = "",
) -> np.ndarray:
    """The binding's answer, its memory watched. wide: whether result and centre are float32 whatever x is."""
    __tracebackhide__ = True
    _, centre, exponent = FUNCTIONS[name]
    held, memory = supported_dtype(dtype), Memory()
    outer, reduced, inner = x.shape
    splits = module.reduce_splits(reduced, inner)
    array = memory.given("x", x, held)
    y = memory.wanted("y", (outer, inner), np.float32 if wide[0] else held)
    relative = None
    if centre is not None:
        relative = memory.given("centre", np.full((outer, inner), centre), np.float32 if wide[1] else held)
    partial = memory.wanted("partial", (outer, splits, inner)) if splits > 1 else None
    module.reduce(name, dtype, array, y, relative, partial, exponent, finish, by, 0)
    memory.check(call or f"{name} {x.shape} {dtype}")
    return y


def check(module: Any, name: str, shape: tuple[int, ...], dtype: str, kind: str = "normal") -> None:
    __tracebackhide__ = True
    formula, centre, _ = FUNCTIONS[name]
    x = given(name, shape, kind).astype(supported_dtype(dtype)).astype(np.float64)
    c = np.full((shape[0], shape[2]), np.nan if centre is None else centre)
    title = f"{name} {shape} {dtype} {kind}"
    y = run(module, name, x, dtype, wide=(shape[1] > 2000, False), call=title)  # squares would leave float16's range
    exact = name in ("largest", "smallest", "count_of_equal", "product") or (kind == "integers" and name == "sum")
    with np.errstate(all="ignore"):
        truth = np.asarray(formula(x, c), np.float64)
    if exact:
        assert_equal(y, truth.astype(y.dtype), signed_zeros=False, name=title)
    else:
        compare(y, truth, 4 * max(1, shape[1]), title)


def test_these_are_all_reductions(simt: ModuleType) -> None:
    assert sorted(simt.reduce_functions()) == sorted(FUNCTIONS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_reduction_of_every_shape(simt: ModuleType, name: str, dtype: str) -> None:
    shapes = SHAPES if name == "sum" else SHAPES[(list(FUNCTIONS).index(name) % 2) :: 2]
    for number, shape in enumerate(sample(simt.flavour, shapes)):
        simt.set_order(ORDERS[number % len(ORDERS)])
        check(simt, name, shape, dtype, ("normal", "integers")[number % 2])


def test_drawn_shapes(simt: ModuleType) -> None:
    """Pairwise combinations of function, sizes and dtype; the seed rotates."""
    rows = list(
        pairwise(
            {
                "name": list(FUNCTIONS),
                "outer": [1, 2, 5],
                "reduced": [1, 6, 40, 130, 300],
                "inner": [1, 2, 8, 12, 33],
                "dtype": list(DTYPES),
                "kind": ["normal", "integers"],
                "order": list(ORDERS),
            },
            SEED,
        )
    )
    for row in sample(simt.flavour, rows):
        simt.set_order(row["order"])
        check(simt, row["name"], (row["outer"], row["reduced"], row["inner"]), row["dtype"], row["kind"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("finish", FINISHES)
def test_every_finish(simt: ModuleType, finish: str, dtype: str) -> None:
    """In one launch and in two, into the dtype and into float32."""
    for shape in ((3, 9, 1), (2, 17_000, 1), (2, 9, 4), (1, 300, 3)):
        for name in ("sum", "sum_of_exponentials"):
            for wide in ((False, False), (True, False), (True, True), (False, True)):
                x = np.abs(given(name, shape, "normal")) + 0.25
                x = (x / shape[1]).astype(supported_dtype(dtype)).astype(np.float64)
                formula, centre, _ = FUNCTIONS[name]
                c = np.full((shape[0], shape[2]), 0.0 if centre is None else centre)
                found = run(simt, name, x, dtype, finish, {"power": 0.4}.get(finish, 3.0), wide)
                compare(found, FINISHES[finish](formula(x, c), c), 4 * shape[1], f"{name} {shape} {finish} {dtype}")


@pytest.mark.parametrize("shape", [(3, 40, 1), (2, 17_000, 1), (2, 40, 8), (1, 300, 5)], ids=str)
def test_nan_and_infinities(simt: ModuleType, shape: tuple[int, ...]) -> None:
    for name in ("sum", "largest", "smallest", "product"):
        for value in (math.nan, math.inf, -math.inf):
            for place in (0, shape[1] // 2, shape[1] - 1):
                x = np.full(shape, 2.0 if name != "product" else 1.0)
                x[0, place, 0] = value
                with np.errstate(all="ignore"):
                    truth = FUNCTIONS[name][0](x, None)
                assert_equal(run(simt, name, x, "float32"), truth.astype(np.float32), name=f"{name} {value} {place}")


def test_the_same_bits_in_every_order_and_batch(simt: ModuleType) -> None:
    for shape in ((4, 100, 1), (3, 2500, 1), (2, 17_000, 1), (3, 60, 12), (2, 300, 9)):
        x = draw("normal", shape)
        found = []
        for order in ORDERS:
            simt.set_order(order)
            found.append(run(simt, "sum", x, "float32").tobytes())
        simt.set_order("")
        assert len(set(found)) == 1, shape
        alone = [run(simt, "sum", x[i : i + 1], "float32").tobytes() for i in range(shape[0])]
        assert b"".join(alone) == found[0], f"{shape}: of an image alone"


def test_memory_that_is_not_aligned(simt: ModuleType) -> None:
    for shape in ((3, 64, 1), (2, 33, 8), (1, 300, 4)):
        size = math.prod(shape)
        for dtype in DTYPES:
            x = draw("integers", (size + 1,)).astype(supported_dtype(dtype))
            y = np.empty((shape[0], shape[2]), x.dtype)
            splits = simt.reduce_splits(*shape[1:])
            partial = np.empty((shape[0], splits, shape[2]), np.float32) if splits > 1 else None
            simt.reduce("sum", dtype, x[1:].reshape(shape), y, None, partial, 1, "none", 1, 0)
            assert_equal(y, x[1:].astype(np.float64).reshape(shape).sum(1).astype(x.dtype), signed_zeros=False)


# ---------------------------------------------------------------------------------------------------------- the ops

# name: (table, gradient's table, problem of axes, name of the truth, its options)
OPS: dict[str, Any] = {
    "mean": (ops.mean, None, lambda axes: axes, "mean", {}),
    "amax": (ops.amax, ops.amax_grad, lambda axes: axes, "amax", {}),
    "logsumexp": (ops.logsumexp, ops.logsumexp_grad, lambda axes: axes, "logsumexp", {}),
    "prod": (ops.prod, ops.prod_grad, lambda axes: axes, "prod", {}),
    "var": (ops.var, ops.var_grad, lambda axes: VarProblem(axes, 1.0, False), "var", {"correction": 1}),
    "std": (ops.var, ops.var_grad, lambda axes: VarProblem(axes, 0.0, True), "std", {"correction": 0}),
    **{
        f"norm {p}": (ops.norm, ops.norm_grad, lambda axes, p=p: NormProblem(axes, p), "norm", {"p": p})
        for p in (1, 2, 3)
    },
}


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 2), (1, 3), (0, 1), (3,)], ids=str)
@pytest.mark.parametrize("name", OPS)
def test_ops_over_any_axes(simt: ModuleType, name: str, axes: tuple[int, ...]) -> None:
    """Those that can be merged, and those that have to be laid out anew; every dtype."""
    table, gradient, problem, formula, options = OPS[name]
    for dtype in DTYPES:
        held = supported_dtype(dtype)
        x = draw("normal", (3, 4, 5, 2)) / 2
        x = (np.sign(x) * (0.75 + np.abs(x) / 4)).astype(held)  # of which products are no tiny numbers
        wide = x.astype(np.float64)
        expected = getattr(naive.reduction, formula)(wide, axes, **options)
        terms = 16 * max(1, x.size // expected.size)
        y = table(problem(axes), frozen(x), like=x)
        compare(y, expected, terms, f"{name} {dtype}")
        if gradient is not None:
            dy = draw("integers", expected.shape, 1)
            dx = gradient(problem(axes), frozen(dy, held), frozen(x), frozen(y, held), like=x)
            rounded = getattr(naive.reduction, f"{formula}_grad")(dy, wide, axes, **options)
            allowed = 32 * {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}[dtype]
            assert_close(dx, rounded, rtol=allowed, atol=allowed, name=f"{name} gradient {dtype}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_products_of_every_shape(simt: ModuleType, dtype: str) -> None:
    """However a block's threads are shared among rows and their elements; the same bits in every order."""
    shapes = [(5, n, 1) for n in (1, 2, 3, 31, 32, 33, 257, 600)] + [(300, 4, 1), (2, 40, 2)]
    shapes += [(3, 9, n) for n in (3, 8, 31, 32, 33, 70)] + [(1, 300, 64)]
    held = supported_dtype(dtype)
    for number, shape in enumerate(sample(simt.flavour, shapes)):
        few = min(0.05, 3 / shape[1])  # so that no product is too large or too small for float16
        x = np.random.default_rng([SEED, *shape]).choice([1.0, -1.0, 2.0, 0.5], shape, p=[0.9 - 2 * few, 0.1, few, few])
        dy = draw("integers", (shape[0], shape[2])).astype(held)
        found = []
        for order in (ORDERS[number % len(ORDERS)], ""):
            simt.set_order(order)
            dx = np.empty(shape, held)
            simt.prod_grad(dtype, dy, x.astype(held), dx, 0)
            found.append(dx)
        truth = dy.astype(np.float64)[:, None] * x.prod(1, keepdims=True) / x
        allowed = 4 * {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}[dtype]
        assert_close(found[0], truth, rtol=allowed, atol=1e-6, name=f"{shape} {dtype}")
        assert found[0].tobytes() == found[1].tobytes(), shape


def test_gradients_of_products_with_zeros_and_infinities(simt: ModuleType) -> None:
    inf, nan = math.inf, math.nan
    rows = np.array(
        [
            [2, 3, -4, 0.5],
            [0, 3, 4, -5],
            [0, 3, -0.0, 5],
            [inf, 2, 3, -1],
            [inf, -inf, 2, 1],
            [nan, 2, 1, 1],
            [inf, 0, 2, 2],
            [nan, nan, 0, 1],
            [1e30, 1e30, 1e-30, 1e-30],
        ]
    )
    dy = np.full((len(rows), 1), 2.0, np.float32)
    with np.errstate(all="ignore"):
        others = [[2 * np.prod(np.delete(row, i)) for i in range(4)] for row in rows]
        y = rows.prod(axis=1, keepdims=True).astype(np.float32)
    x = rows.astype(np.float32)
    found = ops.prod_grad((1,), dy, x, y, like=x)
    assert_close(found, np.array(others), rtol=1e-6, atol=0, equal_nan=True)


def test_extrema_of_nothing_are_refused(simt: ModuleType) -> None:
    x = np.empty((2, 0), np.float32)
    for table in (ops.amax, ops.amin):
        with pytest.raises(ValueError, match="of no elements is not defined"):
            table((1,), x, like=x)
        assert table((0,), x, like=x).shape == (1, 0)
    assert_equal(ops.prod((1,), x, like=x), np.ones((2, 1), np.float32))
    assert_equal(ops.logsumexp((1,), x, like=x), np.full((2, 1), -np.inf, np.float32))
    assert_equal(ops.mean((1,), x, like=x), np.full((2, 1), np.nan, np.float32))


def test_tensors_and_their_gradients_run_on_the_kernels(simt: ModuleType) -> None:
    values = draw("integers", (2, 3, 4, 5)).astype(np.float32)
    x = gpucnn.tensor(values, requires_grad=True)
    y = x.mean((2, 3)) + x.amax((2, 3)) * 2
    y.sum().backward()
    largest = values.max(axis=(2, 3), keepdims=True)
    share = (values == largest) / (values == largest).sum(axis=(2, 3), keepdims=True)
    assert_equal(y, (values.mean(axis=(2, 3)) + 2 * largest[..., 0, 0]).astype(np.float32))
    assert_close(x.grad, 0.05 + 2 * share, rtol=1e-6, atol=0)


# ------------------------------------------------------------------------------------------------ what goes wrong

WRONG: dict[str, Any] = {
    "a term too few": lambda run, name, dtype, x, *a: run(name, dtype, np.ascontiguousarray(x[:, 1:]), *a),
    "unwritten": lambda run, name, dtype, x, y, *a: run(name, dtype, x, y.copy(), *a),
    "the last result": lambda run, name, dtype, x, y, *a: (run(name, dtype, x, y, *a), y.reshape(-1)[-1:].fill(99)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_caught(simt: ModuleType, wrong: str) -> None:
    check(simt, "sum", (3, 20, 5), "float32")
    planted = Planted(simt, reduce=WRONG[wrong])
    with pytest.raises(AssertionError, match=r"elements are wrong|never written"):
        check(planted, "sum", (3, 20, 5), "float32")


X, Y = np.ones((2, 4, 3), np.float32), np.full((2, 3), 7, np.float32)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"name": "total"}, ValueError, "no reduction 'total'; there are sum, "),
        ({"dtype": "float64"}, ValueError, "dtype must be float32, float16 or bfloat16"),
        ({"x": X.astype(np.float64)}, TypeError, "'x' .*must be float32"),
        ({"x": X[0]}, ValueError, r"x must be \(outer, reduced, inner\)"),
        ({"x": X[:, ::2]}, ValueError, "'x' .*must be C-contiguous"),
        ({"y": np.ones((2, 4), np.float32)}, ValueError, r"'y' of shape \(2, 4\) must have shape \(2, 3\)"),
        ({"y": X.reshape(-1)[:6].reshape(2, 3)}, ValueError, "'y' .* and 'x' .* overlap"),
        ({"y": Y.astype(np.float64)}, TypeError, "'y' .*must be float32"),
        ({"centre": Y.copy()}, ValueError, "sum has no centre"),
        ({"name": "count_of_equal"}, ValueError, "count_of_equal needs a centre"),
        ({"name": "count_of_equal", "centre": Y[:1]}, ValueError, r"'centre' .* must have shape \(2, 3\)"),
        ({"partial": np.ones((2, 2, 3), np.float32)}, ValueError, "partial must be None"),
        ({"x": np.ones((2, 300, 3), np.float32)}, ValueError, r"partial must be \(outer, 3, inner\)"),
        ({"finish": "half"}, ValueError, "no finish 'half'; there are none, divide"),
    ],
)
def test_what_it_cannot_do_is_refused(simt: ModuleType, changed: Any, error: Any, message: str) -> None:
    y = Y.copy()
    call = {"name": "sum", "dtype": "float32", "x": X, "y": y, "centre": None, "partial": None, "exponent": 1}
    with pytest.raises(error, match=f"reduce: .*{message}"):
        simt.reduce(**{**call, "finish": "none", "finish_by": 1, "stream": 0, **changed})
    assert (y == 7).all()


def test_gradients_refuse_what_does_not_fit(simt: ModuleType) -> None:
    dx = np.full_like(X, 7)
    ones = np.ones((2, 3), np.float32)
    for call, error, message in (
        (lambda: simt.var_grad("float32", ones[:1], X, ones, ones, dx, 2, False, 0), ValueError, "var_grad: .*'dy'"),
        (lambda: simt.var_grad("float32", ones, X, ones, ones, dx[:1], 2, False, 0), ValueError, "'dx' .*same shape"),
        (lambda: simt.extremum_grad("float32", ones, X, ones, ones.T, dx, 0), ValueError, "extremum_grad: .*'counts'"),
        (lambda: simt.extremum_grad("float16", ones, X, ones, ones, dx, 0), TypeError, "'x' .*must be float16"),
        (lambda: simt.prod_grad("float32", ones, dx, dx, 0), ValueError, "prod_grad: .*overlap"),
        (lambda: simt.prod_grad("float32", ones[:, :2].copy(), X, dx, 0), ValueError, r"must have shape \(2, 3\)"),
    ):
        with pytest.raises(error, match=message):
            call()
    assert (dx == 7).all()


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((2, 3, 4, 5), (0, 1, 2), (1, 24, 5)),
        ((2, 3, 4, 5), (1, 2), (2, 12, 5)),
        ((2, 3, 4, 5), (3,), (24, 5, 1)),
        ((2, 3, 4, 5), (), (120, 1, 1)),
        ((2, 3, 4, 5), (0, 2), None),
        ((2, 1, 4, 5), (0, 2), (1, 8, 5)),
        ((2, 3, 1, 5), (0, 2), (1, 2, 15)),
        ((1, 1), (0, 1), (1, 1, 1)),
        ((), (), (1, 1, 1)),
        ((2, 0, 3), (1,), (2, 0, 3)),
        ((2, 0, 3), (0, 2), None),
    ],
    ids=str,
)
def test_axes_are_merged(shape: tuple[int, ...], axes: tuple[int, ...], expected: Any) -> None:
    assert ops.grouped(shape, axes) == expected

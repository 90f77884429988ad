"""Reductions over axes: kernels against loops over the definition, tensors and gradients against PyTorch."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, NHWC, SEED, check_threads, compare, draw, each_kernel, frozen, names, plant

import gpucnn
from gpucnn import backend
from gpucnn.ops import reduction as ops
from gpucnn.reference import reduction as reference
from gpucnn.reference.reduction import NormProblem, VarProblem
from gpucnn.testing import assert_close, assert_equal, gradcheck, naive

INF, NAN = math.inf, math.nan
SHAPE = (3, 5, 4, 2)
AXES = [(), (0,), (1,), (3,), (0, 2, 3), (2, 3), (1, 3), (0, 1, 2, 3)]
DTYPES = ["float64", "float32", "float16"]

# name: (table, gradient's table, problem of axes, name of the truth, its options)
REDUCTIONS: dict[str, Any] = {
    "sum": (ops.sum_, None, lambda axes: axes, "sum", {}),
    "mean": (ops.mean, None, lambda axes: axes, "mean", {}),
    "amax": (ops.amax, ops.amax_grad, lambda axes: axes, "amax", {}),
    "amin": (ops.amin, ops.amin_grad, lambda axes: axes, "amin", {}),
    "prod": (ops.prod, ops.prod_grad, lambda axes: axes, "prod", {}),
    "logsumexp": (ops.logsumexp, ops.logsumexp_grad, lambda axes: axes, "logsumexp", {}),
    "var": (ops.var, ops.var_grad, lambda axes: VarProblem(axes, 0, False), "var", {"correction": 0}),
    "var 1.5": (ops.var, ops.var_grad, lambda axes: VarProblem(axes, 1.5, False), "var", {"correction": 1.5}),
    "std": (ops.var, ops.var_grad, lambda axes: VarProblem(axes, 0.5, True), "std", {"correction": 0.5}),
    **{
        f"norm {p}": (ops.norm, ops.norm_grad, lambda axes, p=p: NormProblem(axes, p), "norm", {"p": p})
        for p in (0, 0.5, 1, 2, 3)
    },
}
INDEPENDENT = {"sum", "mean", "amax", "amin", "logsumexp", "norm"}  # of the number of terms: work over () too


@functools.cache
def given(kind: str, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return draw(kind, shape) if kind == "integers" else draw(kind, shape) / 2


@functools.cache
def truth(name: str, kind: str, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(result, dy, gradient)."""
    *_, formula, options = REDUCTIONS[name]
    y = getattr(naive.reduction, formula)(given(kind), axes, **options)
    dy = draw("integers", y.shape, 1)
    return y, dy, getattr(naive.reduction, f"{formula}_grad")(dy, given(kind), axes, **options)


@np.errstate(all="ignore")  # as the registry runs kernels
def check_kernels(name: str, kind: str, axes: tuple[int, ...], dtype: str, layout: str = "nchw") -> None:
    __tracebackhide__ = True
    table, gradient, problem, _, _ = REDUCTIONS[name]
    expected, dy, slope = truth(name, kind, axes)
    x, terms = frozen(LAYOUTS[layout](given(kind).astype(dtype))), max(1, given(kind).size // expected.size)
    for kernel, found in each_kernel(table, problem(axes), x):
        assert isinstance(found, np.ndarray), kernel
        assert found.dtype == dtype, kernel
        compare(found, expected, 4 * terms, f"{kernel} {dtype}", exact=kind == "integers" and name in ("sum", "amax"))
        if gradient is not None:
            y = frozen(expected, dtype)
            for other, dx in each_kernel(gradient, problem(axes), frozen(dy, dtype), x, y):
                assert dx.dtype == dtype, other
                # prod divides what is rounded; the root's gradient magnifies what y lost
                compare(dx, slope, 64 * terms, f"{other} {dtype}")


@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_every_kernel(name: str, axes: tuple[int, ...]) -> None:
    if not axes and name.split()[0] not in INDEPENDENT:
        axes = (0, 1)
    for dtype in DTYPES:
        for kind in ("normal", "integers"):
            if name == "prod" and len(axes) > 1 and (kind == "integers" or dtype != "float64"):
                continue  # beyond its range
            check_kernels(name, kind, axes, dtype)


@pytest.mark.parametrize("layout", ["nhwc", "strided", "reversed", "fortran"])
@pytest.mark.parametrize("name", ["sum", "mean", "var", "logsumexp", "prod", "norm 3"])
def test_kernels_take_any_memory_layout(name: str, layout: str) -> None:
    for axes in ((1,), (0, 2, 3), (2, 3)):
        check_kernels(name, "normal", axes, "float32", layout)


def test_these_are_all_kernels() -> None:
    tables = {table for row in REDUCTIONS.values() for table in row[:2] if table is not None}
    assert all(names(table) == ["array"] for table in tables)


# --------------------------------------------------------------------------------------------------- long sums


@pytest.mark.parametrize("layout", ["nhwc", "nchw", "strided"])
@pytest.mark.parametrize("axes", [(0, 2, 3), (2, 3), (1,), (0,), (3,), (0, 1, 2, 3)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_long_sums_keep_their_digits(axes: tuple[int, ...], layout: str, dtype: str) -> None:
    """Equal addends of one sign, where the rounding errors of a running sum all point one way."""
    value = float(np.dtype(dtype).type(0.7 if dtype == "float32" else 0.7 / 64))
    x = frozen(LAYOUTS[layout](np.full((16, 3, 64, 64), value, dtype)))
    terms = math.prod(x.shape[axis] for axis in axes)
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    for kernel, found in each_kernel(ops.sum_, axes, x):
        compare(found, np.full(kept, terms * value), terms, kernel)
    for kernel, found in each_kernel(ops.mean, axes, x):
        compare(found, np.full(kept, value), terms, kernel)


@pytest.mark.parametrize(
    "shape", [(3, 5000, 7), (1, 9001, 2), (70_001,), (5, 1, 4099), (9, 33, 1, 65), (2, 0, 9000)], ids=str
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_in_pieces_are_exact_for_integers(
    shape: tuple[int, ...], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every piece counts once, however the pieces are cut."""
    x = np.random.default_rng([SEED, *shape]).integers(-1, 2, shape).astype(dtype)
    for rows, chunk, piece in ((4096, 1 << 18, 1 << 21), (7, 11, 64)):
        for name, value in (("_ROWS", rows), ("_CHUNK", chunk), ("_PIECE_BYTES", piece), ("_SMALL", 0)):
            monkeypatch.setattr(reference, name, value)
        for axes in [(axis,) for axis in range(x.ndim)] + [tuple(range(x.ndim)), (0, x.ndim - 1)][: x.ndim]:
            total = x.astype(np.int64).sum(axis=axes, keepdims=True)
            for kernel, found in each_kernel(ops.sum_, axes, frozen(x)):
                assert_equal(found, total.astype(dtype), signed_zeros=False, name=kernel)


def test_a_far_mean_costs_the_variance_no_digits() -> None:
    x = gpucnn.tensor((1e4 + draw("integers", (2, 3, 40, 50))).astype("float32"))
    expected = x.numpy().astype("float64").var(axis=(0, 2, 3), ddof=1)
    assert_close(x.var((0, 2, 3)), expected, rtol=1e-5, atol=0)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    x = gpucnn.tensor(np.random.default_rng(SEED).standard_normal((8, 40, 100, 90)).astype("float32"))
    check_threads(lambda: [x.sum(dim).numpy() for dim in (None, (0, 2, 3), (2, 3), 1)])


# ------------------------------------------------------------------------------------------------ against PyTorch

CALLS: dict[str, Any] = {
    "sum": lambda t, d, k: t.sum(d, k),
    "mean": lambda t, d, k: t.mean(d, k),
    "amax": lambda t, d, k: t.amax(d, k),
    "amin": lambda t, d, k: t.amin(d, k),
    "var": lambda t, d, k: t.var(d, keepdim=k),
    "var biased": lambda t, d, k: t.var(d, False, k),
    "std": lambda t, d, k: t.std(d, correction=0.5, keepdim=k),
    "logsumexp": lambda t, d, k: t.logsumexp(d, k),
    **{f"norm {p}": lambda t, d, k, p=p: t.norm(p, d, k) for p in (0.5, 1, 1.5, 2, 3, INF, -INF)},
}


def check_like_pytorch(run: Any, x: np.ndarray, torch: Any) -> None:
    __tracebackhide__ = True
    ours, theirs = gpucnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, expected = run(ours), run(theirs)
    assert y.shape == tuple(expected.shape)
    assert_close(y, expected.detach(), rtol=1e-13, atol=1e-13, equal_nan=True, name="y")
    dy = draw("normal", y.shape, 1)
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    assert_close(ours.grad, theirs.grad, rtol=1e-11, atol=1e-12, equal_nan=True, name="gradient")


@pytest.mark.peers
@pytest.mark.parametrize("name", CALLS)
def test_values_and_gradients_are_pytorchs(name: str, torch: Any) -> None:
    for kind in ("normal", "integers"):  # integers have ties and zeros
        for dim in (0, -1, (0, 2), (1, -1), (0, 1, 2, 3)):
            for keepdim in (False, True):
                check_like_pytorch(lambda t, d=dim, k=keepdim: CALLS[name](t, d, k), given(kind), torch)


@pytest.mark.peers
@pytest.mark.parametrize("name", ["sum", "mean", "prod", "max", "min", "amax", "amin", "var", "std", "norm"])
def test_over_all_elements_as_pytorch(name: str, torch: Any) -> None:
    for x in (given("normal"), given("integers"), np.array(2.5), np.array([[1.0, 1.0], [1.0, 1.0]])):
        if x.size > 1 or name not in ("var", "std"):
            check_like_pytorch(lambda t: getattr(t, name)(), x, torch)


@pytest.mark.peers
@pytest.mark.parametrize("keepdim", [False, True])
def test_products_are_pytorchs_with_zeros_too(keepdim: bool, torch: Any) -> None:
    rows = np.array([[0.0, 2, 3], [0, 0, 1], [4, 5, 6]])
    for dim in (0, 1):
        check_like_pytorch(lambda t, d=dim: t.prod(d, keepdim), rows, torch)
    check_like_pytorch(lambda t: t.prod(-2, keepdim), given("integers"), torch)


@pytest.mark.peers
def test_a_tensor_without_axes_has_the_axes_0_and_minus_1_as_in_pytorch(torch: Any) -> None:
    for name in ("sum", "mean", "amax", "logsumexp", "prod"):
        for dim in (0, -1):
            check_like_pytorch(lambda t, n=name, d=dim: getattr(t, n)(d), np.array(3.0), torch)
    with pytest.raises(ValueError, match="axis 1 is out of range"):
        gpucnn.tensor(3.0).sum(1)


@pytest.mark.peers
def test_any_and_all_are_pytorchs(torch: Any) -> None:
    for x in (given("integers"), np.array([[NAN, 0.0], [1.0, 2.0]]), np.array([[True, False], [True, True]])):
        for name in ("any", "all"):
            for arguments in ((), (0,), (-1, True), ((0, 1),)):
                found = getattr(gpucnn.tensor(x), name)(*arguments)
                assert found.dtype == np.bool_
                assert_equal(found, getattr(torch.tensor(x), name)(*arguments).numpy())
    assert gpucnn.zeros(0).all().item()
    assert not gpucnn.zeros(0).any().item()


# ------------------------------------------------------------------------------------------------------ gradients


@pytest.mark.parametrize(
    "run",
    [
        lambda t: t.sum((0, 3)) * t.mean((1, 2)).sum(),
        lambda t: t.var((0, 2)) + t.std((0, 2), correction=0.5),
        lambda t: t.prod(1).logsumexp((0, 2)),
        lambda t: t.norm(3, (1, 2)) * t.norm(1.5, (1, 2), True).sum() / t.norm(),
        lambda t: t.amax((0, 2)) - t.amin(3).sum(),
    ],
    ids=["sum", "var", "prod", "norm", "extrema"],
)
def test_gradients_are_central_differences(run: Any) -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 2, 3)) + 0.5, requires_grad=True)
    assert gradcheck(run, [x])


@pytest.mark.parametrize("dim", [None, 1, 2, (2, 3), (0, 2, 3), (0, 1, 2, 3)], ids=str)
@pytest.mark.parametrize("name", ["sum", "mean", "amax", "var", "norm", "logsumexp", "prod"])
def test_channels_last_stays_channels_last_without_a_copy(name: str, dim: Any) -> None:
    if name == "prod" and isinstance(dim, tuple):
        dim = 3
    x = gpucnn.tensor(draw("normal", (2, 3, 4, 5)), requires_grad=True)
    call = {"norm": lambda t: t.norm(2, dim), "logsumexp": lambda t: t.logsumexp(dim)}.get(
        name, lambda t: getattr(t, name)(dim)
    )
    with backend.count_layout_copies() as copies:
        y = call(x * 2)
        y.backward(y.detach())
    assert copies.value == 0
    assert x.grad.data.transpose(NHWC).flags.c_contiguous


# -------------------------------------------------------------------------------------------------------- corners


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_integers_are_summed_and_multiplied_in_64_bits(dtype: str) -> None:
    total = gpucnn.tensor(np.ones(300), dtype).sum()
    assert (total.item(), total.dtype.itemsize) == (300, 8)
    product = (
        (gpucnn.tensor(np.ones(20), "int32") * 4).prod() if dtype == "int32" else gpucnn.ones(3, dtype=dtype).prod()
    )
    assert (product.item(), product.dtype.itemsize) == (4**20 if dtype == "int32" else 1, 8)


def test_nothing_sums_to_zero_multiplies_to_one_and_has_no_mean() -> None:
    x = gpucnn.zeros(0, 3, requires_grad=True)
    assert_equal(x.sum(0), np.zeros(3, np.float32))
    assert_equal(x.prod(0), np.ones(3, np.float32))
    assert_equal(x.mean(0), np.full(3, NAN, np.float32))
    assert_equal(x.logsumexp(0), np.full(3, -INF, np.float32))
    assert_equal(x.norm(2, 0), np.zeros(3, np.float32))
    assert_equal(gpucnn.ones(1, 3).var(0), np.full(3, NAN, np.float32))
    assert x.amax(1).shape == (0,)
    for run in (x.sum, x.prod, x.mean, x.logsumexp):
        x.grad = None
        run(0).backward(np.ones(3, np.float32))
        assert x.grad is not None
        assert x.grad.shape == (0, 3)
    assert gpucnn.tensor(2.0).sum().item() == gpucnn.tensor(2.0).mean().item() == 2


def test_infinities_and_overflow_warn_of_nothing() -> None:
    x = gpucnn.tensor([[INF, -INF], [INF, 1.0]], requires_grad=True)
    assert_equal(x.sum(1), np.array([NAN, INF], np.float32))
    assert_equal(x.mean(1), np.array([NAN, INF], np.float32))
    assert_equal(x.amax(1), np.array([INF, INF], np.float32))
    assert_equal(x.norm(2, 1), np.array([INF, INF], np.float32))
    assert_equal(x.logsumexp(1), np.array([INF, INF], np.float32))
    assert_equal(x.var(1), np.array([NAN, NAN], np.float32))
    y = gpucnn.tensor(np.full(8, 60_000), "float16")
    assert (y.sum().item(), y.mean().item(), y.std().item(), y.prod().item()) == (INF, 60_000, 0, INF)
    assert gpucnn.tensor([1000.0, 1000.0]).logsumexp(0).item() == pytest.approx(1000 + math.log(2), abs=1e-4)


def test_a_nan_is_the_extremum_and_takes_its_gradient() -> None:
    x = gpucnn.tensor([[1.0, NAN, 3.0], [4.0, 4.0, 2.0]], requires_grad=True)
    for name in ("amax", "amin"):
        y = getattr(x, name)(1)
        assert math.isnan(y.numpy()[0])
    x.amax(1).backward(np.array([2.0, 4.0], np.float32))
    assert_equal(x.grad, np.array([[0, 2, 0], [2, 2, 0]], np.float32), signed_zeros=False)


def test_gradients_where_the_result_is_0_are_0() -> None:
    x = gpucnn.ones(2, 3, requires_grad=True)
    (x.std(1).sum() + (x * 0).norm() + (x * 0).norm(3) + (x * 0).norm(1)).backward()
    assert_equal(x.grad, np.zeros((2, 3), np.float32), signed_zeros=False)


def test_what_does_not_fit_is_refused() -> None:
    x = gpucnn.zeros(2, 0, 3)
    for name, word in (("amax", "largest"), ("max", "largest"), ("amin", "smallest"), ("min", "smallest")):
        with pytest.raises(ValueError, match=rf"shape \(2, 0, 3\) has no {word} element"):
            getattr(x, name)()
        with pytest.raises(ValueError, match=f"no {word} element"):
            getattr(x, name)(1)
    for name in ("var", "std", "norm", "mean"):
        with pytest.raises(TypeError, match=f"{name} needs a floating dtype, got int64"):
            getattr(gpucnn.ones(3, dtype="int64"), name)()
    with pytest.raises(ValueError, match="p must be a number or 'fro', got 'nuc'"):
        gpucnn.ones(3).norm("nuc")
    for name in ("var", "amax", "prod", "logsumexp", "any"):
        with pytest.raises(ValueError, match="axis 2 is out of range"):
            getattr(gpucnn.ones(2, 3), name)(2)


# ----------------------------------------------------------------------------------- wrong kernels must be caught


@pytest.mark.parametrize(
    ("name", "number", "wrong"),
    [
        ("sum", 0, lambda p, x: x[1:].sum(axis=p, keepdims=True, dtype=x.dtype)),
        ("mean", 0, lambda p, x: x.sum(axis=p, keepdims=True) / x.dtype.type(x.shape[0])),
        ("amax", 1, lambda p, dy, x, y: dy * (x == y)),
        ("prod", 1, lambda p, dy, x, y: dy * y / np.where(x == 0, 1, x)),
        ("var", 0, lambda p, x: x.var(axis=p.axes, keepdims=True, ddof=1)),
        ("std", 1, lambda p, dy, x, y: dy * (x - x.mean(axis=p.axes, keepdims=True)) / y),
        ("norm 3", 0, lambda p, x: (x**3).sum(axis=p.axes, keepdims=True)),
        ("logsumexp", 1, lambda p, dy, x, y: dy * np.exp(x)),
    ],
    ids=["row-missing", "one-axis-counted", "ties", "zeros", "correction", "divisor", "no-root", "not-divided"],
)
def test_a_wrong_kernel_is_caught(name: str, number: int, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    table = REDUCTIONS[name][number]
    plant(monkeypatch, table, wrong)
    with pytest.raises(AssertionError, match=f"{table} planted float32: .* elements are wrong"):
        check_kernels(name, "integers", (1,) if name == "prod" else (0, 2, 3), "float32")

"""Layer norm and local response norm on the CPU: every pass against the truth, in any order of threads, and what the
bindings refuse."""

from __future__ import annotations

import functools
import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS, Memory, Planted, sample
from norm_checks import held, rms
from op_checks import SEED, draw

import gpucnn
from gpucnn import backend
from gpucnn import functional as F
from gpucnn.ops.compiled import FLOATS
from gpucnn.reference import layer_norm
from gpucnn.reference.norm_problem import Wanted
from gpucnn.testing import assert_close, assert_equal, naive, tolerance
from gpucnn.testing.pairwise import pairwise

COLUMNS = [1, 2, 3, 4, 7, 8, 9, 31, 32, 33, 96, 127, 128, 129, 255, 256, 257, 1000, 1023, 1024, 1025, 1028, 1032, 2304]
"""Across a pack of 4 or 8, a warp's 32, what it holds in registers (1,024), a block's 256 packs."""

Case = tuple[int, int, str, bool]
"""Rows, columns, dtype, with weight and bias."""

CASES: list[Case] = [
    *((5, columns, FLOATS[number % 3], True) for number, columns in enumerate(COLUMNS)),
    *((rows, 8, FLOATS[rows % 3], rows % 2 == 0) for rows in (1, 2, 7, 31, 32, 33, 127, 128, 129, 1100)),
    *((rows, 3, FLOATS[rows % 3], True) for rows in (9, 130, 9000)),  # several splits of the sums over rows
    *((3, columns, dtype, True) for columns in (1027, 1032) for dtype in FLOATS),
    (2, 5000, "float32", True),
    (0, 8, "float32", True),
    (3, 0, "float32", True),
    *(
        (choice["rows"], choice["columns"], choice["dtype"], choice["affine"])
        for choice in pairwise(
            {
                "rows": [1, 6, 20, 70, 600],
                "columns": [1, 5, 12, 24, 40, 64, 100, 260],
                "dtype": FLOATS,
                "affine": [True, False],
            },
            SEED,
        )
    ),
]


def rounded(arrays: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """What every dtype of the call holds."""
    return {name: array.astype(dtype).astype(np.float64) for name, array in arrays.items()}


@functools.cache
def numbers(case: Case) -> dict[str, np.ndarray]:
    rows, columns, dtype, _ = case
    x = held(draw("normal", (rows, columns)) * 2 + draw("normal", (rows, 1), 7) * 10)
    n = {"x": x, "dy": draw("normal", (rows, columns), 1)}
    return rounded(n | {"weight": draw("normal", (columns,), 2), "bias": draw("normal", (columns,), 3)}, dtype)


@functools.cache
def truth(case: Case) -> dict[str, np.ndarray]:
    """Of the reference in float64, which test_layer_norm.py holds against plain loops."""
    n = numbers(case)
    weight, bias = (n["weight"], n["bias"]) if case[3] else (None, None)
    with np.errstate(all="ignore"):
        y, mean, inverse = layer_norm.fprop(1e-5, n["x"], weight, bias)
        dx, dweight, dbias = layer_norm.bprop(Wanted(True, True, True), n["dy"], n["x"], weight, mean, inverse)
    return {"y": y, "mean": mean, "inverse": inverse, "dx": dx, "sums": np.stack([dbias, dweight])}


def results(module: Any, case: Case, n: dict[str, np.ndarray], t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the bindings make of it; no other memory is touched."""
    __tracebackhide__ = True
    rows, columns, dtype, affine = case
    memory, scratch = Memory(), Memory()
    x, dy = memory.given("x", n["x"], dtype), memory.given("dy", n["dy"], dtype)
    weight, bias = (memory.given(name, n[name]) if affine else None for name in ("weight", "bias"))
    y = memory.wanted("y", x.shape, dtype)
    mean, inverse = (memory.wanted(name, (rows, 1), np.float64) for name in ("mean", "inverse"))
    module.layer_norm_fprop(1e-5, dtype, x, weight, bias, y, mean, inverse, 0)
    saved = [memory.given(f"saved {name}", t[name], np.float64) for name in ("mean", "inverse")]
    dx, sums = memory.wanted("dx", x.shape, dtype), memory.wanted("sums", (2, columns))
    alone = memory.wanted("dx alone", x.shape, dtype)
    splits = module.layer_norm_splits(dtype, rows, columns)
    partial = scratch.wanted("partial", (splits, 2, columns), some_are_poison=True) if splits > 1 else None
    module.layer_norm_bprop(dtype, dy, x, weight, *saved, dx, sums, partial, 0)
    module.layer_norm_bprop(dtype, dy, x, weight, *saved, alone, None, None, 0)
    assert alone.tobytes() == dx.tobytes(), f"{case}: dx alone"
    if x.size:
        memory.check(f"{case}")
    scratch.check(f"{case}")
    return {"y": y, "mean": mean, "inverse": inverse, "dx": dx, "sums": sums}


def check(module: Any, case: Case) -> None:
    __tracebackhide__ = True
    rows, columns, _, affine = case
    n, t = numbers(case), truth(case)
    found = results(module, case, n, t)
    if not rows * columns:
        return  # nothing is launched; the op gives the rest
    weight = float(np.abs(n["weight"]).max()) if affine else 1.0
    steep, spread = float(t["inverse"].max()), float(np.abs((n["x"] - t["mean"]) * t["inverse"]).max())
    large = {
        "y": 1 + weight * spread,
        "mean": 1 + rms(n["x"]),
        "inverse": steep,
        "dx": 3 * rms(n["dy"]) * weight * steep * max(1.0, spread),
        "sums": (1 + rms(n["dy"])) * rows**0.5 * max(1.0, spread),
    }
    for name, array in found.items():
        allowed = tolerance(array.dtype if array.itemsize == 2 else np.float32, max(columns, rows * (name == "sums")))
        judged = array.astype(np.float32) if array.dtype == np.float64 else array
        assert_close(judged, t[name], rtol=allowed, atol=allowed * large[name], name=f"{case}: {name}")


@pytest.mark.parametrize("order", ORDERS)
def test_layer_norm_in_any_order(simt: ModuleType, order: str) -> None:
    simt.set_order(order)
    for case in sample(simt.flavour, CASES) if order == "fwd" else sample(simt.flavour, CASES)[:: len(ORDERS)]:
        check(simt, case)


def test_layer_norm_against_plain_loops(simt: ModuleType) -> None:
    for rows, columns in ((4, 9), (3, 24)):
        case = (rows, columns, "float32", True)
        n = numbers(case)
        found = results(simt, case, n, truth(case))
        dx, dweight, dbias = naive.layer_norm_grad(n["dy"], n["x"], 1, n["weight"])
        y = naive.layer_norm(n["x"], 1, n["weight"], n["bias"])
        for name, right in {"y": y, "dx": dx, "sums": np.stack([dbias, dweight])}.items():
            assert_close(found[name], right, rtol=1e-5, atol=2e-5, name=f"{case}: {name}")


@pytest.mark.parametrize("columns", [8, 12, 1024, 2048, 1025])
@pytest.mark.parametrize("mean", [0.0, 1e4, -3e5])
def test_a_large_mean_costs_no_digits(simt: ModuleType, columns: int, mean: float) -> None:
    x = (mean + np.random.default_rng(SEED).standard_normal((5, columns))).astype(np.float32)
    wide = x.astype(np.float64)
    y, found, inverse = np.empty_like(x), np.empty((5, 1)), np.empty((5, 1))
    simt.layer_norm_fprop(1e-12, "float32", x, None, None, y, found, inverse, 0)
    deviation = wide.std(axis=1, keepdims=True)
    assert_close(found, wide.mean(axis=1, keepdims=True), rtol=0, atol=1e-6)
    assert_close(inverse, 1 / deviation, rtol=2e-6, atol=0)
    assert_close(y, (wide - wide.mean(axis=1, keepdims=True)) / deviation, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("value", [0.0, 1 / 3, -1e7, 1e30])
@pytest.mark.parametrize("columns", [7, 64, 1028])
def test_a_constant_row_is_the_bias(simt: ModuleType, value: float, columns: int) -> None:
    x, bias = np.full((3, columns), value, np.float32), draw("normal", (columns,)).astype(np.float32)
    y, mean, inverse = np.empty_like(x), np.empty((3, 1)), np.empty((3, 1))
    simt.layer_norm_fprop(1e-5, "float32", x, None, bias, y, mean, inverse, 0)
    assert_equal(y, np.broadcast_to(bias, x.shape))
    assert_equal(mean, np.full((3, 1), np.float64(np.float32(value))))


def test_infinities_and_nan_stay_in_their_row(simt: ModuleType) -> None:
    for columns in (9, 64, 1028):
        x = np.array(draw("normal", (6, columns)), np.float32)
        x[0, 0], x[1, 5], x[2, 8] = math.nan, math.inf, -math.inf
        y, mean, inverse = np.empty_like(x), np.empty((6, 1)), np.empty((6, 1))
        simt.layer_norm_fprop(1e-5, "float32", x, None, None, y, mean, inverse, 0)
        assert np.isnan(y[:3]).all()
        assert np.isfinite(y[3:]).all()


# ------------------------------------------------------------------------------------- the same bits, wrong kernels


def test_one_order_has_the_bits_of_another(simt: ModuleType) -> None:
    case = (300, 24, "float32", True)
    runs = []
    for order in (*ORDERS, "fwd"):
        simt.set_order(order)
        found = results(simt, case, numbers(case), truth(case))
        runs.append(b"".join(array.tobytes() for array in found.values()))
    assert len(set(runs)) == 1


@pytest.mark.parametrize("start", [1, 2, 3])
@pytest.mark.parametrize("dtype", FLOATS)
def test_memory_that_is_not_aligned_to_16_bytes(simt: ModuleType, start: int, dtype: str) -> None:
    """Results are those of aligned arrays, but for the order of sums."""

    def run(start: int) -> list[np.ndarray]:
        def place(array: np.ndarray) -> np.ndarray:
            moved = np.empty(array.size + start, dtype)[start:].reshape(array.shape)
            moved[...] = array
            return moved

        x, dy, y, dx = (place(draw("normal", (9, 64), number)) for number in range(4))
        mean, inverse, sums = np.empty((9, 1)), np.empty((9, 1)), np.empty((2, 64), np.float32)
        z, dz = place(x), place(x)
        simt.layer_norm_fprop(1e-5, dtype, x, None, None, y, mean, inverse, 0)
        simt.layer_norm_bprop(dtype, dy, x, None, mean, inverse, dx, sums, None, 0)
        simt.local_response_fprop(dtype, 5, 0.7, 0.75, 2.0, x, z, 0)
        simt.local_response_dgrad(dtype, 5, 0.7, 0.75, 2.0, dy, x, dz, 0)
        return [y, dx, sums, z, dz]

    for one, other in zip(run(0), run(start), strict=True):
        allowed = 4 * tolerance(one.dtype, 64)
        assert_close(one, other.astype(np.float64), rtol=allowed, atol=allowed)


def swap_rows(sums: np.ndarray | None) -> None:
    if sums is not None:
        sums[...] = sums[::-1].copy()


WRONG: dict[str, dict[str, Any]] = {
    "mean forgotten": {
        "layer_norm_fprop": lambda run, e, d, x, w, b, y, *rest: (run(e, d, x, w, b, y, *rest), np.copyto(y, x))
    },
    "weight forgotten": {"layer_norm_fprop": lambda run, e, d, x, w, *rest: run(e, d, x, None, *rest)},
    "eps forgotten": {"layer_norm_fprop": lambda run, e, *rest: run(1.0, *rest)},
    "last row unwritten": {"layer_norm_bprop": lambda run, *a: (run(*a), a[6][-1].fill(math.nan))},
    "weight of the gradient forgotten": {"layer_norm_bprop": lambda run, *a: run(*a[:3], None, *a[4:])},
    "sums swapped": {
        "layer_norm_bprop": lambda run, *a: (run(*a), None if a[7] is None else np.copyto(a[7], a[7][::-1].copy()))
    },
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_layer_norm_is_caught(simt: ModuleType, wrong: str) -> None:
    case = (7, 24, "float32", True)
    check(simt, case)
    with pytest.raises(AssertionError, match=r"elements are wrong|never written"):
        check(Planted(simt, **WRONG[wrong]), case)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_functions_run_these_kernels(simt: ModuleType, dtype: str) -> None:
    """Forward and backward, with the results of the reference in the same dtype."""

    def run(backend_name: str, function: Any, shape: tuple[int, ...], affine: tuple[int, ...]) -> list[np.ndarray]:
        with backend.use_backend(backend_name, strict=True):
            leaves = [gpucnn.tensor(draw("normal", shape), dtype, requires_grad=True)]
            leaves += [gpucnn.tensor(draw("normal", affine, n), dtype, requires_grad=True) for n in (1, 2) if affine]
            y = function(*leaves)
            y.backward(draw("normal", shape, 3).astype(dtype))
            return [y.numpy(), *(leaf.grad.numpy() for leaf in leaves)]

    calls: list[tuple[Any, tuple[int, ...], tuple[int, ...]]] = [
        *((lambda x, w, b: F.layer_norm(x, w.shape, w, b), (3, L), (L,)) for L in (5, 8, 1027, 1032)),
        (lambda x, w, b: F.layer_norm(x, w.shape, w, b), (9000, 4), (4,)),
        (lambda x, w, b: F.layer_norm(x, w.shape, w, b), (2, 3, 4, 5), (3, 4, 5)),
        *((lambda x: F.local_response_norm(x, 5, 0.7), (2, C, 1, 2), ()) for C in (5, 8, 2049)),
    ]
    for call in calls if simt.flavour == "plain" else [*calls[:2], *calls[5:8]]:
        for found, right in zip(run("simt", *call), run("reference", *call), strict=True):
            size = 1 + float(np.abs(right.astype(np.float64)).max())
            allowed = 4 * tolerance(found.dtype, 64)
            assert_close(found, right.astype(np.float64), rtol=allowed, atol=allowed * size, name=f"{call[1]}")


# ---------------------------------------------------------------------------------------------- what bindings refuse


def layer_calls() -> dict[str, dict[str, Any]]:
    """Arguments that fit, by binding."""

    def full(*shape: int) -> np.ndarray:
        return np.full(shape, 7, np.float32)

    statistics = {"mean": np.full((5, 1), 7.0), "inverse": np.full((5, 1), 7.0)}
    return {
        "layer_norm_fprop": {
            **{"eps": 1e-5, "dtype": "float32", "x": full(5, 8), "weight": full(8), "bias": full(8), "y": full(5, 8)},
            **statistics,
        },
        "layer_norm_bprop": {
            **{"dtype": "float32", "dy": full(5, 8), "x": full(5, 8), "weight": full(8), **statistics},
            **{"dx": full(5, 8), "sums": full(2, 8), "partial": None},
        },
        "local_response_fprop": {
            **{"dtype": "float32", "size": 5, "alpha": 1.0, "beta": 1.0, "k": 1.0, "x": full(5, 8), "y": full(5, 8)}
        },
        "local_response_dgrad": {
            **{"dtype": "float32", "size": 5, "alpha": 1.0, "beta": 1.0, "k": 1.0},
            **{"dy": full(5, 8), "x": full(5, 8), "dx": full(5, 8)},
        },
    }


def test_arguments_that_do_not_fit_are_refused_and_nothing_is_written(simt: ModuleType) -> None:
    for name, arguments in layer_calls().items():
        getattr(simt, name)(*arguments.values(), 0)
    sevens = np.full((5, 8), 7, np.float32)
    locked = sevens.copy()
    locked.flags.writeable = False
    calls: list[tuple[str, dict[str, Any], type[Exception], str]] = [
        ("layer_norm_fprop", {"dtype": "float64"}, ValueError, "dtype must be float32, float16 or bfloat16"),
        ("layer_norm_fprop", {"x": sevens.astype("f8")}, TypeError, "'x' .*must be float32"),
        ("layer_norm_fprop", {"x": sevens[0]}, ValueError, r"'x' of shape \(8,\) must have two axes"),
        ("layer_norm_fprop", {"x": sevens[:, ::-1]}, ValueError, "'x' .*must be C-contiguous"),
        ("layer_norm_fprop", {"y": sevens[:4]}, ValueError, r"'y' of shape \(4, 8\) must have shape \(5, 8\)"),
        ("layer_norm_fprop", {"y": locked}, ValueError, "'y' .*is read-only"),
        ("layer_norm_fprop", {"y": lambda a: a["x"]}, ValueError, "overlap in memory"),
        ("layer_norm_fprop", {"weight": sevens[0, :7]}, ValueError, "'weight' of shape"),
        ("layer_norm_fprop", {"bias": np.full(8, 7.0)}, TypeError, "'bias' .*must be float32"),
        ("layer_norm_fprop", {"mean": sevens[:, :1].copy()}, TypeError, "'mean' .*must be float64"),
        ("layer_norm_fprop", {"mean": lambda a: a["inverse"]}, ValueError, "overlap in memory"),
        ("layer_norm_bprop", {"dx": lambda a: a["dy"]}, ValueError, "overlap in memory"),
        ("layer_norm_bprop", {"dy": sevens[:4]}, ValueError, "'dy' of shape"),
        ("layer_norm_bprop", {"sums": sevens[:3]}, ValueError, "'sums' of shape"),
        ("layer_norm_bprop", {"partial": sevens}, ValueError, "'partial' of shape"),
        ("local_response_fprop", {"size": 0}, ValueError, "size must be at least 1, got 0"),
        ("local_response_fprop", {"y": lambda a: a["x"]}, ValueError, "overlap in memory"),
        ("local_response_fprop", {"y": sevens[:4]}, ValueError, "'y' of shape"),
        ("local_response_dgrad", {"dx": lambda a: a["x"]}, ValueError, "overlap in memory"),
        ("local_response_dgrad", {"dy": None}, TypeError, "'dy' must be an array in CPU memory"),
    ]
    for name, changed, error, message in calls:
        arguments = layer_calls()[name]
        arguments |= {key: change(arguments) if callable(change) else change for key, change in changed.items()}
        with pytest.raises(error, match=message):
            getattr(simt, name)(*arguments.values(), 0)
        assert all((a == 7).all() for a in arguments.values() if isinstance(a, np.ndarray)), message
    x = np.full((9000, 3), 7, np.float32)
    assert simt.layer_norm_splits("float32", 9000, 3) > 1
    with pytest.raises(ValueError, match="partial is needed for the sums of"):
        simt.layer_norm_bprop(
            "float32", x, x, None, np.ones((9000, 1)), np.ones((9000, 1)), None, np.full((2, 3), 7, "f4"), None, 0
        )
    with pytest.raises(ValueError, match="rows and columns must be at least 0"):
        simt.layer_norm_splits("float32", -1, 3)

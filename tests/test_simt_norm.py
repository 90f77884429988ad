"""Batch, instance and group norm on the CPU: every pass against the truth, in any order of threads, and what the
bindings refuse."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS, Memory, Planted, sample
from norm_checks import held, rms
from op_checks import SEED, draw, frozen

import gpucnn
from gpucnn import backend, nn
from gpucnn import functional as F
from gpucnn.ops import norm as ops
from gpucnn.ops.compiled import FLOATS
from gpucnn.optim import SGD
from gpucnn.reference import norm as reference
from gpucnn.reference.norm_problem import NormProblem, Wanted
from gpucnn.testing import assert_close, assert_equal, naive, tolerance
from gpucnn.testing.pairwise import pairwise

INF = math.inf
ALL = Wanted(True, True, True, True)


@dataclass(frozen=True)
class Case:
    """A problem, and which arrays and gradients a call of it has."""

    p: NormProblem
    dtype: str = "float32"
    affine: bool = True
    running: bool = False
    residual: bool = False
    wanted: Wanted = ALL

    def __str__(self) -> str:
        p, extra = self.p, [name for name in ("affine", "running", "residual") if getattr(self, name)]
        return f"{p.B}x{p.M}x{p.C}g{p.groups} limit {p.limit} by {p.momentum} {self.dtype} {' '.join(extra)}"


def batch(M: int, C: int, limit: float | None = None, momentum: float | None = 0.25) -> NormProblem:
    return NormProblem(1, M, C, C, 1e-5, momentum, limit)


CORNERS = [
    *(Case(batch(M, 8, INF), residual=True) for M in (1, 2, 7, 31, 32, 33, 127, 128, 129)),
    *(
        Case(batch(33, C, INF), FLOATS[C % 3], running=True)
        for C in (1, 2, 3, 4, 5, 7, 8, 12, 16, 31, 32, 33, 127, 129)
    ),
    *(Case(batch(19, C), FLOATS[C % 3]) for C in (128, 132, 136, 520, 2048)),
    Case(batch(2, 2048, INF), residual=True),  # more threads along a row than there are rows for
    Case(batch(1, 2056), "float16"),
    *(Case(batch(M, 4, 6.0), FLOATS[M % 3], running=True) for M in (1000, 2048, 2049)),  # several splits
    Case(batch(5000, 3, INF), residual=True, running=True),
    Case(batch(5000, 32), running=True),  # 10 and 18 splits: blocks of 512 and of 1,024 threads merge them
    Case(batch(9000, 32, INF), residual=True),
    Case(batch(4100, 8, INF), "bfloat16", residual=True),
    Case(batch(37, 12, INF, None), running=True, residual=True),
    Case(batch(37, 5, None, None), running=True),
    Case(batch(300, 16, 6.0, None), "float16", running=True, wanted=Wanted(True, False, False, True)),
    Case(NormProblem(5, 12, 6, 6, limit=INF, momentum=0.5), running=True, residual=True),
    Case(NormProblem(5, 12, 6, 2)),
    Case(NormProblem(3, 49, 8, 1, limit=6.0), "float16"),
    Case(NormProblem(2, 1, 12, 3), affine=False),
    Case(NormProblem(2, 300, 96, 2), "bfloat16"),
    Case(NormProblem(40, 4, 4, 4)),
    Case(NormProblem(3, 1100, 4, 2)),
    Case(NormProblem(0, 4, 8, 8), running=True),
    Case(NormProblem(2, 0, 8, 4)),
    Case(batch(0, 8, INF), running=True, residual=True),
]

_FACTORS: dict[str, list[Any]] = {
    "B": [1, 1, 2, 5],
    "M": [1, 2, 16, 30, 65, 150, 700],
    "C": [1, 3, 4, 6, 8, 16, 24, 33, 64, 140],
    "grouped": [False, False, True],
    "limit": [None, INF, 6.0],
    "momentum": [0.0, 0.3, None],
    "dtype": list(FLOATS),
    "affine": [True, False],
    "running": [True, False],
    "residual": [True, False],
    "wanted": [ALL, Wanted(True, False, False, True), Wanted(False, True, True), Wanted(True, False, False)],
}


def _case(choice: dict[str, Any]) -> Case:
    B, M, C = choice["B"], choice["M"], choice["C"]
    own = choice["momentum"] is not None
    groups = C if not own or choice["running"] or not choice["grouped"] else next(g for g in (3, 2, 1) if C % g == 0)
    p = NormProblem(B if own else 1, M, C, groups, 1e-5, choice["momentum"], choice["limit"])
    wanted = choice["wanted"] if choice["residual"] else choice["wanted"]._replace(residual=False)
    running = choice["running"] or not own
    return Case(p, choice["dtype"], choice["affine"], running, choice["residual"], wanted)


CASES = [*CORNERS, *map(_case, pairwise(_FACTORS, SEED))]


@functools.cache
def numbers(case: Case) -> dict[str, np.ndarray]:
    p = case.p
    images, channels = (p.B, p.M, p.C), (p.C,)
    n = {
        "x": held(draw("normal", images) * 2 + draw("normal", (p.B, 1, p.C), 7) * 10),
        "dy": held(draw("normal", images, 1)),
        "residual": held(draw("normal", images, 6)),
        "weight": held(draw("normal", channels, 2)),
        "bias": held(draw("normal", channels, 3)),
        "running_mean": held(draw("normal", channels, 4)),
        "running_var": held(np.abs(draw("normal", channels, 5)) + 0.5),
    }
    if case.dtype == "bfloat16":
        n = {name: array.astype(case.dtype).astype(np.float64) for name, array in n.items()}
    return n


@functools.cache
def truth(case: Case) -> dict[str, np.ndarray | None]:
    """Of the reference in float64, which test_batch_norm.py and its like hold against plain loops."""
    p, n = case.p, numbers(case)
    weight, bias = (n["weight"], n["bias"]) if case.affine else (None, None)
    kept = (n["running_mean"].copy(), n["running_var"].copy())
    with np.errstate(all="ignore"):
        y, mean, inverse = reference.fprop(
            p, n["x"], weight, bias, kept if case.running else None, n["residual"] if case.residual else None
        )
        rounded = y.astype(case.dtype)  # what the kernel is given, so that both cut at the same places
        dx, dweight, dbias, passed = reference.bprop(
            p, n["dy"], n["x"], rounded.astype(np.float64), weight, mean, inverse, case.wanted
        )
    return {
        **{"y": y, "mean": mean, "inverse": inverse, "dx": dx, "dweight": dweight, "dbias": dbias, "passed": passed},
        **dict(zip(("running_mean", "running_var"), kept, strict=True)),
        "saved y": rounded,
    }


def results(module: Any, case: Case, n: dict[str, np.ndarray], t: dict[str, Any]) -> dict[str, np.ndarray | None]:
    """What the bindings make of it; no other memory is touched."""
    __tracebackhide__ = True
    p, memory = case.p, Memory()
    splits, images = module.norm_splits(p, case.dtype), (p.B, p.M, p.C)

    def given(name: str, there: bool = True, dtype: str = "float32") -> Any:
        return memory.given(name, n[name], dtype) if there else None

    def wanted(name: str, shape: tuple[int, ...], there: bool = True, dtype: str = "float32") -> Any:
        return memory.wanted(name, shape, dtype) if there else None

    x, dy = given("x", dtype=case.dtype), given("dy", dtype=case.dtype)
    residual = given("residual", case.residual, case.dtype)
    weight, bias = given("weight", case.affine), given("bias", case.affine)
    kept = [wanted(name, (p.C,), case.running) for name in ("running_mean", "running_var")]
    for array, name in zip(kept, ("running_mean", "running_var"), strict=True):
        if array is not None:
            array[...] = n[name]
    y = wanted("y", images, dtype=case.dtype)
    mean, inverse = (wanted(name, (p.B, p.C), dtype="float64") for name in ("mean", "inverse"))
    own = p.momentum is not None
    scratch = Memory()  # may be left partly unwritten
    partial = scratch.wanted("partial", (p.B, 2 * splits + 1, p.C), some_are_poison=True) if own else None
    linear = scratch.wanted("coefficients", (3, p.B, p.C), some_are_poison=True)
    module.norm_fprop(p, case.dtype, x, weight, bias, *kept, residual, y, mean, inverse, partial, linear, 0)
    if not x.size:
        mean[...], inverse[...] = 0.0, 1.0  # the op's to set
        y = y if y.size else np.empty(images, case.dtype)

    w = case.wanted
    saved = memory.given("saved y", t["saved y"], case.dtype) if p.limit is not None else None
    statistics = [memory.given(f"saved {name}", t[name], np.float64) for name in ("mean", "inverse")]
    dx = wanted("dx", images, w.x, case.dtype)
    passed = wanted("passed", images, w.residual and p.limit is not None, case.dtype)
    dweight, dbias = wanted("dweight", (p.C,), w.weight), wanted("dbias", (p.C,), w.bias)
    sums = w.weight or w.bias or (w.x and own)
    partial = scratch.wanted("partial", (p.B, 2 * splits, p.C), some_are_poison=True) if sums else None
    linear = scratch.wanted("coefficients", (4, p.B, p.C), some_are_poison=True)
    source = x if w.weight or (w.x and own) else None
    module.norm_bprop(
        p, case.dtype, dy, source, saved, weight, *statistics, dx, dweight, dbias, passed, partial, linear, 0
    )
    if x.size:
        memory.check(f"{case}")
    scratch.check(f"{case}")
    return {
        **{"y": y, "mean": mean, "inverse": inverse, "dx": dx, "dweight": dweight, "dbias": dbias, "passed": passed},
        **dict(zip(("running_mean", "running_var"), kept, strict=True)),
    }


def sizes(case: Case, n: dict[str, np.ndarray], t: dict[str, Any]) -> dict[str, float]:
    """What the parts of each result are large, which may cancel in it."""
    p = case.p
    weight = float(np.abs(n["weight"]).max(initial=1.0)) if case.affine else 1.0
    steep = float(t["inverse"].max(initial=0.0))
    spread = float(np.abs(n["x"] - t["mean"][:, None]).max(initial=0.0)) if n["x"].size else 1.0
    gradient = rms(n["dy"])
    return {
        "y": 1.0 + weight * min(spread * steep, p.M**0.5 * 2),
        "mean": 1.0 + rms(n["x"]),
        "inverse": steep,
        "running_mean": 1.0 + rms(n["x"]),
        "running_var": 1.0 + rms(t["running_var"]),
        "dx": 3 * gradient * weight * steep * max(1.0, spread * steep),
        "passed": 1.0,
        "dweight": gradient * (p.B * p.M) ** 0.5 * max(1.0, spread * steep),
        "dbias": gradient * (p.B * p.M) ** 0.5,
    }


def check(module: Any, case: Case) -> None:
    __tracebackhide__ = True
    n, t = numbers(case), truth(case)
    terms = max(1, case.p.M * case.p.C // max(1, case.p.groups))
    large = sizes(case, n, t)
    for name, found in results(module, case, n, t).items():
        if found is None:
            continue
        assert t[name] is not None, f"{case}: {name}"
        if case.p.B * case.p.M == 0 and name in ("mean", "inverse", "running_mean", "running_var", "dweight", "dbias"):
            continue  # nothing is launched; the op sets them
        if name == "passed":
            assert_equal(found, t[name], name=f"{case}: {name}")
            continue
        allowed = tolerance(found.dtype if found.itemsize == 2 else np.float32, terms)
        judged = found.astype(np.float32) if found.dtype == np.float64 else found
        assert_close(judged, t[name], rtol=allowed, atol=allowed * large[name], name=f"{case}: {name}")


@pytest.mark.parametrize("order", ORDERS)
def test_every_pass_in_any_order(simt: ModuleType, order: str) -> None:
    simt.set_order(order)
    for case in sample(simt.flavour, CASES) if order == "fwd" else sample(simt.flavour, CASES)[:: len(ORDERS)]:
        check(simt, case)


def exact(module: ModuleType, p: NormProblem, dtype: str) -> None:
    """Small integers by statistics that are dyadic fractions: everything comes out exactly."""
    images, sets = (p.B, p.M, p.C), (p.B, p.C)
    n = {name: draw("integers", images, number) for number, name in enumerate(("x", "dy", "residual"))}
    weight, bias = draw("integers", (p.C,), 3), draw("integers", (p.C,), 4)
    mean, inverse = draw("integers", sets, 5), np.full(sets, 0.5)
    y = (n["x"] - mean[:, None]) * 0.5 * weight + bias + n["residual"]
    y = y if p.limit is None else np.clip(y, 0, p.limit)
    open_ = np.ones(images) if p.limit is None else (y > 0) & (y < p.limit)
    g, away = n["dy"] * open_, n["x"] - mean[:, None]
    h, z = g * weight, away * 0.5
    shared = (p.B, 1, 1, p.groups, -1)

    def average(values: np.ndarray) -> np.ndarray:
        if p.momentum is None:
            return np.zeros(images)
        means = values.reshape(p.B, p.M, p.groups, -1).mean(axis=(1, 3)).reshape(shared)
        return np.broadcast_to(means, (p.B, 1, 1, p.groups, p.C // p.groups)).reshape(p.B, 1, p.C)  # type: ignore[no-any-return]

    right = {
        "y": y,
        "dx": 0.5 * (h - average(h) - z * average(h * z)),
        "dweight": (g * z).sum(axis=(0, 1)),
        "dbias": g.sum(axis=(0, 1)),
        "passed": g,
    }
    case = Case(p, dtype, True, p.momentum is None, True)
    n |= {"weight": weight, "bias": bias, "running_mean": mean[0], "running_var": np.full(p.C, 4 - p.eps)}
    t = {"mean": mean, "inverse": inverse, "saved y": y}
    found = results(module, case, n, t)
    for name, expected in right.items():
        array = found[name]
        if array is None or (name == "y" and p.momentum is not None):
            continue
        rounded = expected.astype(array.dtype)
        assert_equal(array, rounded, signed_zeros=False, name=f"{case}: {name}")


def test_integers_come_out_exactly(simt: ModuleType) -> None:
    problems = [
        *(NormProblem(1, M, C, C, 1.0, None, limit) for M, C, limit in ((33, 8, None), (129, 5, INF), (1500, 4, 6.0))),
        *(NormProblem(1, M, C, C, 1.0, 0.5, limit) for M, C, limit in ((32, 8, None), (128, 5, INF), (2048, 4, 6.0))),
        NormProblem(3, 16, 8, 2, 1.0, 0.5, INF),
        NormProblem(4, 8, 16, 16, 1.0, 0.5, None),
    ]
    for number, p in enumerate(sample(simt.flavour, problems)):
        exact(simt, p, FLOATS[number % 3])


def test_small_problems_against_plain_loops(simt: ModuleType) -> None:
    for B, M, C, groups in ((1, 12, 5, 5), (3, 6, 8, 8), (2, 7, 8, 2), (2, 4, 6, 1)):
        case = Case(NormProblem(B, M, C, groups))
        n = numbers(case)
        x, dy = (n[name].transpose(0, 2, 1) for name in ("x", "dy"))
        y = naive.group_norm(x, groups, n["weight"], n["bias"])
        dx, dweight, dbias = naive.group_norm_grad(dy, x, groups, n["weight"])
        found = results(simt, case, n, truth(case))
        right = {"y": y.transpose(0, 2, 1), "dx": dx.transpose(0, 2, 1), "dweight": dweight, "dbias": dbias}
        for name, expected in right.items():
            array = found[name]
            assert array is not None
            assert_close(array, expected, rtol=1e-5, atol=1e-5, name=f"{case}: {name}")


# ---------------------------------------------------------------------------------------------- nothing is lost


def statistics(module: ModuleType, x: np.ndarray) -> tuple[np.ndarray, ...]:
    """y, mean and variance of each channel of x (M,C)."""
    p = NormProblem(1, *x.shape, x.shape[1], 1e-12)
    with np.errstate(all="ignore"):
        y, mean, inverse = ops.fprop(p, frozen(x[None]), None, None, None, None, like=x)
    return y[0], mean[0], inverse[0] ** -2 - 1e-12


@pytest.mark.parametrize("mean", [0.0, 1e4, -3e5])
def test_a_large_mean_costs_no_digits(simt: ModuleType, mean: float) -> None:
    M = 6000 if simt.flavour == "plain" else 600
    x = (mean + np.random.default_rng(SEED).standard_normal((M, 4))).astype(np.float32)
    wide = x.astype(np.float64)
    y, found, var = statistics(simt, x)
    assert_close(found, wide.mean(axis=0), rtol=0, atol=1e-6)
    assert_close(var, wide.var(axis=0), rtol=2e-6, atol=0)
    assert_close(y, (wide - wide.mean(axis=0)) / wide.std(axis=0), rtol=2e-6, atol=2e-6)


def test_a_first_row_that_stands_out_costs_no_digits(simt: ModuleType) -> None:
    """Differences are taken from it, and it is a thousand deviations of the rest off."""
    x = np.random.default_rng(SEED).standard_normal((3000 if simt.flavour == "plain" else 300, 8)).astype(np.float32)
    x[0] += 1000
    wide = x.astype(np.float64)
    _, found, var = statistics(simt, x)
    assert_close(found, wide.mean(axis=0), rtol=0, atol=2e-4)
    assert_close(var, wide.var(axis=0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("value", [0.0, 3.0, 1 / 3, -1e7, 65504.0, 1e30])
def test_a_constant_has_no_variance(simt: ModuleType, value: float) -> None:
    for C in (3, 4):
        y, mean, var = statistics(simt, np.full((200, C), value, np.float32))
        assert_equal(mean, np.full(C, np.float64(np.float32(value))))
        assert_equal(y, np.zeros((200, C)))
        assert (np.abs(var) < 1e-15).all()


def test_infinities_and_nan_stay_in_their_channel(simt: ModuleType) -> None:
    x = np.array(draw("normal", (1, 65, 8)), np.float32)
    x[0, 5, 0], x[0, 0, 1], x[0, 64, 2], x[0, 40, 3] = INF, -INF, math.nan, INF
    p = batch(65, 8, INF)
    kept = np.zeros(8, np.float32), np.ones(8, np.float32)
    y, mean, inverse = ops.fprop(p, frozen(x), None, None, kept, None, like=x)
    dx, dweight, *_ = ops.bprop(p, frozen(x), frozen(x), y, None, mean, inverse, ALL, like=x)
    for array in (y[0], dx[0], inverse, mean, dweight, *kept):
        finite = np.isfinite(array)
        assert (finite if finite.ndim == 1 else finite.all(axis=0))[4:].all()
    assert np.isnan(y[0, :, :4]).all()
    assert not np.isfinite(mean[0, :4]).any()


@pytest.mark.parametrize("value", [math.nan, INF, -INF, -0.0])
@pytest.mark.parametrize("limit", [None, INF, 6.0])
def test_special_numbers_by_running_statistics_are_the_references(
    simt: ModuleType, value: float, limit: float | None
) -> None:
    x, dy = (np.array(draw("normal", (1, 9, 4), n), np.float32) for n in range(2))
    x[0, 3, 2] = dy[0, 5, 1] = value
    p, kept = batch(9, 4, limit, None), (np.zeros(4, np.float32), np.ones(4, np.float32))
    wanted = ALL if limit else Wanted(True, True, True)
    with np.errstate(all="ignore"):
        y, mean, inverse = reference.fprop(p, x, None, None, kept, None)
        right = (y, *reference.bprop(p, dy, x, y, None, mean, inverse, wanted))
    found = ops.fprop(p, x, None, None, kept, None, like=x)[0]
    found = (found, *ops.bprop(p, dy, x, y, None, mean, inverse, wanted, like=x))
    for one, other in zip(found, right, strict=True):
        if other is not None:
            assert_close(one, other, rtol=1e-5, atol=1e-5, equal_nan=True)


# ----------------------------------------------------------------------------------------------- the same bits


def test_one_order_has_the_bits_of_another(simt: ModuleType) -> None:
    cases = [Case(batch(2100, 8, INF), residual=True, running=True), Case(NormProblem(2, 33, 12, 3), "float16")]
    for case in cases if simt.flavour == "plain" else cases[1:]:
        runs = []
        for order in (*ORDERS, "fwd"):
            simt.set_order(order)
            found = results(simt, case, numbers(case), truth(case))
            runs.append(b"".join(array.tobytes() for array in found.values() if array is not None))
        assert len(set(runs)) == 1, case


def test_an_image_has_the_same_bits_in_any_batch(simt: ModuleType) -> None:
    x, dy = (draw("normal", (6, 300, 8), number).astype(np.float32) for number in range(2))

    def run(some: slice) -> tuple[np.ndarray, ...]:
        p = NormProblem(len(x[some]), 300, 8, 4, limit=INF)
        y, mean, inverse = ops.fprop(p, x[some], None, None, None, None, like=x)
        return y, mean, inverse, ops.bprop(p, dy[some], x[some], y, None, mean, inverse, ALL, like=x)[0]

    for whole, alone in zip(run(slice(0, 6)), run(slice(4, 5)), strict=True):
        assert_equal(whole[4:5], alone)


@pytest.mark.parametrize("start", [1, 2, 3])
@pytest.mark.parametrize("dtype", FLOATS)
def test_memory_that_is_not_aligned_to_16_bytes(simt: ModuleType, start: int, dtype: str) -> None:
    """Every array lies `start` elements off; results are those of aligned arrays, but for the order of sums."""
    p = batch(200, 16, INF)
    n = numbers(Case(p, dtype))

    def off(array: np.ndarray) -> np.ndarray:
        memory = np.empty(array.size + start, dtype)
        moved = memory[start:].reshape(array.shape)
        moved[...] = array
        return moved

    outcomes = []
    for place in (lambda array: np.array(array, dtype), off):
        x, dy, residual = (place(n[name]) for name in ("x", "dy", "residual"))
        y, mean, inverse = ops.fprop(p, x, None, None, None, residual, like=x)
        outcomes.append(
            (y, *ops.bprop(p, dy, x, place(outcomes[0][0] if outcomes else y), None, mean, inverse, ALL, like=x))
        )
    for one, other in zip(*outcomes, strict=True):
        allowed = tolerance(one.dtype, 200)
        assert_close(one, np.asarray(other, np.float64), rtol=allowed, atol=allowed * 50)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_functions_run_these_kernels(simt: ModuleType, dtype: str) -> None:
    """Forward and backward, with the results of the reference in the same dtype."""
    relu = functools.partial(F.batch_norm_relu, training=True)
    calls: list[tuple[Any, int]] = [
        (lambda x, m, v, w, b, r: relu(x, m, v, w, b, residual=r), 8),
        (lambda x, m, v, w, b, r: relu(x, m, v, w, b, max_val=6), 5),
        (lambda x, m, v, w, b, r: F.batch_norm(x, m, v, w, b), 8),
        (lambda x, m, v, w, b, r: F.batch_norm(x, None, None, w, b, True), 6),
        (lambda x, m, v, w, b, r: F.instance_norm(x, m, v, w, b), 8),
        (lambda x, m, v, w, b, r: F.group_norm(x, 2, w, b), 12),
    ]

    def run(backend_name: str, function: Any, C: int) -> list[np.ndarray]:
        with backend.use_backend(backend_name, strict=True):
            x, residual = (gpucnn.tensor(draw("normal", (3, C, 5, 7), n), dtype, requires_grad=True) for n in (1, 2))
            weight, bias = (gpucnn.tensor(draw("normal", (C,), n), dtype, requires_grad=True) for n in (3, 4))
            kept = gpucnn.zeros(C, dtype=dtype), gpucnn.ones(C, dtype=dtype)
            y = function(x, *kept, weight, bias, residual)
            y.backward(draw("normal", y.shape, 5).astype(dtype))
            leaves = (x, weight, bias, residual)
            return [y.numpy(), *(k.numpy() for k in kept), *(a.grad.numpy() for a in leaves if a.grad is not None)]

    for call in calls:
        for found, right in zip(run("simt", *call), run("reference", *call), strict=True):
            size = 1 + float(np.abs(right.astype(np.float64)).max())
            allowed = 4 * tolerance(found.dtype, 64)
            assert_close(found, right.astype(np.float64), rtol=allowed, atol=allowed * size)


def test_networks_train_as_on_the_reference(simt: ModuleType) -> None:
    """Three steps of a block of batch norms, by the fused op, with strict=False: other ops may be the reference's."""
    outcomes = []
    for name in ("reference", "simt"):
        with backend.use_backend(name):
            gpucnn.manual_seed(5)
            net = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(), nn.BatchNorm2d(6), nn.ReLU6(), nn.GroupNorm(2, 6))
            optimizer = SGD(net.parameters(), 0.1, momentum=0.9)
            x = gpucnn.tensor(draw("normal", (4, 6, 5, 5)), "float32")
            for _ in range(3):
                optimizer.zero_grad()
                ((net(x) - 1.0) ** 2).mean().backward()
                optimizer.step()
        outcomes.append(net.state_dict())
    for key, value in outcomes[0].items():
        if key.endswith("num_batches_tracked"):
            assert int(outcomes[1][key]) == int(value) == 3
        else:
            assert_close(outcomes[1][key], value.numpy().astype(np.float64), rtol=1e-5, atol=1e-6, name=key)


# ------------------------------------------------------------------------------------- wrong kernels, bad arguments

WRONG: dict[str, dict[str, Any]] = {
    "fprop: last row forgotten": {
        "norm_fprop": lambda run, *a: (run(*a), a[8][:, -1].fill(math.nan)),
    },
    "fprop: no residual": {"norm_fprop": lambda run, *a: run(*a[:7], None, *a[8:])},
    "fprop: not cut": {"norm_fprop": lambda run, p, *a: run(replace(p, limit=None), *a)},
    "fprop: variance unbiased": {"norm_fprop": lambda run, p, *a: (run(p, *a), np.multiply(a[9], 0.99, out=a[9]))},
    "fprop: running statistics stay": {"norm_fprop": lambda run, p, *a: run(replace(p, momentum=0.0), *a)},
    "bprop: dy passes everywhere": {"norm_bprop": lambda run, p, *a: run(replace(p, limit=None), *a)},
    "bprop: without statistics": {"norm_bprop": lambda run, p, *a: run(replace(p, momentum=None), *a)},
    "bprop: dweight of weightless": {"norm_bprop": lambda run, *a: run(*a[:5], None, *a[6:])},
    "bprop: dbias unwritten": {"norm_bprop": lambda run, *a: (run(*a), a[10][-1:].fill(math.nan))},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_caught(simt: ModuleType, wrong: str) -> None:
    case = Case(batch(45, 8, INF), running=True, residual=True)
    check(simt, case)
    with pytest.raises(AssertionError, match=r"elements are wrong|never written"):
        check(Planted(simt, **WRONG[wrong]), case)


PROBLEM = NormProblem(2, 6, 8, 8, 1e-5, 0.5, INF)
FORWARD = (
    "x",
    "weight",
    "bias",
    "running_mean",
    "running_var",
    "residual",
    "y",
    "mean",
    "inverse",
    "partial",
    "linear",
)
BACKWARD = (*("dy", "x", "y", "weight", "mean", "inverse", "dx", "dweight", "dbias", "passed", "partial", "linear"),)
IMAGES, CHANNELS, SETS = (2, 6, 8), (8,), (2, 8)


def call(module: Any, name: str, p: NormProblem = PROBLEM, dtype: str = "float32", **changed: Any) -> dict[str, Any]:
    """Calls a binding on zeros and sevens, of which only `changed` do not fit; returns what it was given."""
    splits = module.norm_splits(PROBLEM, "float32")
    lines = 2 * splits + (name == "norm_fprop")
    shapes = dict.fromkeys(("x", "residual", "y", "dy", "dx", "passed"), IMAGES)
    shapes |= dict.fromkeys(("weight", "bias", "running_mean", "running_var", "dweight", "dbias"), CHANNELS)
    shapes |= {"partial": (2, lines, 8), "linear": (3 + (name == "norm_bprop"), 2, 8)}
    arrays: dict[str, Any] = {
        key: np.full(SETS, 7.0) if key in ("mean", "inverse") else np.full(shapes[key], 7, np.float32)
        for key in (FORWARD if name == "norm_fprop" else BACKWARD)
    }
    arrays |= {key: change(arrays) if callable(change) else change for key, change in changed.items()}
    try:
        getattr(module, name)(p, dtype, *arrays.values(), 0)
    except (ValueError, TypeError):
        assert all((array == 7).all() for array in arrays.values() if isinstance(array, np.ndarray)), "written"
        raise
    return arrays


@pytest.mark.parametrize("name", ["norm_fprop", "norm_bprop"])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"groups": 3}, "groups must divide C"),
        ({"groups": 0}, "groups must divide C"),
        ({"B": -1}, r"B and C must be in \[0, 2\^31\)"),
        ({"C": 1 << 31, "groups": 1}, r"B and C must be in \[0, 2\^31\)"),
        ({"B": 1 << 20, "M": 1 << 20}, r"\(B,M,C\) has more than 2\^38 elements"),
        ({"B": 1 << 30, "M": 1, "C": 33, "groups": 33}, "more blocks than a launch can have"),
        ({"momentum": None}, "running statistics are those of one set"),
        ({"limit": 0.0}, "limit must be positive"),
        ({"limit": math.nan}, "limit must be positive"),
        ({"M": 5}, r"of shape \(2, 6, 8\) must have shape \(2, 5, 8\)"),
    ],
)
def test_problems_that_no_kernel_could_be_trusted_with(
    simt: ModuleType, name: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"norm: .*{message}"):
        call(simt, name, replace(PROBLEM, **fields))


def test_arrays_that_do_not_fit_are_refused_and_nothing_is_written(simt: ModuleType) -> None:
    for name in ("norm_fprop", "norm_bprop"):
        call(simt, name)  # fits
    sevens = np.full(IMAGES, 7, np.float32)
    locked = sevens.copy()
    locked.flags.writeable = False
    calls: list[tuple[str, dict[str, Any], type[Exception], str]] = [
        ("norm_fprop", {"x": sevens.astype("f8")}, TypeError, r"'x' .*must be float32"),
        ("norm_fprop", {"x": sevens[:, :5].copy()}, ValueError, r"must have shape \(2, 6, 8\)"),
        ("norm_fprop", {"x": sevens[..., ::-1]}, ValueError, "'x' .*must be C-contiguous"),
        ("norm_fprop", {"y": locked}, ValueError, "'y' .*is read-only"),
        ("norm_fprop", {"y": lambda a: a["x"]}, ValueError, "'y' .* and 'x' .* overlap"),
        ("norm_fprop", {"y": lambda a: a["residual"]}, ValueError, "'y' .* and 'residual' .* overlap"),
        ("norm_fprop", {"residual": sevens[:1]}, ValueError, "'residual' of shape"),
        ("norm_fprop", {"weight": sevens[0, 0, :7]}, ValueError, r"'weight' of shape \(7,\) must have shape \(8,\)"),
        ("norm_fprop", {"bias": np.full(8, 7.0)}, TypeError, "'bias' .*must be float32"),
        ("norm_fprop", {"mean": np.full(SETS, 7, "f4")}, TypeError, "'mean' .*must be float64"),
        ("norm_fprop", {"inverse": lambda a: a["mean"]}, ValueError, "'mean' .* and 'inverse' .* overlap"),
        ("norm_fprop", {"running_var": None}, ValueError, "running_mean and running_var go together"),
        ("norm_fprop", {"running_var": lambda a: a["running_mean"]}, ValueError, "overlap"),
        ("norm_fprop", {"partial": None}, ValueError, "partial is needed"),
        ("norm_fprop", {"partial": np.full((2, 2, 8), 7, "f4")}, ValueError, "'partial' of shape"),
        ("norm_fprop", {"linear": np.full((2, 2, 8), 7, "f4")}, ValueError, "'coefficients' of shape"),
        ("norm_bprop", {"y": None}, ValueError, "y is needed where limit is a number"),
        ("norm_bprop", {"x": None}, ValueError, "x is needed for dweight"),
        ("norm_bprop", {"partial": None}, ValueError, "partial is needed for dweight"),
        ("norm_bprop", {"dx": lambda a: a["dy"]}, ValueError, "'dx' .* and 'dy' .* overlap"),
        ("norm_bprop", {"passed": lambda a: a["dx"]}, ValueError, "overlap"),
        ("norm_bprop", {"dweight": lambda a: a["dbias"]}, ValueError, "overlap"),
        ("norm_bprop", {"dweight": np.full(8, 7.0)}, TypeError, "'dweight' .*must be float32"),
        ("norm_bprop", {"inverse": np.full((8, 2), 7.0)}, ValueError, "'inverse' of shape"),
        ("norm_bprop", {"linear": np.full((3, 2, 8), 7, "f4")}, ValueError, "'coefficients' of shape"),
    ]
    for name, changed, error, message in calls:
        with pytest.raises(error, match=f"norm: .*{message}"):
            call(simt, name, **changed)
    with pytest.raises(ValueError, match="dtype must be float32, float16 or bfloat16, got float64"):
        call(simt, "norm_fprop", dtype="float64")
    with pytest.raises(ValueError, match="running statistics are those of each channel"):
        call(simt, "norm_fprop", replace(PROBLEM, groups=4))
    with pytest.raises(TypeError, match="the problem's limit must be a number or None"):
        call(simt, "norm_fprop", replace(PROBLEM, limit="6"))  # type: ignore[arg-type]
